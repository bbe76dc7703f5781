"""``he2st train``."""

from __future__ import annotations

import json
from pathlib import Path


def test_bundle_of_the_sample(mean_bundle: Path) -> None:
    manifest = json.loads((mean_bundle / "he2st.json").read_text(encoding="utf-8"))
    assert manifest["system"] == "mean"
    assert len(manifest["genes"]) == 50


def test_several_sections_follow_one_option(he2st, her2st: Path, tmp_path: Path) -> None:
    outcome = he2st(
        *("train", "mean", "--data", f"{her2st}:C3", f"{her2st}:C4", "--holdout", f"{her2st}:C2"),
        *("--panel", "hvg:20", "--seed", "1", "-o", tmp_path / "mean.he2st"),
    )
    assert outcome.code == 0
    manifest = json.loads((tmp_path / "mean.he2st" / "he2st.json").read_text(encoding="utf-8"))
    assert [record["section"] for record in manifest["training"]] == ["C3", "C4"]
    assert "from 2 sections" in outcome.err


def test_unknown_system(he2st, sample: str, tmp_path: Path) -> None:
    outcome = he2st("train", "ridgee", "--data", sample, "-o", tmp_path / "x")
    assert outcome.code == 1
    assert "ridge" in outcome.err


def test_unknown_argument_of_the_system(he2st, sample: str, tmp_path: Path) -> None:
    outcome = he2st("train", "mean", "--data", sample, "--argument", "depth=3", "-o", tmp_path / "x")
    assert outcome.code == 1
    assert "depth" in outcome.err


def test_existing_bundle_is_kept(he2st, sample: str, mean_bundle: Path) -> None:
    before = (mean_bundle / "he2st.json").read_bytes()
    outcome = he2st("train", "mean", "--data", sample, "-o", mean_bundle)
    assert outcome.code == 1
    assert "--force" in outcome.err
    assert (mean_bundle / "he2st.json").read_bytes() == before


def test_a_variant_names_the_arguments(he2st, sample: str, tmp_path: Path) -> None:
    outcome = he2st("train", "stnet", "--data", sample, "--variant", "tin", "-o", tmp_path / "x")
    assert outcome.code == 1
    assert "tiny" in outcome.err

"""``he2st train``."""

from __future__ import annotations

import json
import os
import signal
import time
from multiprocessing import get_context
from pathlib import Path

import pytest

from napari_he2st.cli.app import main


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


def written(folder: Path) -> list[int]:
    """When the checkpoints of a run were written."""
    return [path.stat().st_mtime_ns for path in sorted(folder.glob("*.pt"))]


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_killed_command_goes_on_to_the_same_bundle(he2st, sample: str, tmp_path: Path, monkeypatch) -> None:
    """The command is killed without warning as often as it takes, and ends as the one that was left alone."""
    monkeypatch.setenv("HE2ST_CACHE", str(tmp_path / "cache"))
    command = ["train", "stnet", "--variant", "tiny", "--data", sample, "--panel", "hvg:50"]
    command += ["--epochs", "8", "--device", "cpu", "--augment", "flips"]
    assert he2st(*command, "-o", tmp_path / "whole").code == 0
    folder = tmp_path / "killed.training"
    for _ in range(4):
        before = written(folder)
        process = get_context("fork").Process(target=main, args=([*command, "-o", str(tmp_path / "killed")],))
        process.start()
        while process.is_alive() and written(folder) == before:
            time.sleep(0.01)
        assert process.is_alive()  # killed soon after an epoch of its own, in the midst of the next
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        assert not (tmp_path / "killed").exists()
    assert he2st(*command, "-o", tmp_path / "killed").code == 0
    assert not folder.exists()
    first, second = (json.loads((tmp_path / name / "he2st.json").read_bytes()) for name in ("whole", "killed"))
    for facts in (first, second):
        del facts["created"]
    assert first == second  # the curve, all scores, and the checksums of all weights

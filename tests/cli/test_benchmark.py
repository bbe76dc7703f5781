"""``he2st benchmark``."""

from __future__ import annotations

from pathlib import Path

import pandas as pd


def test_blocks_of_the_sample_with_all_baselines(he2st, sample: str, tmp_path: Path) -> None:
    settings = tmp_path / "settings.toml"
    settings.write_text("[ridge]\narguments = { penalties = [3.0] }\n", encoding="utf-8")
    run = ("benchmark", "--systems", "ridge:tiny", "ridge", "--data", sample, "--folds", "block")
    options = ("--panel", "hvg:20", "--settings", settings, "-o", tmp_path / "out")
    outcome = he2st(*run, *options)
    assert outcome.code == 0, outcome.err
    scores = pd.read_parquet(tmp_path / "out" / "scores.parquet")
    assert set(scores["system"]) == {"mean", "ridge:colour", "ridge", "ridge:tiny"}
    assert scores["fold"].nunique() == 4
    assert {"pcc_gene", "pcc_spot", "ssim", "rvd", "peak_mb"} <= set(scores["metric"])
    assert "pcc_spot" in outcome.out
    assert "of one section" in outcome.err
    assert (tmp_path / "out" / "report.html").stat().st_size > 10_000
    again = he2st(*run, *options, "--budget", 0)
    assert again.code == 0, "all is done already"
    assert "budget" not in again.err


def test_a_budget_says_what_is_missing(he2st, sample: str, tmp_path: Path) -> None:
    run = ("benchmark", "--systems", "mean", "--data", sample, "--folds", "block", "--budget", 0, "-o", tmp_path)
    outcome = he2st(*run)
    assert outcome.code == 1
    assert "mean without C5 block 1" in outcome.err
    assert "Raise the budget" in outcome.err


def test_bad_input_is_named(he2st, sample: str, tmp_path: Path) -> None:
    data = ("--data", sample, "-o", tmp_path / "out")
    one_patient = he2st("benchmark", "--systems", "mean", *data)
    assert one_patient.code == 1
    assert "--folds block" in one_patient.err
    unknown = he2st("benchmark", "--systems", "stnett", *data)
    assert "stnet" in unknown.err
    refused = he2st("benchmark", "--systems", "istar", *data)
    assert "fitted to the slide" in refused.err
    broken = tmp_path / "broken.toml"
    broken.write_text("[ridge", encoding="utf-8")
    assert "cannot be read" in he2st("benchmark", "--systems", "ridge", "--settings", broken, *data).err

"""``he2st compare``."""

from __future__ import annotations

from pathlib import Path

import pandas as pd


def test_table_summary_and_report(he2st, prediction: Path, sample: str, tmp_path: Path) -> None:
    table, report = tmp_path / "genes.csv", tmp_path / "report.html"
    outcome = he2st("compare", prediction, sample, "--report", report, "-o", table, "--json")
    assert outcome.code == 0
    scores = pd.read_csv(table)
    assert len(scores) == 50
    assert scores["pcc"].between(-1, 1).all()
    assert outcome.json
    assert "research use" in report.read_text(encoding="utf-8")


def test_existing_report_is_kept(he2st, prediction: Path, sample: str, tmp_path: Path) -> None:
    report = tmp_path / "report.html"
    report.write_text("precious", encoding="utf-8")
    outcome = he2st("compare", prediction, sample, "--report", report, "-o", tmp_path / "genes.csv")
    assert outcome.code == 1
    assert report.read_text(encoding="utf-8") == "precious"
    assert not (tmp_path / "genes.csv").exists()


def test_the_input_is_never_the_output(he2st, prediction: Path, sample: str) -> None:
    before = prediction.read_bytes()
    outcome = he2st("compare", prediction, sample, "-o", prediction, "--force")
    assert outcome.code == 1
    assert prediction.read_bytes() == before


def test_file_that_is_no_h5ad(he2st, sample: str, tmp_path: Path) -> None:
    path = tmp_path / "broken.h5ad"
    path.write_bytes(b"not an HDF5 file")
    outcome = he2st("compare", path, sample, "-o", tmp_path / "genes.csv")
    assert outcome.code == 1
    assert "broken.h5ad" in outcome.err

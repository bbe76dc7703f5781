"""``he2st compare``."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from napari_he2st.cli.inputs import read_expression


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


def test_several_results_are_ranked_and_told_apart(he2st, prediction: Path, sample: str, tmp_path: Path) -> None:
    import anndata

    better = anndata.read_h5ad(prediction)
    measured = read_expression(sample)[better.obs_names, better.var_names]
    better.X = better.X + measured.to_df().to_numpy()
    better.write_h5ad(tmp_path / "better.h5ad")
    table = tmp_path / "genes.csv"
    outcome = he2st("compare", prediction, tmp_path / "better.h5ad", sample, "-o", table, "--json")
    assert outcome.code == 0, outcome.err
    assert [row["name"] for row in outcome.json["ranking"]] == ["better", "C5"]
    assert sorted(set(pd.read_csv(table)["result"])) == ["C5", "better"]


def test_the_report_has_its_figures_beside_it(he2st, prediction: Path, sample: str, tmp_path: Path) -> None:
    report, folder = tmp_path / "report.html", tmp_path / "figures"
    outcome = he2st("report", prediction, sample, "--figures", folder, "-o", report)
    assert outcome.code == 0, outcome.err
    assert "squares of tissue" in report.read_text(encoding="utf-8")
    assert {path.name for path in folder.iterdir()} >= {"maps.png", "maps.svg", "scatter.png", "scatter.svg"}
    again = he2st("report", prediction, sample, "--figures", folder, "-o", tmp_path / "other.html")
    assert again.code == 1
    assert not (tmp_path / "other.html").exists()


def test_other_scales_are_refused_and_converted(he2st, prediction: Path, sample: str, tmp_path: Path) -> None:
    import anndata
    import numpy as np

    counts = anndata.read_h5ad(prediction)
    counts.X = np.expm1(np.maximum(counts.X, 0))
    counts.uns["he2st"]["scale"] = "counts"
    counts.write_h5ad(tmp_path / "counts.h5ad")
    command = ("compare", tmp_path / "counts.h5ad", sample, "-o", tmp_path / "genes.csv")
    refused = he2st(*command)
    assert refused.code == 1
    assert "--convert" in refused.err
    done = he2st(*command, "--convert")
    assert done.code == 0, done.err
    assert "Converted" in done.err


def test_one_name_is_not_enough(he2st, prediction: Path, tmp_path: Path) -> None:
    outcome = he2st("compare", prediction, "-o", tmp_path / "genes.csv")
    assert outcome.code == 2
    assert "judged by" in outcome.err

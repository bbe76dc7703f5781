"""Comparison: spots by position, genes by name, honest warnings, and a report that needs nothing else."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy.stats import pearsonr

from napari_he2st.core.errors import GeneError, OutputError, SchemaError, TruthError, UnknownNameError
from napari_he2st.core.schema import provenance
from napari_he2st.engine.compare import compare
from napari_he2st.engine.report import write_report, write_table

GENES = ["ERBB2", "CD3E", "FLAT", "ONLY_MEASURED"]


def section(kind: str, xy: np.ndarray, X: np.ndarray, genes: list[str], **facts) -> AnnData:
    n = len(xy)
    obs = pd.DataFrame(
        {"array_row": np.arange(n) // 8, "array_col": np.arange(n) % 8}, index=[f"s{i}" for i in range(n)]
    )
    adata = AnnData(X.astype(np.float32), obs=obs, var=pd.DataFrame(index=genes))
    adata.obsm["spatial"] = xy.astype(np.float64)
    given = {"scale": "log1p_cp10k", "pitch_um": 100.0, "spot_um": 55.0, "lattice": "square", "library": "L"} | facts
    adata.uns["he2st"] = provenance(kind, mpp=0.5, **given)
    return adata


@pytest.fixture
def measured() -> AnnData:
    rng = np.random.default_rng(0)
    xy = np.stack(np.meshgrid(np.arange(8), np.arange(6)), -1).reshape(-1, 2) * 200.0
    X = rng.random((48, 4))
    X[:, 2] = 1
    return section("measured", xy, X, GENES)


@pytest.fixture
def predicted(measured: AnnData) -> AnnData:
    rng = np.random.default_rng(1)
    order = rng.permutation(48)[:40]
    noise = rng.normal(0, 0.2, (40, 3))
    xy = measured.obsm["spatial"][order] + 20
    return section("predicted", xy, measured.X[order][:, [1, 0, 2]] + noise, ["CD3E", "ERBB2", "FLAT"])


def test_spots_are_paired_by_position_and_genes_by_name(measured: AnnData, predicted: AnnData) -> None:
    result = compare(predicted, measured)
    assert result.summary["spots_matched"] == 40
    np.testing.assert_allclose(
        predicted.obsm["spatial"][result.matching.index[0]] - 20, measured.obsm["spatial"][result.matching.index[1]]
    )
    table = result.table.set_index("gene")
    assert set(table.index) == {"ERBB2", "CD3E", "FLAT"}
    expected = pearsonr(
        np.asarray(predicted[:, "ERBB2"].X)[result.matching.index[0], 0],
        np.asarray(measured[:, "ERBB2"].X)[result.matching.index[1], 0],
    ).statistic
    assert table.loc["ERBB2", "pcc"] == pytest.approx(expected, abs=1e-6)
    assert np.isnan(table.loc["FLAT", "pcc"])
    assert table.loc["FLAT", "constant"]
    assert any("8 of 48" in warning for warning in result.warnings)


def test_scores_on_a_training_section_are_called_so(measured: AnnData, predicted: AnnData) -> None:
    assert not any("trained on this" in w for w in compare(predicted, measured).warnings)
    predicted.uns["he2st"] |= {"slide_fingerprint": "abc", "training_slides": np.array(["abc", "def"])}
    assert any("trained on this very section" in w for w in compare(predicted, measured).warnings)


def test_what_cannot_be_compared_is_refused(measured: AnnData, predicted: AnnData) -> None:
    other = measured.copy()
    other.uns["he2st"]["scale"] = "counts"
    with pytest.raises(SchemaError, match="different expression scales.*--convert"):
        compare(predicted, other)
    other.uns["he2st"]["scale"] = "as_stored"
    with pytest.raises(SchemaError, match="Read the measured counts again"):
        compare(predicted, other, convert=True)
    far = measured.copy()
    far.obsm["spatial"] = far.obsm["spatial"] + 1e5
    with pytest.raises(TruthError, match="same slide"):
        compare(predicted, far)
    renamed = measured.copy()
    renamed.var_names = [f"x{i}" for i in range(4)]
    with pytest.raises(GeneError):
        compare(predicted, renamed)


def test_genes_are_found_by_identifier_where_the_symbol_changed(measured: AnnData, predicted: AnnData) -> None:
    identifiers = [f"ENSG{i:011d}" for i in range(4)]
    measured.var["ensembl"] = [f"{i}.3" for i in identifiers]
    predicted.var["ensembl"] = [identifiers[1], identifiers[0], identifiers[2]]
    expected = compare(predicted, measured).table
    measured.var_names = ["NEU", *GENES[1:]]  # ERBB2 under another symbol
    found = compare(predicted, measured)
    assert found.genes == ["CD3E", "NEU", "FLAT"]
    np.testing.assert_allclose(found.table["pcc"], expected["pcc"])


def test_the_difference_is_predicted_minus_measured(measured: AnnData, predicted: AnnData) -> None:
    result = compare(predicted, measured)
    expected = predicted[:, "ERBB2"].X[result.matching.index[0]] - measured[:, "ERBB2"].X[result.matching.index[1]]
    np.testing.assert_allclose(result.difference("ERBB2"), expected[:, 0], rtol=1e-6)
    with pytest.raises(UnknownNameError, match="ERBB2"):
        result.difference("ERBB1")


def test_sparse_and_unknown_values(measured: AnnData, predicted: AnnData) -> None:
    from scipy.sparse import csr_matrix

    predicted.X[3, 0] = np.nan
    expected = compare(predicted, measured)
    measured.X = csr_matrix(measured.X)
    result = compare(predicted, measured)
    pd.testing.assert_frame_equal(result.table, expected.table)
    assert result.table.set_index("gene").loc["CD3E", "n"] == 39
    assert sorted(result.spots["n"].unique()) == [2, 3]


def test_held_out_scores_stand_beside_those_of_this_section(measured: AnnData, predicted: AnnData) -> None:
    predicted.var["held_out_pcc"] = [0.1, 0.2, np.nan]
    table = compare(predicted, measured).table.set_index("gene")
    assert table.loc["ERBB2", "held_out_pcc"] == pytest.approx(0.2)


def test_different_pixel_sizes_are_called_so(measured: AnnData, predicted: AnnData) -> None:
    predicted.uns["he2st"]["mpp"] = 0.505
    assert not any("pixel sizes" in w for w in compare(predicted, measured).warnings)
    predicted.uns["he2st"]["mpp"] = 0.25
    assert any("(0.25 and 0.5 µm)" in w for w in compare(predicted, measured).warnings)


def test_domains_are_scored_against_labels(measured: AnnData, predicted: AnnData) -> None:
    measured.obs["label"] = np.where(measured.obsm["spatial"][:, 0] > 700, "tumour", "stroma")
    measured.obs["other"] = None
    predicted.obs["domain"] = np.where(predicted.obsm["spatial"][:, 0] > 720, "D1", "D2")
    summary = compare(predicted, measured).summary
    assert summary["labels"] == "label"
    assert summary["ari"] == summary["nmi"] == pytest.approx(1)
    assert compare(predicted, measured, labels="other").summary["ari"] is None
    with pytest.raises(UnknownNameError, match="Did you mean label"):
        compare(predicted, measured, labels="lable")


def test_the_summary_is_json(measured: AnnData, predicted: AnnData) -> None:
    measured.obs["label"] = "stroma"
    predicted.obs["domain"] = "none"
    summary = compare(predicted, measured).summary
    assert json.loads(json.dumps(summary, allow_nan=False)) == summary


def test_the_table_holds_no_spreadsheet_formula(measured: AnnData, predicted: AnnData, tmp_path: Path) -> None:
    names = {"FLAT": "=HYPERLINK(1)"}
    measured.var_names = [names.get(g, g) for g in measured.var_names]
    predicted.var_names = [names.get(g, g) for g in predicted.var_names]
    comparison = compare(predicted, measured)
    text = write_table(comparison, tmp_path / "genes.csv").read_text(encoding="utf-8")
    assert "\n'=HYPERLINK(1)," in text
    assert "=HYPERLINK(1)" in set(comparison.table["gene"])


def test_a_report_of_an_unknown_gene_is_refused(measured: AnnData, predicted: AnnData, tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="CD3E"):
        write_report(compare(predicted, measured), tmp_path / "report.html", gene="CD3D")
    assert not list(tmp_path.iterdir())


def test_a_report_where_nothing_correlates(measured: AnnData, predicted: AnnData, tmp_path: Path) -> None:
    predicted.X[:] = 1
    page = write_report(compare(predicted, measured), tmp_path / "report.html").read_text(encoding="utf-8")
    assert "<td>genes without pcc</td><td>3</td>" in page


def test_the_report_needs_nothing_else_and_escapes_names(measured: AnnData, predicted: AnnData, tmp_path: Path) -> None:
    predicted.uns["he2st"]["bundle_title"] = "<script>alert(1)</script>"
    comparison = compare(predicted, measured)
    page = write_report(comparison, tmp_path / "report.html").read_text(encoding="utf-8")
    assert "<script>" not in page
    assert not re.search(r"(src|href)=['\"](?!data:)", page)
    assert "research use only" in page
    assert page.count("data:image/png;base64,") == 5
    table = pd.read_csv(write_table(comparison, tmp_path / "genes.csv"))
    assert table["pcc"].max() == pytest.approx(comparison.table["pcc"].max(), abs=1e-5)
    with pytest.raises(OutputError, match="exists"):
        write_report(comparison, tmp_path / "report.html")


def test_counts_are_normalised_where_that_is_asked_for(measured: AnnData, predicted: AnnData) -> None:
    counts = measured.copy()
    counts.X = np.random.default_rng(2).poisson(5, counts.shape).astype(np.float32)
    counts.uns["he2st"]["scale"] = "counts"
    result = compare(predicted, counts, convert=True)
    assert result.scale == "log1p_cp10k"
    assert "raw counts of L" in result.warnings[0]
    row, column = result.matching.index[1][0], list(counts.var_names).index("CD3E")
    expected = np.log1p(1e4 * counts.X[row, column] / counts.X[row].sum())
    assert result.measured[0, result.column("CD3E")] == pytest.approx(expected, rel=1e-5)


def test_predicted_counts_are_compared_on_the_shared_panel(measured: AnnData, predicted: AnnData) -> None:
    predicted.uns["he2st"]["scale"] = "counts"
    predicted.X = np.random.default_rng(2).poisson(5, predicted.shape).astype(np.float32) - 1  # some below zero
    result = compare(predicted, measured, convert=True)
    assert result.scale == "log1p_cp10k_panel"
    for values in (result.predicted, result.measured):
        total = np.expm1(values.astype(np.float64)).sum(axis=1)
        np.testing.assert_allclose(total[total > 0], 1e4, rtol=1e-3)
    before = np.expm1(measured.X[result.matching.index[1]][:, [1, 0, 2]])  # CP10k of all genes: a factor per spot
    ratio = np.expm1(result.measured)[:, [0]] / np.expm1(result.measured)[:, [1]]
    np.testing.assert_allclose(ratio, before[:, [0]] / before[:, [1]], rtol=1e-3)


def test_the_interval_holds_the_correlation(measured: AnnData, predicted: AnnData) -> None:
    table = compare(predicted, measured).table.set_index("gene")
    for gene in ("ERBB2", "CD3E"):
        assert table.loc[gene, "pcc_low"] < table.loc[gene, "pcc"] < table.loc[gene, "pcc_high"]
    assert np.isnan(table.loc["FLAT", "pcc_low"])


def test_two_predictions_are_named(measured: AnnData, predicted: AnnData) -> None:
    other = predicted.copy()
    other.uns["he2st"]["bundle_title"] = "Other"
    assert compare(predicted, measured).titles == ("predicted", "measured")
    assert compare(other, predicted).titles == ("Other (predicted)", "L (predicted)")


def test_the_residual_is_what_the_line_leaves(measured: AnnData, predicted: AnnData) -> None:
    result = compare(predicted, measured)
    slope, intercept = result.line("ERBB2")
    column = result.column("ERBB2")
    expected = result.predicted[:, column] - (slope * result.measured[:, column] + intercept)
    np.testing.assert_allclose(result.residual("ERBB2"), expected, atol=1e-6)
    assert abs(float(np.mean(result.residual("ERBB2")))) < 1e-6
    assert np.isnan(result.line("FLAT")).all()

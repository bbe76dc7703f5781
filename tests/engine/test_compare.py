"""Comparison: spots by position, genes by name, honest warnings, and a report that needs nothing else."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy.stats import pearsonr

from napari_he2st.core.errors import GeneError, OutputError, SchemaError, TruthError
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
        predicted.obsm["spatial"][result.index_predicted] - 20, measured.obsm["spatial"][result.index_measured]
    )
    table = result.table.set_index("gene")
    assert set(table.index) == {"ERBB2", "CD3E", "FLAT"}
    expected = pearsonr(
        np.asarray(predicted[:, "ERBB2"].X)[result.index_predicted, 0],
        np.asarray(measured[:, "ERBB2"].X)[result.index_measured, 0],
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
    with pytest.raises(SchemaError, match="different expression scales"):
        compare(predicted, other)
    far = measured.copy()
    far.obsm["spatial"] = far.obsm["spatial"] + 1e5
    with pytest.raises(TruthError, match="same slide"):
        compare(predicted, far)
    renamed = measured.copy()
    renamed.var_names = [f"x{i}" for i in range(4)]
    with pytest.raises(GeneError):
        compare(predicted, renamed)


def test_domains_are_scored_against_labels(measured: AnnData, predicted: AnnData) -> None:
    measured.obs["label"] = np.where(measured.obsm["spatial"][:, 0] > 700, "tumour", "stroma")
    predicted.obs["domain"] = np.where(predicted.obsm["spatial"][:, 0] > 720, "D1", "D2")
    assert compare(predicted, measured).summary["ari"] == pytest.approx(1)


def test_the_report_needs_nothing_else_and_escapes_names(measured: AnnData, predicted: AnnData, tmp_path: Path) -> None:
    predicted.uns["he2st"]["bundle_title"] = "<script>alert(1)</script>"
    comparison = compare(predicted, measured)
    page = write_report(comparison, tmp_path / "report.html").read_text(encoding="utf-8")
    assert "<script>" not in page
    assert not re.search(r"(src|href)=['\"](?!data:)", page)
    assert "research use only" in page
    assert page.count("data:image/png;base64,") == 2
    table = pd.read_csv(write_table(comparison, tmp_path / "genes.csv"))
    assert table["pcc"].max() == pytest.approx(comparison.table["pcc"].max(), abs=1e-5)
    with pytest.raises(OutputError, match="exists"):
        write_report(comparison, tmp_path / "report.html")

from __future__ import annotations

import json

import numpy as np
import pytest

from napari_he2st.analysis.metrics import METRICS
from napari_he2st.analysis.metrics.table import per_gene, per_spot, summarise


@pytest.fixture
def maps(lattices):
    rng = np.random.default_rng(0)
    measured = rng.gamma(2.0, size=(120, 5)).astype(np.float32)
    predicted = (measured + rng.normal(size=measured.shape)).astype(np.float32)
    measured[:, 1] = 2.0
    measured[:30, 2] = np.nan
    return predicted, measured, lattices.square(12, 10)


def test_per_gene_holds_every_metric(maps):
    predicted, measured, grid = maps
    table = per_gene(predicted, measured, list("abcde"), grid=grid)
    known = ["gene", "n", "constant", "pcc", "spearman", "mse", "mae", "ssim", "rvd"]
    assert list(table) == [*known, "moran_predicted", "moran_measured"]
    assert table["gene"].tolist() == list("abcde")
    assert table["n"].tolist() == [120, 120, 90, 120, 120]
    assert table["constant"].tolist() == [False, True, False, False, False]
    for name in ("pcc", "mse", "mae", "spearman", "rvd"):
        np.testing.assert_allclose(table[name], METRICS[name].function(predicted, measured))
    np.testing.assert_allclose(table["ssim"], METRICS["ssim"].function(predicted, measured, grid=grid))
    np.testing.assert_allclose(table["moran_measured"], METRICS["moran"].function(measured, grid=grid))


def test_without_a_grid_there_is_no_moran(maps):
    table = per_gene(*maps[:2], list("abcde"))
    assert "moran_predicted" not in table
    assert table["ssim"].notna().sum() == 4


def test_per_spot_is_over_genes(maps):
    predicted, measured, _ = maps
    table = per_spot(predicted, measured, [f"s{i}" for i in range(120)])
    assert table.index.name == "spot"
    assert table["n"].tolist() == [4] * 30 + [5] * 90
    known = np.isfinite(measured[0])
    assert table.loc["s0", "pcc"] == pytest.approx(np.corrcoef(predicted[0][known], measured[0][known])[0, 1])
    assert table.loc["s50", "mae"] == pytest.approx(np.abs(predicted[50] - measured[50]).mean())


def test_summary_counts_what_it_leaves_out_and_is_json(maps):
    predicted, measured, grid = maps
    table = per_gene(predicted, measured, list("abcde"), grid=grid)
    summary = summarise(table, grid=grid)
    assert summary["genes"] == 5
    assert summary["genes_constant"] == summary["genes_without_pcc"] == 1
    assert summary["pcc_mean"] == pytest.approx(np.nanmean(table["pcc"]))
    assert summary["pcc_median"] == pytest.approx(np.nanmedian(table["pcc"]))
    assert summary["rvd_mean"] == pytest.approx(table["rvd"].mean())
    assert summary["ssim_form"] == "mean over 7 × 7 spot windows"
    assert json.loads(json.dumps(summary, allow_nan=False)) == summary


def test_summary_of_undefined_metrics_is_none():
    table = per_gene(np.zeros((4, 2)), np.zeros((4, 2)), ["a", "b"])
    assert summarise(table)["pcc_mean"] is None

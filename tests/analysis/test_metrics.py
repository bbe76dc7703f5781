"""Metrics against the libraries that define them, and their laws."""

from __future__ import annotations

import subprocess
import sys
import warnings

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats

from napari_he2st.analysis.graphs import lattice_graph
from napari_he2st.analysis.metrics import METRICS
from napari_he2st.analysis.metrics.moran import moran, morans_i
from napari_he2st.analysis.metrics.ssim import ssim, ssim_form
from napari_he2st.core.errors import SchemaError

PAIR_METRICS = ["mse", "mae", "pcc", "spearman", "rvd", "ssim"]


def score(name, predicted, measured, **more):
    return METRICS[name].function(predicted, measured, **more)


@pytest.fixture
def maps():
    """Counts-like maps with ties, 20 × 15 spots × 12 genes; NaN in four genes, one measured constant, one predicted."""
    rng = np.random.default_rng(3)
    measured = np.log1p(rng.poisson(2.0, size=(300, 12))).astype(np.float32)
    predicted = (0.5 * measured + rng.normal(size=measured.shape)).astype(np.float32)
    measured[rng.random(300) < 0.2, 2] = np.nan
    predicted[rng.random(300) < 0.2, 2] = np.nan
    measured[:, 3] = np.nan
    measured[1:, 4] = np.nan
    predicted[7, 5] = np.nan
    measured[:, 8] = 1.3
    predicted[:, 9] = 0.0
    return predicted, measured


def reference(name, x, y):
    """One gene as the literature computes it."""
    known = np.isfinite(x) & np.isfinite(y)
    x, y = x[known].astype(float), y[known].astype(float)
    if name in ("mse", "mae"):
        return np.nan if len(x) == 0 else np.mean(np.abs(x - y) ** (2 if name == "mse" else 1))
    if name == "rvd":
        return np.nan if len(y) == 0 or np.ptp(y) == 0 else (x.var() - y.var()) ** 2 / y.var() ** 2
    if len(x) < 2 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return np.nan
    return (stats.pearsonr if name == "pcc" else stats.spearmanr)(x, y)[0]


@pytest.mark.parametrize("name", ["mse", "mae", "pcc", "spearman", "rvd"])
def test_equals_scipy_gene_by_gene(maps, name):
    expected = [reference(name, x, y) for x, y in zip(maps[0].T, maps[1].T, strict=True)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_allclose(score(name, *maps), expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", PAIR_METRICS)
@pytest.mark.parametrize("kind", [sp.csr_matrix, sp.csr_array])
def test_sparse_equals_dense(maps, name, kind):
    np.testing.assert_allclose(score(name, maps[0], kind(maps[1])), score(name, *maps), rtol=1e-12)


@pytest.mark.parametrize("name", PAIR_METRICS)
def test_blocks_make_no_difference(maps, name, monkeypatch):
    from napari_he2st.analysis.metrics import pairs

    whole = score(name, *maps)
    monkeypatch.setattr(pairs, "_BLOCK", 1)
    monkeypatch.setattr(pairs, "_CACHED", 7)
    np.testing.assert_allclose(score(name, *maps), whole, rtol=1e-12)


@pytest.mark.parametrize("name", PAIR_METRICS)
def test_inputs_are_left_as_they_were(maps, name):
    before = [m.copy() for m in maps]
    score(name, *maps)
    for now, then in zip(maps, before, strict=True):
        np.testing.assert_array_equal(now, then)


@pytest.mark.parametrize("name", PAIR_METRICS)
def test_shapes_have_to_match(name):
    with pytest.raises(SchemaError, match="not the same spots"):
        score(name, np.zeros((3, 2)), np.zeros((3, 3)))


@pytest.mark.parametrize("name", PAIR_METRICS)
def test_no_genes_and_no_spots(name):
    assert score(name, np.zeros((5, 0)), np.zeros((5, 0))).shape == (0,)
    assert np.isnan(score(name, np.zeros((0, 3)), np.zeros((0, 3)))).all()


def test_a_constant_far_from_zero_is_still_constant():
    flat = np.full((1000, 1), 0.1 + 1e3)
    noise = np.random.default_rng(0).normal(size=(1000, 1))
    assert np.isnan(score("pcc", noise, flat)).all()
    assert np.isnan(score("rvd", noise, flat)).all()


def test_rvd_extremes():
    measured = np.random.default_rng(0).normal(size=(50, 3))
    assert score("rvd", measured + 5, measured) == pytest.approx(np.zeros(3), abs=1e-12)
    assert score("rvd", np.ones_like(measured), measured) == pytest.approx(np.ones(3))


columns = arrays(np.float64, (25, 2), elements=st.floats(-100, 100, allow_nan=False))


@settings(max_examples=40, deadline=None)
@given(columns, columns, st.floats(0.1, 10), st.floats(-50, 50))
def test_correlation_laws(x, y, factor, shift):
    for name in ("pcc", "spearman"):
        one = score(name, x, y)
        np.testing.assert_allclose(score(name, y, x), one, rtol=1e-9, atol=1e-9)
        assert (np.abs(one[np.isfinite(one)]) <= 1).all()
    wide = np.ptp(x, axis=0) > 1e-6  # closer than that, the shift itself rounds the pattern away
    both = wide & np.isfinite(score("pcc", x, y))
    np.testing.assert_allclose(
        score("pcc", factor * x + shift, y)[both], score("pcc", x, y)[both], rtol=1e-5, atol=1e-5
    )


@settings(max_examples=40, deadline=None)
@given(columns, columns)
def test_error_laws(x, y):
    for name in ("mse", "mae"):
        np.testing.assert_allclose(score(name, x, y), score(name, y, x))
        np.testing.assert_array_equal(score(name, x, x), 0)
    assert (score("mse", x, y) + 1e-9 >= score("mae", x, y) ** 2).all()


# --- maps


def test_ssim_of_a_full_raster_is_scikit_images(lattices):
    from skimage.metrics import structural_similarity

    rng = np.random.default_rng(0)
    measured = rng.gamma(2.0, size=(20 * 15, 6))
    predicted = measured + rng.normal(size=measured.shape)
    order = rng.permutation(300)
    grid = lattices.square(20, 15).take(order)
    expected = [
        structural_similarity(p.reshape(20, 15), m.reshape(20, 15), data_range=np.ptp(m))
        for p, m in zip(predicted.T, measured.T, strict=True)
    ]
    np.testing.assert_allclose(ssim(predicted[order], measured[order], grid=grid), expected, rtol=1e-9)
    assert ssim_form(grid) == "mean over 7 × 7 spot windows"


def test_ssim_takes_only_windows_wholly_on_known_spots(lattices):
    from skimage.metrics import structural_similarity

    rng = np.random.default_rng(1)
    measured = rng.gamma(2.0, size=(18 * 16, 2))
    predicted = measured + rng.normal(size=measured.shape)
    keep = np.ones((18, 16), bool)
    keep[9, 12], keep[:3] = False, False
    keep = keep.ravel()
    measured[5 * 16 + 2, 1] = np.nan  # one gene only
    expected = []
    for gene in range(2):
        known = (keep & np.isfinite(measured[:, gene])).reshape(18, 16)
        m = np.where(known, np.nan_to_num(measured[:, gene]).reshape(18, 16), 0)
        p = np.where(known, predicted[:, gene].reshape(18, 16), 0)
        _, full = structural_similarity(p, m, data_range=np.ptp(m[known]), full=True)
        whole = np.lib.stride_tricks.sliding_window_view(known, (7, 7)).all(axis=(2, 3))
        expected.append(full[3:-3, 3:-3][whole].mean())
    grid = lattices.square(18, 16, keep=keep)
    np.testing.assert_allclose(ssim(predicted[keep], measured[keep], grid=grid), expected, rtol=1e-9)


def test_ssim_without_windows_is_one_window_over_all_spots(lattices):
    from skimage.metrics import structural_similarity

    rng = np.random.default_rng(2)
    measured = rng.gamma(2.0, size=(49, 3))
    predicted = measured + rng.normal(size=measured.shape)
    expected = [
        structural_similarity(p.reshape(7, 7), m.reshape(7, 7), data_range=np.ptp(m), win_size=7)
        for p, m in zip(predicted.T, measured.T, strict=True)
    ]
    np.testing.assert_allclose(ssim(predicted, measured), expected, rtol=1e-9)
    assert ssim_form(None) == ssim_form(lattices.square(5, 30)) == "one window over all spots"
    np.testing.assert_allclose(ssim(predicted, measured, grid=lattices.square(7, 7)), expected, rtol=1e-9)


def test_ssim_of_equal_maps_is_one_also_on_a_hexagonal_lattice(lattices):
    grid = lattices.hexagonal(12, 11)
    values = np.random.default_rng(0).gamma(2.0, size=(132, 4))
    values[:, 2] = 1.0
    assert ssim_form(grid).startswith("mean over 7")
    np.testing.assert_allclose(ssim(values, values, grid=grid), [1, 1, np.nan, 1])


@pytest.mark.parametrize(("lattice", "neighbours"), [("square", 4), ("hexagonal", 6)])
def test_moran_is_squidpys(lattices, lattice, neighbours):
    import anndata as ad
    import squidpy as sq

    grid = getattr(lattices, lattice)(14, 12)
    values = np.random.default_rng(0).gamma(2.0, size=(168, 5)).astype(np.float32)
    values[:, 0] = grid.xy[:, 0]
    adata = ad.AnnData(values, obsm={"spatial": grid.xy})
    sq.gr.spatial_neighbors(adata, coord_type="grid", n_neighs=neighbours)
    sq.gr.spatial_autocorr(adata, mode="moran", n_perms=None, n_jobs=1, show_progress_bar=False)
    expected = adata.uns["moranI"]["I"].loc[adata.var_names].to_numpy()
    np.testing.assert_allclose(moran(values, grid=grid), expected, atol=1e-6)
    np.testing.assert_allclose(moran(sp.csr_matrix(values), grid=grid), expected, atol=1e-6)


def test_moran_leaves_out_unmeasured_spots_as_if_they_were_not_there(lattices):
    rng = np.random.default_rng(0)
    values = rng.gamma(2.0, size=(100, 3))
    keep = rng.random(100) > 0.3
    with_gaps = values.copy()
    with_gaps[~keep, 1] = np.nan
    result = moran(with_gaps, grid=lattices.square(10, 10))
    expected = moran(values[keep], grid=lattices.square(10, 10, keep=keep))
    np.testing.assert_allclose(result[1], expected[1], rtol=1e-12)
    np.testing.assert_allclose(result[[0, 2]], moran(values, grid=lattices.square(10, 10))[[0, 2]], rtol=1e-12)


def test_moran_extremes(lattices):
    grid = lattices.square(10, 10)
    board = (grid.index.sum(axis=1) % 2).astype(float)
    values = np.stack([board, np.full(100, 3.0), np.full(100, np.nan)], axis=1)
    np.testing.assert_allclose(morans_i(values, lattice_graph(grid)), [-1, np.nan, np.nan])


# --- labels


def test_label_metrics_are_scikit_learns():
    from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

    rng = np.random.default_rng(0)
    left, right = rng.integers(0, 4, 200), rng.integers(0, 3, 200)
    names = np.array(["tumour", "stroma", "fat"])[right]
    assert score("ari", left, names) == pytest.approx(adjusted_rand_score(right, left))
    assert score("nmi", left, names) == pytest.approx(normalized_mutual_info_score(right, left))


def test_unlabelled_spots_are_skipped():
    import pandas as pd

    left = pd.Categorical(["a", "a", "b", "b", None, "a"])
    right = np.array([0, 0, 1, 1, 0, -1])
    assert score("ari", left, right) == 1
    assert np.isnan(score("nmi", left, np.full(6, -1)))
    with pytest.raises(SchemaError, match="6 predicted and 5 measured"):
        score("ari", left, right[:5])


def test_every_metric_says_what_it_is():
    for entry in METRICS:
        assert entry.description
        assert entry.facts["of"] in ("pairs", "map", "labels")
        assert entry.facts["better"] in ("higher", "lower", None)
    assert {e.name for e in METRICS} == {"mse", "mae", "pcc", "spearman", "ssim", "rvd", "moran", "ari", "nmi"}


def test_listing_metrics_loads_no_heavy_library():
    code = (
        "import sys; from napari_he2st.analysis.metrics import METRICS; METRICS.names();"
        "print([m for m in ('torch','scanpy','anndata','sklearn','skimage','numba','scipy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"

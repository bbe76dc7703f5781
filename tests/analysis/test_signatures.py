"""Signature scores as scanpy has them, ratios in linear units."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.sparse import csc_matrix

from napari_he2st.analysis.signatures import control_genes, log2_ratio, mean_of_columns, signature_score
from napari_he2st.core.errors import SchemaError


@pytest.fixture
def values() -> np.ndarray:
    rng = np.random.default_rng(0)
    return np.log1p(rng.poisson(rng.gamma(1, 2, size=300), size=(80, 300))).astype(np.float32)


def test_scores_are_those_of_scanpy_where_nothing_is_drawn(values):
    import scanpy as sc
    from anndata import AnnData

    adata = AnnData(values.copy())
    adata.var_names = [f"g{i}" for i in range(300)]
    of = np.array([3, 50, 120, 299])
    # More controls than a bin has genes: all of them are taken, whatever the seed.
    sc.tl.score_genes(adata, [f"g{i}" for i in of], ctrl_size=300, n_bins=25, use_raw=False)
    found = signature_score(values, of, values.mean(axis=0, dtype=np.float64), n_controls=300)
    np.testing.assert_allclose(found, adata.obs["score"], atol=1e-5)


def test_controls_are_as_high_and_not_of_the_set(values):
    mean = values.mean(axis=0, dtype=np.float64)
    of = np.argsort(mean)[[-1, -5]]
    controls = control_genes(of, mean, n_controls=5)
    assert not set(of) & set(controls)
    assert mean[controls].min() > np.median(mean)
    np.testing.assert_array_equal(controls, control_genes(of, mean, n_controls=5))


def test_unmeasured_values_do_not_count(values):
    some = values.copy()
    some[0, 3] = np.nan
    some[1] = np.nan
    found = mean_of_columns(some, np.array([3, 4]))
    assert found[0] == some[0, 4]
    assert np.isnan(found[1])
    np.testing.assert_allclose(found[2:], values[2:, 3:5].mean(axis=1), rtol=1e-6)


def test_sparse_values_score_alike(values):
    of, mean = np.array([1, 2, 3]), values.mean(axis=0, dtype=np.float64)
    np.testing.assert_allclose(
        signature_score(csc_matrix(values), of, mean), signature_score(values, of, mean), atol=1e-5
    )


def test_an_empty_set_is_refused(values):
    with pytest.raises(SchemaError, match="none of the genes"):
        signature_score(values, np.empty(0, dtype=np.intp), values.mean(axis=0))


@pytest.mark.parametrize(
    ("scale", "to_scale"),
    [
        ("counts", lambda x: x),
        ("log1p_cp10k", np.log1p),
        ("log10_cp10k", lambda x: np.log10(1 + x)),
        ("log2_cpm", lambda x: np.log2(1 + x)),
        ("log_share", lambda x: np.log((1 + x) / 70)),
    ],
)
def test_ratios_are_of_linear_values_on_any_scale(scale, to_scale):
    a, b = np.array([3.0, 0.0, np.nan]), np.array([1.0, 7.0, 1.0])
    np.testing.assert_allclose(log2_ratio(to_scale(a), to_scale(b), scale), [1.0, -3.0, np.nan], rtol=1e-5)


def test_standardised_values_have_no_ratio():
    with pytest.raises(SchemaError, match="no ratio"):
        log2_ratio(np.ones(2), np.ones(2), "z_log1p")

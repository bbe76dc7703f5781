from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp

from napari_he2st.core.errors import SchemaError
from napari_he2st.core.expression import log1p_cp10k


@pytest.fixture
def counts() -> np.ndarray:
    return np.random.default_rng(0).poisson(1.5, size=(20, 30)).astype(np.float32)


def test_equals_scanpy(counts):
    import anndata as ad
    import scanpy as sc

    reference = ad.AnnData(counts.copy())
    sc.pp.normalize_total(reference, target_sum=1e4)
    sc.pp.log1p(reference)
    np.testing.assert_allclose(log1p_cp10k(counts), reference.X, rtol=1e-5)


@pytest.mark.parametrize("kind", [sp.csr_matrix, sp.csr_array])
def test_sparse_equals_dense(counts, kind):
    result = log1p_cp10k(kind(counts))
    assert isinstance(result, kind)
    assert result.dtype == np.float32
    np.testing.assert_allclose(result.toarray(), log1p_cp10k(counts), rtol=1e-6)


def test_unmeasured_stays_unmeasured_and_adds_nothing(counts):
    with_gap = counts.copy()
    with_gap[:, 4] = np.nan
    result = log1p_cp10k(with_gap)
    assert np.isnan(result[:, 4]).all()
    np.testing.assert_allclose(np.delete(result, 4, 1), log1p_cp10k(np.delete(counts, 4, 1)), rtol=1e-6)


def test_empty_spot_keeps_zeros_and_totals_may_be_given(counts):
    counts[3] = 0
    assert (log1p_cp10k(counts)[3] == 0).all()
    part = log1p_cp10k(counts[:, :5], totals=counts.sum(axis=1))
    np.testing.assert_allclose(part, log1p_cp10k(counts)[:, :5], rtol=1e-6)


@pytest.mark.parametrize("bad", [-1.0, np.inf])
def test_impossible_counts_are_refused(counts, bad):
    counts[0, 0] = bad
    with pytest.raises(SchemaError, match="raw counts"):
        log1p_cp10k(counts)

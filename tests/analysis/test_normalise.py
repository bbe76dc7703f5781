from __future__ import annotations

import anndata as ad
import numpy as np
import pytest

from napari_he2st.analysis.normalise import log1p_cp10k, logged, to_log1p_cp10k
from napari_he2st.core.errors import SchemaError
from napari_he2st.core.schema import provenance


def section(X, scale):
    adata = ad.AnnData(X.astype(np.float32), obsm={"spatial": np.zeros((len(X), 2))})
    facts = {"mpp": 0.5, "pitch_um": 100, "spot_um": 55, "lattice": "square", "library": "made"}
    adata.uns["he2st"] = provenance("measured", scale=scale, **facts)
    return adata


@pytest.fixture
def counts():
    return np.random.default_rng(0).poisson(2.0, size=(10, 6)).astype(np.float32)


def test_counts_are_brought_to_log_scale_and_kept(counts):
    raw = section(counts, "counts")
    result = to_log1p_cp10k(raw)
    np.testing.assert_array_equal(result.X, log1p_cp10k(counts))
    np.testing.assert_array_equal(result.layers["counts"], counts)
    assert result.uns["he2st"]["scale"] == "log1p_cp10k"
    assert raw.uns["he2st"]["scale"] == "counts"
    np.testing.assert_array_equal(raw.X, counts)
    np.testing.assert_array_equal(to_log1p_cp10k(result).X, result.X)


def test_the_layer_of_counts_wins_over_another_scale(counts):
    other = section(counts * 0 + 7, "z")
    other.layers["counts"] = counts
    np.testing.assert_array_equal(to_log1p_cp10k(other).X, log1p_cp10k(counts))


def test_no_counts_no_conversion(counts):
    with pytest.raises(SchemaError, match="'z' comes without raw counts"):
        to_log1p_cp10k(section(counts, "z"))


def test_logged_leaves_other_scales_alone(counts):
    np.testing.assert_array_equal(logged(section(counts, "counts")), log1p_cp10k(counts))
    np.testing.assert_array_equal(logged(section(counts, "z")), counts)

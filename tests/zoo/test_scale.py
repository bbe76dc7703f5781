from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp

from napari_he2st.core.errors import UnknownNameError
from napari_he2st.zoo.scale import SCALES, scale_of

COUNTS = np.array([[1.0, 3.0, 0.0], [0.0, 0.0, 0.0], [2.0, np.nan, 2.0]])


@pytest.mark.parametrize("name", SCALES)
def test_every_scale_keeps_shape_and_gaps(name: str) -> None:
    scale = scale_of(name)
    assert scale.name == name
    fitted = scale.fit(COUNTS)
    values = scale.transform(COUNTS, fitted)
    assert values.dtype == np.float32
    assert values.shape == COUNTS.shape
    np.testing.assert_array_equal(np.isnan(values), np.isnan(COUNTS))
    if not fitted:
        assert (values[1] == 0).all()
    sparse = scale.transform(sp.csr_matrix(np.nan_to_num(COUNTS)), fitted)
    dense = sparse.toarray() if hasattr(sparse, "toarray") else sparse
    np.testing.assert_allclose(dense[:2], values[:2], rtol=1e-6)
    assert (np.diff(scale.inverse(values, fitted)[0][[2, 0, 1]]) > 0).all()


def test_log1p_cp10k_uses_the_library_size() -> None:
    scale = scale_of("log1p_cp10k")
    np.testing.assert_allclose(scale.transform(COUNTS[:1], {})[0], np.log1p([2500, 7500, 0]), rtol=1e-6)
    values = scale.transform(COUNTS[:1], {}, np.array([40.0]))
    np.testing.assert_allclose(values[0], np.log1p([250, 750, 0]), rtol=1e-6)
    np.testing.assert_allclose(scale.inverse(values, {})[0], [250, 750, 0], rtol=1e-5)


def test_log10_cp10k_panel_does_not() -> None:
    scale = scale_of("log10_cp10k_panel")
    values = scale.transform(COUNTS[:1], {}, np.array([40.0]))
    np.testing.assert_allclose(values[0], np.log10([2501, 7501, 1]), rtol=1e-6)
    np.testing.assert_allclose(scale.inverse(values, {})[0], [2500, 7500, 0], rtol=1e-5)


def test_times_panel_mean_sums_to_the_measured_genes() -> None:
    values = scale_of("times_panel_mean").transform(COUNTS, {}, np.array([40.0, 3.0, 9.0]))
    np.testing.assert_allclose(np.nansum(values, axis=1), [3, 0, 2])
    np.testing.assert_allclose(values[0], [0.75, 2.25, 0])


def test_scales_that_are_fitted_to_the_training_spots() -> None:
    rng = np.random.default_rng(0)
    counts = rng.poisson(5, (50, 4)).astype(float)
    total = counts.sum(axis=1) * 3
    z = scale_of("z_log1p")
    fitted = z.fit(counts)
    values = z.transform(counts, fitted)
    np.testing.assert_allclose(values.mean(axis=0), 0, atol=1e-6)
    np.testing.assert_allclose(values.std(axis=0), 1, rtol=1e-6)
    np.testing.assert_allclose(z.inverse(values, fitted), counts, atol=1e-4)
    minmax = scale_of("minmax_log10_cp10k")
    fitted = minmax.fit(counts, total)
    values = minmax.transform(counts, fitted, total)
    np.testing.assert_allclose([values.min(axis=0), values.max(axis=0)], [[0] * 4, [1] * 4], atol=1e-6)
    np.testing.assert_allclose(minmax.inverse(values, fitted), counts / total[:, None] * 1e4, rtol=1e-4, atol=1e-2)
    share = scale_of("log_share")
    values = share.transform(counts, share.fit(counts, total, 20), total)
    np.testing.assert_allclose(values[0], np.log((1 + counts[0]) / (20 + total[0])), rtol=1e-6)


def test_unknown_scale() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean log1p_cp10k"):
        scale_of("log1p_cp1k")

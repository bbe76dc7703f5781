from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp

from napari_he2st.core.errors import UnknownNameError
from napari_he2st.zoo.scale import SCALES, scale_of

COUNTS = np.array([[1.0, 3.0, 0.0], [0.0, 0.0, 0.0], [2.0, np.nan, 2.0]])


@pytest.mark.parametrize("name", SCALES)
def test_every_scale_keeps_shape_zeros_and_gaps(name: str) -> None:
    scale = scale_of(name)
    assert scale.name == name
    values = scale.transform(COUNTS, scale.fit(COUNTS))
    assert values.dtype == np.float32
    assert values.shape == COUNTS.shape
    np.testing.assert_array_equal(np.isnan(values), np.isnan(COUNTS))
    assert (values[1] == 0).all()
    sparse = scale.transform(sp.csr_matrix(np.nan_to_num(COUNTS)), {})
    np.testing.assert_allclose(sparse.toarray()[:2], values[:2], rtol=1e-6)


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


def test_unknown_scale() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean log1p_cp10k"):
        scale_of("log1p_cp1k")

"""Smooth maps: constant stays constant, unknown spots do not count, and the map ends near the spots."""

from __future__ import annotations

import numpy as np
import pytest

from napari_he2st.core.types import Grid
from napari_he2st.gui.smooth_raster import smooth_raster


@pytest.fixture
def grid() -> Grid:
    y, x = np.mgrid[:6, :8]
    index = np.stack([y.ravel(), x.ravel()], axis=1)
    xy = np.stack([x.ravel() * 200.0 + 100 * (y.ravel() % 2), y.ravel() * 173.2], axis=1)
    return Grid(xy, 100.0, "hexagonal", 55.0, 0.5, index, (6, 8), np.ones(48, bool))


def paint(grid, values):
    raster = smooth_raster(grid)
    image = raster.empty()
    raster.paint(image, np.asarray(values, dtype=np.float32))
    return raster, image


def test_a_constant_gene_is_constant_inside_and_unknown_outside(grid):
    _, image = paint(grid, np.full(48, 2.5))
    inside = np.isfinite(image)
    np.testing.assert_allclose(image[inside], 2.5, rtol=1e-6)
    assert not inside[0, 0]
    assert 0.5 < inside.mean() < 1


def test_values_lie_where_their_spots_are(grid):
    raster, image = paint(grid, grid.xy[:, 0])
    column = np.round((grid.xy[20, 0] * 0.5 - raster.translate_um[1]) / raster.scale_um[1]).astype(int)
    row = np.round((grid.xy[20, 1] * 0.5 - raster.translate_um[0]) / raster.scale_um[0]).astype(int)
    assert image[row, column] == pytest.approx(grid.xy[20, 0], abs=60)


def test_an_unknown_spot_is_a_hole_and_spreads_no_further(grid):
    values = np.ones(48)
    values[20] = np.nan
    raster, image = paint(grid, values)
    holes = np.isnan(image.ravel()) & (raster.source < 48)
    assert set(raster.source[holes]) == {20}
    np.testing.assert_allclose(image.ravel()[(raster.source < 48) & ~holes], 1, rtol=1e-6)


def test_integers_are_those_of_the_nearest_spot(grid):
    raster = smooth_raster(grid)
    image = np.zeros(raster.shape, dtype=np.uint16)
    raster.paint(image, np.arange(1, 49))
    assert set(np.unique(image)) == set(range(49))

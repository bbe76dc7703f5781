"""Spots as pixels of one image."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from napari_he2st.core.types import Grid, Nuclei
from napari_he2st.core.wkt import to_wkt
from napari_he2st.data.nuclei import outlines
from napari_he2st.gui.rasters import MAX_RASTER_PX, raster_of, raster_of_nuclei, raster_of_outlines

VALUES = np.arange(35, dtype=np.float32)


def at(raster, grid, spot) -> tuple[int, int]:
    """Pixel (row, column) at the centre of a spot."""
    yx_um = grid.xy[spot, ::-1] * grid.mpp
    return tuple(np.rint((yx_um - raster.translate_um) / raster.scale_um).astype(int))


@pytest.mark.parametrize("holes", [False, True])
def test_a_square_lattice_has_a_pixel_per_spot(square_grid, holes):
    grid = square_grid()
    grid = grid.take(np.arange(35) % 3 != 0) if holes else grid
    raster = raster_of(grid)
    image = raster.empty()
    raster.paint(image, VALUES[: len(grid)])
    assert image.shape == (5, 7)
    assert [image[at(raster, grid, i)] for i in range(len(grid))] == VALUES[: len(grid)].tolist()
    assert np.isfinite(image).sum() == len(grid)


def test_a_part_can_be_painted(square_grid):
    grid = square_grid()
    raster = raster_of(grid)
    image = raster.empty()
    raster.paint(image, VALUES, np.array([3, 8]))
    assert sorted(image[np.isfinite(image)]) == [3, 8]


def test_irregular_spots_are_found_at_their_place(square_grid):
    square = square_grid()
    moved = square.xy + np.random.default_rng(0).uniform(-20, 20, square.xy.shape)
    grid = replace(square, xy=moved, lattice="irregular", spot_um=25.0)
    raster = raster_of(grid)
    image = raster.empty()
    raster.paint(image, VALUES)
    assert [image[at(raster, grid, i)] for i in range(35)] == VALUES.tolist()
    assert np.isnan(image[0, 0])
    area_um2 = np.isfinite(image).sum() / 35 * np.prod(raster.scale_um)
    assert area_um2 == pytest.approx(np.pi / 4 * 25**2, rel=0.5)


def test_where_spots_overlap_each_keeps_its_middle(square_grid):
    grid = replace(square_grid(), lattice="irregular", spot_um=90.0)
    raster = raster_of(grid)
    image = raster.empty()
    raster.paint(image, VALUES)
    assert [image[at(raster, grid, i)] for i in range(35)] == VALUES.tolist()


def test_painting_again_leaves_nothing_behind(scattered_grid):
    raster = raster_of(scattered_grid())
    image = np.zeros(raster.shape, dtype=np.uint16)
    raster.paint(image, np.full(60, 7))
    raster.paint(image, np.full(60, 9), np.arange(5))
    assert set(np.unique(image)) == {0, 9}


def test_many_spots_stay_within_the_limits():
    n = 200_000
    xy = np.random.default_rng(0).uniform(0, 100_000, (n, 2))
    index = np.stack([np.arange(n), np.zeros(n, int)], 1)
    raster = raster_of(Grid(xy, 10, "irregular", 8, 0.25, index, (n, 1), np.ones(n, bool)))
    assert max(raster.shape) <= MAX_RASTER_PX + 8
    assert raster.shape[0] * raster.shape[1] <= 1.1 * 8 * n


def test_an_empty_grid_is_an_empty_image(square_grid):
    raster = raster_of(square_grid().take(np.zeros(35, bool)))
    image = raster.empty()
    raster.paint(image, np.empty(0, np.float32))
    assert np.isnan(image).all()


def nuclei_with_gaps() -> Nuclei:
    """Three nuclei of 0.5 µm pixels, one of them concave."""
    labels = np.zeros((60, 80), np.int32)
    labels[10:20, 12:30] = 1
    labels[40:50, 50:60], labels[43:47, 55:60] = 2, 0
    labels[30, 5] = 7
    return Nuclei.of(labels, 0.5)


@pytest.mark.parametrize("mpp", [0.5, 0.25])
def test_cells_have_the_pixels_of_the_nuclei_that_they_were_predicted_for(mpp):
    nuclei = nuclei_with_gaps()
    grid = nuclei.grid(mpp)
    texts = [to_wkt(shape * (nuclei.mpp / mpp)) for shape in outlines(nuclei)]
    shown = []
    for raster in (raster_of_nuclei(nuclei, grid), raster_of_outlines(texts, grid)):
        row, column = np.divmod(np.flatnonzero(raster.source < 3), raster.shape[1])
        where = np.stack([row, column], axis=1) * raster.scale_um + raster.translate_um
        shown.append(
            {(*np.round(yx, 6), spot) for yx, spot in zip(where, raster.source[raster.source < 3], strict=True)}
        )
    assert shown[0] == shown[1]
    assert len(shown[0]) == 180 + 80 + 1


def test_a_cell_that_is_smaller_than_a_pixel_is_shown(square_grid):
    grid = square_grid()
    side = 20.0  # of a map of more pixels than there may be
    grid = replace(grid, xy=grid.xy * 400, mpp=0.5)
    corners = np.array([(-side, -side), (side, -side), (side, side), (-side, side)]) / 2
    raster = raster_of_outlines([to_wkt(xy + corners) for xy in grid.xy], grid)
    assert raster.shape[0] * raster.shape[1] < 1.01 * 2048**2
    assert np.isin(np.arange(35), raster.source).all()

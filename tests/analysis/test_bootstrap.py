"""Intervals of correlations by resampling squares of tissue."""

from __future__ import annotations

import numpy as np
import pytest

from napari_he2st.analysis.bootstrap import blocks_of, pcc_interval
from napari_he2st.core.types import Grid


def lattice(rows: int, columns: int) -> Grid:
    index = np.indices((rows, columns)).reshape(2, -1).T.astype(np.intp)
    return Grid(index[:, ::-1] * 200.0, 100, "square", 55, 0.5, index, (rows, columns), np.ones(len(index), bool))


def pair(grid: Grid, r: float, genes: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Independent spots with correlation ``r``."""
    rng = np.random.default_rng(seed)
    x, e = rng.normal(size=(2, len(grid), genes))
    return r * x + (1 - r * r) ** 0.5 * e, x


def test_the_width_is_fishers_where_spots_are_independent() -> None:
    grid = lattice(40, 40)
    found = pcc_interval(*pair(grid, 0.5, 60), grid)
    half = 1.96 / np.sqrt(len(grid) - 3)
    expected = np.tanh(np.arctanh(0.5) + half) - np.tanh(np.arctanh(0.5) - half)
    assert np.mean(found.high - found.low) == pytest.approx(expected, rel=0.15)
    covered = (found.low < 0.5) & (found.high > 0.5)
    assert covered.mean() > 0.85


def test_smooth_maps_are_less_sure_than_they_seem() -> None:
    from scipy.ndimage import gaussian_filter

    grid, rng = lattice(40, 40), np.random.default_rng(1)
    smooth = [
        np.stack([gaussian_filter(rng.normal(size=(40, 40)), 4).ravel() for _ in range(20)], axis=1) for _ in range(2)
    ]
    found = pcc_interval(*smooth, grid)
    naive = 2 * 1.96 / np.sqrt(len(grid) - 3)
    assert np.mean(found.high - found.low) > 3 * naive


def test_each_gene_has_the_interval_that_it_has_alone() -> None:
    grid = lattice(20, 15)
    left, right = pair(grid, 0.3, 5)
    left[::7, 2] = np.nan
    together = pcc_interval(left, right, grid)
    for gene in range(5):
        alone = pcc_interval(left[:, [gene]], right[:, [gene]], grid)
        assert together.low[gene] == pytest.approx(alone.low[0])
        assert together.high[gene] == pytest.approx(alone.high[0])
    assert together.mean[0] < np.mean([0.3] * 5) < together.mean[1]


def test_a_constant_has_no_interval() -> None:
    grid = lattice(10, 10)
    left, right = pair(grid, 0.5, 2)
    left[:, 1] = 7
    found = pcc_interval(left, right, grid)
    assert np.isfinite(found.low[0])
    assert np.isnan(found.low[1])
    assert np.isnan(found.high[1])


@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (2, 1), (3, 3), (13, 14), (60, 60)])
def test_squares_divide_any_section(rows: int, columns: int) -> None:
    grid = lattice(rows, columns)
    number = blocks_of(grid)
    n = number.max() + 1
    assert n >= min(12, len(grid))
    assert n <= max(len(grid) / 3, 12)

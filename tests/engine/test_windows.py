"""Windows of spots that see each other: every spot once, none too large, all within the known positions."""

from __future__ import annotations

import numpy as np
import pytest

from napari_he2st.core.errors import ModelError
from napari_he2st.core.types import Grid
from napari_he2st.engine.windows import windows


def lattice(rows: int, columns: int) -> Grid:
    index = np.stack(np.meshgrid(np.arange(rows), np.arange(columns), indexing="ij"), -1).reshape(-1, 2)
    ones = np.ones(len(index), dtype=bool)
    return Grid(index[:, ::-1] * 100.0, 50.0, "square", 50.0, 0.5, index.astype(np.intp), (rows, columns), ones)


def test_what_fits_stays_whole() -> None:
    grid = lattice(10, 12)
    rows = np.arange(len(grid))
    (window,) = windows(grid, rows, 200, 64)
    assert window.core.all()
    np.testing.assert_array_equal(window.rows, rows)


@pytest.mark.parametrize(("max_spots", "bins"), [(4096, 32), (500, None), (300, 64)])
def test_every_spot_is_kept_once_with_its_surroundings(max_spots: int, bins: int | None) -> None:
    grid = lattice(70, 90)
    rows = np.random.default_rng(0).permutation(len(grid))[:5000].astype(np.intp)
    found = windows(grid, rows, max_spots, bins)
    assert sorted(np.concatenate([window.kept for window in found])) == sorted(rows)
    for window in found:
        assert len(window.rows) <= max_spots
        extent = np.ptp(grid.index[window.rows], axis=0) + 1
        assert extent.max() <= (bins or 90)
    inner = max(found, key=lambda window: len(window.rows))
    assert inner.core.sum() < len(inner.rows)


def test_spots_too_dense_for_any_window_are_refused() -> None:
    with pytest.raises(ModelError, match="coarser pitch"):
        windows(lattice(30, 30), np.arange(900), 10, None)

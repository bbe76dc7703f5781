"""Small lattices."""

from __future__ import annotations

import numpy as np
import pytest

from napari_he2st.core.types import Grid


class Lattices:
    """Makes grids of 100 µm pitch at 0.5 µm per pixel."""

    @staticmethod
    def square(rows: int, columns: int, *, keep: np.ndarray | None = None) -> Grid:
        index = np.indices((rows, columns)).reshape(2, -1).T
        return _grid(index, index[:, ::-1] * 200.0, "square", keep)

    @staticmethod
    def hexagonal(rows: int, columns: int) -> Grid:
        row, column = np.indices((rows, columns)).reshape(2, -1)
        index = np.stack([row, 2 * column + row % 2], axis=1)
        xy = np.stack([index[:, 1] * 100.0, index[:, 0] * 100.0 * np.sqrt(3)], axis=1)
        return _grid(index, xy, "hexagonal", None)


def _grid(index: np.ndarray, xy: np.ndarray, lattice: str, keep: np.ndarray | None) -> Grid:
    keep = np.ones(len(index), bool) if keep is None else keep
    index, xy = index[keep], xy[keep]
    rows, columns = (index.max(axis=0) + 1).tolist()
    return Grid(xy, 100.0, lattice, 55.0, 0.5, index, (rows, columns), np.ones(len(xy), bool))


@pytest.fixture(scope="session")
def lattices() -> type[Lattices]:
    return Lattices

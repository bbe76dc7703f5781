"""Batches of a run: any spots where each is predicted by itself, windows of spots where they see each other."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from napari_he2st.core.errors import ModelError
from napari_he2st.core.types import Grid

_OVERLAP = 8
"""A window overlaps its neighbours by this fraction of its width on each side."""


@dataclass(frozen=True)
class Window:
    """Spots that go through a model together.

    Attributes
    ----------
    rows
        Grid rows, intp.
    core
        Which of them are kept; the others only serve as their surroundings.
    """

    rows: NDArray[np.intp]
    core: NDArray[np.bool_]

    @property
    def kept(self) -> NDArray[np.intp]:
        """Grid rows that this window predicts."""
        return self.rows[self.core]


def batches(rows: NDArray[np.intp], size: int) -> list[Window]:
    """Consecutive batches of spots that do not see each other."""
    parts = [rows[i : i + size] for i in range(0, len(rows), size)]
    return [Window(part, np.ones(len(part), dtype=bool)) for part in parts]


def windows(grid: Grid, rows: NDArray[np.intp], max_spots: int, bins: int | None) -> list[Window]:
    """Cover spots that see each other with as few overlapping windows as possible.

    Parameters
    ----------
    grid
        All spots.
    rows
        Those to predict.
    max_spots
        Spots that fit into one window.
    bins
        Array positions per axis that the model knows; None is any number.

    Returns
    -------
    list of Window
        One where everything fits. Otherwise windows of equal width, with an eighth of it as a margin on each
        side; every row is in the core of exactly one of them.
    """
    index = grid.index[rows] - grid.index[rows].min(axis=0)
    extent = int(index.max()) + 1
    if len(rows) <= max_spots and (bins is None or extent <= bins):
        return [Window(rows, np.ones(len(rows), dtype=bool))]
    width = min(extent, bins or extent)
    while width >= _OVERLAP:
        margin = width // _OVERLAP
        covered = list(_cover(rows, index, width - 2 * margin, margin))
        if max(len(window.rows) for window in covered) <= max_spots:
            return covered
        width = width * 3 // 4
    raise ModelError(
        f"The spots lie too densely for windows of {max_spots} spots",
        todo="Predict at a coarser pitch",
    )


def _cover(rows: NDArray[np.intp], index: NDArray[np.intp], step: int, margin: int) -> list[Window]:
    cell = index // step
    found = []
    for corner in np.unique(cell, axis=0):
        low, high = corner * step - margin, (corner + 1) * step + margin
        inside = ((index >= low) & (index < high)).all(axis=1)
        found.append(Window(rows[inside], (cell[inside] == corner).all(axis=1)))
    return found

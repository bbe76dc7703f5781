"""Points of a plane counted in hexagons, where there are too many to be drawn."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def hexbin(x: NDArray, y: NDArray, across: int = 40) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
    """Centres of hexagons that hold points, and how many each holds.

    Parameters
    ----------
    x, y
        Finite positions, shape (n,); each axis is scaled to its own range, so hexagons are regular on a square plot.
    across
        Hexagons along the horizontal axis.

    Returns
    -------
    centres
        float64, shape (hexagons, 2), in units of ``x`` and ``y``.
    counts
        intp, shape (hexagons,).
    """
    points = np.stack([x, y], axis=1).astype(np.float64)
    low, span = points.min(axis=0), np.ptp(points, axis=0)
    # Rows of hexagons are √3/2 of a width apart, every other one shifted by half: two rectangular lattices.
    step = np.where(span > 0, span, 1.0) * np.array([1.0, 3**0.5]) / across
    scaled = (points - low) / step
    whole, half = np.round(scaled), np.floor(scaled) + 0.5
    stretch = np.array([1.0, 3.0])  # squares of the steps
    nearer = (((scaled - whole) ** 2) * stretch).sum(axis=1) <= (((scaled - half) ** 2) * stretch).sum(axis=1)
    twice = np.round(2 * np.where(nearer[:, None], whole, half)).astype(np.intp)
    cells, counts = np.unique(twice, axis=0, return_counts=True)
    return low + cells / 2 * step, counts.astype(np.intp)

"""How well aligned sections lie on one another."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_he2st.analysis.metrics.pairs import blocks

Array = NDArray[np.float64]


def overlap(fixed: Array, moved: Array, reach: float) -> float:
    """Share of the moved spots that have a fixed spot within ``reach``."""
    return float((_to_nearest(fixed, moved)[0] <= reach).mean())


def residual(fixed: Array, moved: Array, reach: float) -> float:
    """Mean distance of the moved spots that overlap to their nearest fixed spot; NaN where none does."""
    distance = _to_nearest(fixed, moved)[0]
    inside = distance <= reach
    return float(distance[inside].mean()) if inside.any() else float("nan")


def gene_correlation(fixed: Array, fixed_values: Any, moved: Array, moved_values: Any, reach: float) -> float:
    """Mean over genes of the correlation of overlapping spots with their nearest fixed spot; NaN below three spots.

    Parameters
    ----------
    fixed, moved
        Positions, (n, 2) and (m, 2).
    fixed_values, moved_values
        Log-normalised expression of the same genes, (n, genes) and (m, genes).
    reach
        Within which spots overlap.
    """
    distance, near = _to_nearest(fixed, moved)
    inside = np.flatnonzero(distance <= reach)
    if len(inside) < 3:
        return float("nan")
    scores = []
    for a, b in zip(blocks(fixed_values), blocks(moved_values), strict=True):
        x, y = a[near[inside]], b[inside]
        x, y = x - x.mean(axis=0), y - y.mean(axis=0)
        size = np.sqrt((x**2).sum(axis=0) * (y**2).sum(axis=0))
        with np.errstate(invalid="ignore", divide="ignore"):
            scores.append((x * y).sum(axis=0) / size)
    found = np.concatenate(scores)
    return float(np.nanmean(found)) if np.isfinite(found).any() else float("nan")


def _to_nearest(fixed: Array, moved: Array) -> tuple[Array, NDArray[np.intp]]:
    from scipy.spatial import KDTree

    distance, near = KDTree(fixed).query(moved)
    return np.asarray(distance), np.asarray(near)

"""How compact domains are in space; no labels are needed."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from napari_he2st.analysis.graphs import nearest


def chaos(labels: NDArray, xy: NDArray) -> float:
    """Mean distance of a spot to the nearest of its domain, axes divided by their standard deviation; low is compact.

    Domains of at most two spots count as 0.
    """
    from scipy.spatial import KDTree

    xy = (xy - xy.mean(axis=0)) / xy.std(axis=0)
    groups = (xy[labels == label] for label in np.unique(labels))
    return float(sum(KDTree(g).query(g, 2)[0][:, 1].sum() for g in groups if len(g) > 2) / len(xy))


def pas(labels: NDArray, xy: NDArray, k: int = 10) -> float:
    """Share of spots that differ from more than half of their ``k`` nearest; low is compact."""
    other = labels[nearest(xy, k)] != labels[:, None]
    return float((other.sum(axis=1) > k / 2).mean())

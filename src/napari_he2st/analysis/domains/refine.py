"""Smoothing of domains: a spot takes the label that most of its neighbours have."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from napari_he2st.analysis.graphs import nearest


def majority(labels: NDArray, xy: NDArray, k: int) -> NDArray[np.intp]:
    """The label most frequent among the ``k`` nearest other spots; of equally frequent ones, the nearest spot's.

    Parameters
    ----------
    labels
        From 0 on, (n,).
    xy
        Positions, (n, 2).
    """
    near, counts = _votes(labels, xy, k)
    if near.shape[1] == 0:
        return labels.astype(np.intp)
    most = counts.max(axis=1, keepdims=True)
    first = (np.take_along_axis(counts, near, axis=1) == most).argmax(axis=1)
    return np.asarray(near[np.arange(len(labels)), first])


def outvoted(labels: NDArray, xy: NDArray, k: int) -> NDArray[np.intp]:
    """Labels in which a spot gives way where fewer than half of its ``k`` nearest share its label and more than
    half share another; the spot itself counts among those that have its label.
    """
    _, counts = _votes(labels, xy, k)
    own = np.asarray(labels, dtype=np.intp)
    rows = np.arange(len(own))
    counts[rows, own] += 1
    top = counts.argmax(axis=1)
    changes = (counts[rows, own] < k / 2) & (counts[rows, top] > k / 2)
    return np.where(changes, top, own)


def _votes(labels: NDArray, xy: NDArray, k: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Label of each neighbour (n, k), and how many neighbours have each label (n, labels)."""
    labels = np.asarray(labels, dtype=np.intp)
    near = labels[nearest(np.asarray(xy, dtype=np.float64), k)]
    counts = np.zeros((len(labels), int(labels.max(initial=0)) + 1), dtype=np.intp)
    np.add.at(counts, (np.arange(len(labels))[:, None], near), 1)
    return near, counts

"""Connected parts of a label map."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_AROUND = [(-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 1), (1, -1), (1, 0), (1, 1)]


def relabel_small(labels: NDArray, min_size: int) -> NDArray[np.intp]:
    """Give parts of fewer than ``min_size`` pixels the label most frequent around them, smallest parts first.

    Parameters
    ----------
    labels
        int, shape (rows, columns); labels below 0 are background, neither changed nor counted.
    min_size
        Parts (4-connected pixels of one label) below this many pixels are changed.

    Returns
    -------
    NDArray[np.intp]
        A new map. A part without a labelled neighbour stays. A part that takes the label of another small one
        joins it, and goes on with it when that one's turn comes, as in iStar.
    """
    from scipy.ndimage import label

    labels = np.array(labels, dtype=np.intp)
    parts: list[NDArray[np.intp]] = []
    for value in np.unique(labels[labels >= 0]):
        numbered, n = label(labels == value)
        found = _pixels(numbered, n)
        parts += sorted((part for part in found if len(part) < min_size), key=len, reverse=True)
    parts.sort(key=len)
    owner = np.full(labels.shape, -1, dtype=np.intp)
    for number, part in enumerate(parts):
        owner[part[:, 0], part[:, 1]] = number
    for part in parts:
        if not len(part):  # has joined another
            continue
        part = part[np.lexsort((part[:, 1], part[:, 0]))]
        around = (part[:, None] + _AROUND).reshape(-1, 2)
        around = around[((around >= 0) & (around < labels.shape)).all(axis=1)]
        values = labels[around[:, 0], around[:, 1]]
        other = (values >= 0) & (values != labels[tuple(part[0])])
        if not other.any():
            continue
        around, values = around[other], values[other]
        new = int(np.bincount(values).argmax())
        joined = int(owner[tuple(around[values == new][0])])
        labels[part[:, 0], part[:, 1]] = new
        owner[part[:, 0], part[:, 1]] = joined
        if joined >= 0:
            parts[joined] = np.concatenate([parts[joined], part])
    return labels


def _pixels(numbered: NDArray, n: int) -> list[NDArray[np.intp]]:
    """Pixels (row, column) of each part 1 … ``n``, in scan order."""
    order = np.argsort(numbered, axis=None, kind="stable")
    ends = np.cumsum(np.bincount(numbered.ravel(), minlength=n + 1))
    rows_columns = np.stack(np.unravel_index(order, numbered.shape), axis=1)
    return np.split(rows_columns, ends[:-1])[1:]

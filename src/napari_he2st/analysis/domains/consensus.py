"""One grouping from several of the same spots."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from napari_he2st.core.errors import He2stError, SchemaError


def co_membership(labelings: Sequence[NDArray] | NDArray) -> NDArray[np.float64]:
    """Share of the groupings in which two spots are together, (n, n)."""
    labels = np.asarray(labelings)
    return np.asarray(np.mean([row[:, None] == row for row in labels], axis=0))


def average_linkage(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    """Average-linkage tree over the rows of a matrix, in SciPy's form."""
    from scipy.cluster.hierarchy import linkage

    return np.asarray(linkage(matrix, "average"))


def consensus(labelings: Sequence[NDArray], n: int) -> NDArray[np.intp]:
    """Group spots by how often several groupings put them together.

    The average-linkage tree over the rows of :func:`co_membership`, cut into ``n`` groups. Spots that all
    groupings treat alike are one row of a weighted table, so no matrix of all pairs of spots is made.

    Parameters
    ----------
    labelings
        Each one label per spot; −1 is no group, and a spot that one of them leaves out is left out.
    n
        Number of groups.

    Returns
    -------
    array
        Group of each spot, from 0 on; −1 where it is left out.

    Raises
    ------
    SchemaError
        The groupings have different lengths.
    He2stError
        They do not tell so many groups apart.
    """
    if len({len(labels) for labels in labelings}) != 1:
        raise SchemaError("The groupings are not of the same spots")
    table = np.stack([np.asarray(labels, dtype=np.intp) for labels in labelings], axis=1)
    kept = (table >= 0).all(axis=1)
    kinds, kind, weight = np.unique(table[kept], axis=0, return_inverse=True, return_counts=True)
    if n < 1 or n > len(kinds):
        message = f"The groupings tell {len(kinds)} groups apart, not {n}"
        raise He2stError(message, todo="Ask for another number of domains")
    together = (kinds[:, None] == kinds).mean(axis=2)
    rows = together * np.sqrt(weight)
    squares = (rows**2).sum(axis=1)
    distance = np.sqrt(np.maximum(squares[:, None] + squares - 2 * rows @ rows.T, 0))
    result = np.full(len(table), -1, dtype=np.intp)
    result[kept] = _join(distance, weight.astype(np.float64), n)[kind.reshape(-1)]
    return result


def _join(distance: NDArray[np.float64], weight: NDArray[np.float64], n: int) -> NDArray[np.intp]:
    """Join the two groups of least average distance until ``n`` are left; the group of each item."""
    distance, weight = distance.copy(), weight.copy()
    owner = np.arange(len(distance))
    np.fill_diagonal(distance, np.inf)
    for _ in range(len(distance) - n):
        into, gone = sorted(divmod(int(distance.argmin()), len(distance)))
        joined = (weight[into] * distance[into] + weight[gone] * distance[gone]) / (weight[into] + weight[gone])
        joined[into] = np.inf
        distance[into] = distance[:, into] = joined
        distance[gone] = distance[:, gone] = np.inf
        weight[into] += weight[gone]
        owner[owner == gone] = into
    return np.unique(owner, return_inverse=True)[1].astype(np.intp)

"""An order of genes in which similar ones are neighbours."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_N_CLUSTERS = 4
_SPLIT_ABOVE, _GENES_PER_SPLIT = 10, 12


def gene_order(counts: NDArray) -> NDArray[np.intp]:
    """Order of genes in which similar ones are neighbours, by two levels of k-means; counts are (spots, genes)."""
    z = gene_rows(counts)
    labels = _clusters(z, _N_CLUSTERS)
    order = []
    for label in range(_N_CLUSTERS):
        members = np.flatnonzero(labels == label)
        if len(members) > _SPLIT_ABOVE:
            inner = _clusters(z[members], max(2, len(members) // _GENES_PER_SPLIT))
            members = members[np.argsort(inner, kind="stable")]
        order.append(members)
    return np.concatenate(order)


def gene_rows(counts: NDArray) -> NDArray:
    """Counts per gene standardised over spots, (genes, spots); constant genes are 0."""
    std = counts.std(axis=0)
    return ((counts - counts.mean(axis=0)) / np.where(std > 0, std, 1)).T


def _clusters(rows: NDArray, n: int) -> NDArray[np.intp]:
    from sklearn.cluster import KMeans

    if len(rows) <= n:
        return np.arange(len(rows))
    labels: NDArray[np.intp] = KMeans(n, n_init=10, random_state=42).fit_predict(rows)
    return labels

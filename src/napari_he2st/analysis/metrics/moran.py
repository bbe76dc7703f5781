"""Moran's I, spatial autocorrelation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_he2st.analysis.graphs import lattice_graph, row_normalised
from napari_he2st.analysis.metrics import metric
from napari_he2st.analysis.metrics.pairs import all_finite, blocks, dots, is_flat, ratio
from napari_he2st.core.types import Grid

if TYPE_CHECKING:
    from scipy.sparse import csr_array

_BLOCK = 2**19  # 4 MB: small enough that the memory of one block is used again for the next


@metric("moran", "Moran's I of the map", better=None, of="map")
def moran(values: Any, *, grid: Grid) -> NDArray[np.float64]:
    """Moran's I per gene over the lattice of ``grid``: 4 neighbours on a square one, 6 on a hexagonal one."""
    return morans_i(values, lattice_graph(grid))


def morans_i(values: Any, graph: csr_array) -> NDArray[np.float64]:
    """Moran's I per gene, with weights that sum to 1 over the neighbours of a spot (as squidpy has them).

    Parameters
    ----------
    values
        Expression, spots × genes, dense or sparse. A spot where a gene is not measured is left out for
        that gene, from both ends of its edges.
    graph
        Which spots are neighbours, 0 or 1, shape (spots, spots).

    Returns
    -------
    array
        Shape (genes,); about 0 without spatial structure, NaN where a gene is constant.
    """
    mean_of_neighbours = row_normalised(graph)
    parts = [_morans_of(block, graph, mean_of_neighbours) for block in blocks(values, _BLOCK)]
    return np.concatenate(parts) if parts else np.empty(0)


def _morans_of(block: NDArray[np.float64], graph: csr_array, mean_of_neighbours: csr_array) -> NDArray[np.float64]:
    n = np.full(block.shape[1], float(len(block)))
    weight = mean_of_neighbours.sum()
    known: NDArray[np.bool_] | None = None
    if not all_finite(block):
        known = np.isfinite(block)
        block[~known] = 0.0
        n = known.sum(axis=0).astype(np.float64)
    mean = ratio(block.sum(axis=0), n)
    block -= mean
    if known is None:
        lag = mean_of_neighbours @ block
    else:
        block[~known] = 0.0
        neighbours = graph @ known.astype(np.float64)
        joined = known & (neighbours > 0)
        lag = np.where(joined, (graph @ block) / np.maximum(neighbours, 1.0), 0.0)
        weight = joined.sum(axis=0)
    squares = dots(block, block)
    scores = ratio(n * dots(block, lag), weight * squares)
    return np.where(is_flat(ratio(squares, n), mean), np.nan, scores)

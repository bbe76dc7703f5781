"""Which spots are neighbours: on their lattice, by distance, or by similarity."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from napari_he2st.core.errors import SchemaError
from napari_he2st.core.types import Grid

if TYPE_CHECKING:
    from scipy.sparse import csr_array

EXACT = 20_000
"""Points in more than three dimensions up to which :func:`nearest` compares all pairs."""

CELLS_SEARCHED = 16
"""Cells of the partition that :func:`nearest` searches for each of more points."""

_DISTANCES = 2**22  # distances held at once: 16 MB

_SQUARE_4 = ((-1, 0), (0, -1), (0, 1), (1, 0))
_SQUARE_8 = (*_SQUARE_4, (-1, -1), (-1, 1), (1, -1), (1, 1))
_HEXAGONAL = ((-1, -1), (-1, 1), (0, -2), (0, 2), (1, -1), (1, 1))
_STEPS: dict[tuple[str, int | None], tuple[tuple[int, int], ...]] = {
    ("square", None): _SQUARE_4,
    ("square", 4): _SQUARE_4,
    ("square", 8): _SQUARE_8,
    ("hexagonal", None): _HEXAGONAL,
    ("hexagonal", 6): _HEXAGONAL,
}


def nearest(points: NDArray, k: int) -> NDArray[np.intp]:
    """Rows of the ``k`` nearest other points of each point, shape (n, min(k, n − 1)), nearest first.

    Exact on the plane and up to :data:`EXACT` points. Above, only the :data:`CELLS_SEARCHED` nearest cells of a
    k-means partition are searched: time grows with n^1.5 rather than n², and of the neighbours of expression
    with any structure more than 99 % are found (of structureless noise in 30 dimensions, a third).

    Parameters
    ----------
    points
        Positions or embedding, shape (n, d). Points at the same place are neighbours of each other.
    """
    from sklearn.neighbors import NearestNeighbors

    n = len(points)
    k = min(k, n - 1)
    if k < 1:
        return np.empty((n, 0), dtype=np.intp)
    plane = points.shape[1] <= 3
    if n > EXACT and not plane:
        return _nearest_in_cells(np.asarray(points, dtype=np.float32), k)
    # A tree wins on the plane; in many dimensions comparing all pairs in blocks does.
    search = NearestNeighbors(n_neighbors=k, algorithm="kd_tree" if plane else "brute").fit(points)
    found: NDArray[np.intp] = search.kneighbors(return_distance=False)
    return found


def _nearest_in_cells(points: NDArray[np.float32], k: int) -> NDArray[np.intp]:
    from sklearn.cluster import KMeans

    n = len(points)
    n_cells = int(n**0.5)
    sample = points[np.random.default_rng(0).permutation(n)[: 20 * n_cells]]
    partition = KMeans(n_cells, init="random", n_init=1, max_iter=5, random_state=0).fit(sample)
    cell = partition.predict(points)
    members = np.split(np.argsort(cell, kind="stable"), np.cumsum(np.bincount(cell, minlength=n_cells))[:-1])
    centres = partition.cluster_centers_.astype(np.float64)
    apart = np.square(centres).sum(axis=1) - 2 * centres @ centres.T  # squared distance but for each row's own norm
    norms = np.square(points).sum(axis=1)
    found = np.empty((n, k), dtype=np.intp)
    for own, order in enumerate(np.argsort(apart, axis=1)):
        enough = np.searchsorted(np.cumsum([len(members[c]) for c in order]), k + 1) + 1
        candidates = np.concatenate([members[c] for c in order[: max(CELLS_SEARCHED, enough)]])
        step = max(1, _DISTANCES // len(candidates))
        for start in range(0, len(members[own]), step):
            rows = members[own][start : start + step]
            distance = norms[candidates] - 2 * points[rows] @ points[candidates].T
            distance[rows[:, None] == candidates] = np.inf
            best = np.argpartition(distance, k - 1, axis=1)[:, :k]
            best = np.take_along_axis(best, np.argsort(np.take_along_axis(distance, best, axis=1), axis=1), axis=1)
            found[rows] = candidates[best]
    return found


def knn_graph(points: NDArray, k: int) -> csr_array:
    """Symmetric graph (0 or 1) in which a point is joined to its ``k`` nearest, shape (n, n)."""
    index = nearest(points, k)
    return _graph(np.repeat(np.arange(len(points)), index.shape[1]), index.ravel(), len(points))


def radius_graph(points: NDArray, radius: float) -> csr_array:
    """Symmetric graph (0 or 1) of points not further than ``radius`` apart, in units of ``points``."""
    from scipy.spatial import KDTree

    pairs = KDTree(points).query_pairs(radius, output_type="ndarray")
    return _graph(pairs[:, 0], pairs[:, 1], len(points))


def lattice_graph(grid: Grid, neighbours: Literal[4, 6, 8] | None = None) -> csr_array:
    """Symmetric graph (0 or 1) of spots that touch on the lattice, shape (spots, spots).

    Parameters
    ----------
    grid
        Its ``index`` tells who touches whom. Hexagonal lattices count columns in half pitches, as Space
        Ranger does (neighbours in a row are two columns apart).
    neighbours
        4 or 8 on a square lattice, 6 on a hexagonal one; by default 4 and 6. An irregular grid joins each
        spot to its 6 nearest.
    """
    if grid.lattice == "irregular":
        return knn_graph(grid.xy, neighbours or 6)
    steps = _STEPS.get((grid.lattice, neighbours))
    if steps is None:
        message = f"A {grid.lattice} lattice does not have {neighbours} neighbours"
        raise SchemaError(message)
    index = grid.index - grid.index.min(axis=0, initial=0)
    width = int(index[:, 1].max(initial=0)) + 5  # room for the widest step, so that rows never touch
    key = index[:, 0] * width + index[:, 1]
    order = np.argsort(key)
    rows, cols = [], []
    for down, right in steps:
        wanted = key + down * width + right
        place = np.minimum(np.searchsorted(key[order], wanted), max(len(key) - 1, 0))
        there = np.flatnonzero(key[order][place] == wanted) if len(key) else np.empty(0, np.intp)
        rows.append(there)
        cols.append(order[place[there]])
    return _graph(np.concatenate(rows), np.concatenate(cols), len(grid))


def row_normalised(graph: csr_array) -> csr_array:
    """The graph with rows that sum to 1; points without neighbours keep an empty row."""
    degrees = np.asarray(graph.sum(axis=1)).ravel()
    result = graph.astype(np.float64)
    result.data /= np.repeat(degrees, np.diff(graph.indptr))
    return result


def _graph(rows: NDArray[np.intp], cols: NDArray[np.intp], n: int) -> csr_array:
    from scipy.sparse import csr_array

    once = csr_array((np.ones(len(rows), dtype=np.float64), (rows, cols)), shape=(n, n))
    both = (once + once.T).tocsr()
    both.data[:] = 1.0
    both.sort_indices()
    return both

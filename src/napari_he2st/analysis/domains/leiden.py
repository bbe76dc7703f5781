"""Leiden communities of the nearest-neighbour graph."""

from __future__ import annotations

import random
import threading
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_he2st.analysis.domains import domain_method
from napari_he2st.analysis.domains.embedding import check_request, check_setting, domains_of, embed
from napari_he2st.analysis.graphs import knn_graph
from napari_he2st.core.errors import He2stError
from napari_he2st.core.types import Domains

if TYPE_CHECKING:
    from anndata import AnnData

_MAX_TRIES = 12
_GENERATOR = threading.Lock()  # igraph has one random generator for the whole process


@domain_method("leiden", "Leiden communities of the nearest-neighbour graph: finds the number of domains itself")
def leiden(
    adata: AnnData,
    *,
    n_domains: int | None,
    seed: int,
    resolution: float = 1.0,
    smooth: int = 0,
    neighbours: int = 15,
    components: int = 30,
    genes: int = 1000,
) -> Domains:
    """Group spots by Leiden's algorithm on modularity.

    Parameters
    ----------
    adata
        Expression in our schema.
    n_domains
        Search the resolution that gives this many domains. Where the number jumps over it, the two
        domains that are most alike (Ward's distance) are joined until it is reached. None takes
        ``resolution`` as it is.
    seed
        Start of the random numbers: the same seed gives the same domains.
    resolution
        Higher gives more and smaller domains; ignored when ``n_domains`` is given.
    smooth
        Average over this many nearest spots first; 0 for none.
    neighbours
        Each spot is joined to this many of most similar expression.
    components
        Principal components to use.
    genes
        Genes of highest variance to use.

    Raises
    ------
    He2stError
        The number of domains is impossible, or a setting out of its range.
    """
    check_setting("neighbours", neighbours, 1)
    check_setting("resolution", resolution, 0)
    embedding = embed(adata, genes=genes, components=components, smooth=smooth)
    check_request(n_domains, len(embedding))
    params: dict[str, Any] = {"method": "leiden", "seed": seed, "resolution": resolution, "smooth": smooth}
    params |= {"neighbours": neighbours, "components": components, "genes": genes}
    labels, found = communities(embedding.components, n_domains, seed, resolution=resolution, neighbours=neighbours)
    return domains_of(labels, embedding, params | found)


def communities(
    points: NDArray[np.float32], n: int | None, seed: int, *, resolution: float = 1.0, neighbours: int = 15
) -> tuple[NDArray[np.intp], dict[str, Any]]:
    """Leiden communities of points, as :func:`leiden` finds them.

    Returns
    -------
    labels
        Community of each point, from 0 on.
    found
        The ``resolution``, and ``joined_from`` where communities had to be joined.
    """
    from scipy.sparse import triu

    edges = np.stack(triu(knn_graph(points, neighbours), k=1).nonzero(), axis=1)
    return communities_of(edges, points, n, seed, resolution=resolution)


def communities_of(
    edges: NDArray[np.intp], points: NDArray[np.float32], n: int | None, seed: int, *, resolution: float = 1.0
) -> tuple[NDArray[np.intp], dict[str, Any]]:
    """Leiden communities of a graph, given as pairs of points (edges, 2); as :func:`communities`.

    ``points`` decide which communities are joined where there are too many.
    """
    graph = _Communities(edges, len(points), seed)
    if n is None:
        return graph.at(resolution), {"resolution": resolution}
    if n == 1:
        return np.zeros(len(points), dtype=np.intp), {"resolution": 0.0}
    resolution, labels = graph.search(n)
    if (n_found := int(labels.max()) + 1) > n:
        return join_alike(labels, points, n), {"resolution": resolution, "joined_from": n_found}
    return labels, {"resolution": resolution}


class _Communities:
    """The graph of similar spots, cut at any resolution."""

    def __init__(self, edges: NDArray[np.intp], n: int, seed: int) -> None:
        import igraph

        self._graph = igraph.Graph(n, edges)
        self._seed = seed

    def at(self, resolution: float) -> NDArray[np.intp]:
        """Community of each spot."""
        import igraph

        with _GENERATOR:
            igraph.set_random_number_generator(random.Random(self._seed))
            try:
                found = self._graph.community_leiden("modularity", resolution=resolution, n_iterations=2)
            finally:
                igraph.set_random_number_generator(random)
        return np.asarray(found.membership, dtype=np.intp)

    def search(self, wanted: int) -> tuple[float, NDArray[np.intp]]:
        """Resolution and communities: ``wanted`` many, or the fewest above that were met."""
        low, high, resolution = 0.0, np.inf, 1.0
        best: tuple[float, NDArray[np.intp]] | None = None
        most = 0
        for _ in range(_MAX_TRIES):
            labels = self.at(resolution)
            n = int(labels.max()) + 1
            most = max(most, n)
            if n >= wanted and (best is None or n < best[1].max() + 1):
                best = resolution, labels
            if n == wanted:
                break
            low, high = (resolution, high) if n < wanted else (low, resolution)
            # Until both sides are known, the number of communities leads; then halving is safe.
            guess = resolution * float(np.clip((wanted / n) ** 1.5, 0.1, 10.0))
            resolution = (low * high) ** 0.5 if low > 0 and np.isfinite(high) else guess
        if best is None:
            message = f"The spots fall into {most} domains at most, not {wanted}"
            raise He2stError(message, todo="Ask for fewer domains, or join each spot to fewer neighbours")
        return best


def join_alike(labels: NDArray[np.intp], points: NDArray[np.float32], n: int) -> NDArray[np.intp]:
    """Join the two groups of smallest Ward distance until ``n`` are left; returns the new labels."""
    _, labels = np.unique(labels, return_inverse=True)
    sizes = np.bincount(labels).astype(np.float64)
    sums = np.zeros((len(sizes), points.shape[1]))
    np.add.at(sums, labels, points)
    owner = np.arange(len(sizes))
    alive = list(range(len(sizes)))
    while len(alive) > n:
        means, weights = sums[alive] / sizes[alive, None], sizes[alive]
        distances = ((means[:, None] - means[None]) ** 2).sum(axis=2)
        distances *= weights[:, None] * weights / (weights[:, None] + weights)
        np.fill_diagonal(distances, np.inf)
        into, gone = (alive[i] for i in sorted(np.unravel_index(distances.argmin(), distances.shape)))
        sums[into] += sums[gone]
        sizes[into] += sizes[gone]
        owner[owner == gone] = into
        alive.remove(gone)
    return np.searchsorted(alive, owner)[labels]

"""stImage: distances of expression and of tiles joined spot by spot, and expression evened out by tiles (Wang 2024)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from napari_he2st.analysis.domains.leiden import communities_of
from napari_he2st.analysis.graphs import nearest
from napari_he2st.core.types import Domains
from napari_he2st.zoo.base import DomainMethod
from napari_he2st.zoo.blocks.expression import components, most_variable, normalised, scaled
from napari_he2st.zoo.inputs import Features

if TYPE_CHECKING:
    from anndata import AnnData
    from scipy.sparse import csr_array

Array = NDArray[np.float64]
_BLOCK = 512


class StImage(DomainMethod):
    """Each spot trusts the kind of distance more by which its neighbours are the nearer ones.

    Parameters
    ----------
    n_genes
        Genes of highest variance to use.
    n_components, n_image_components
        Principal components of expression and of the tiles' features.
    k
        Neighbours that are looked at, the spot itself among them.
    smooth
        Even out expression first over the nearest spots, by how much their tiles are alike.
    encoder
        Of the tiles; the published one is VGG-16.
    """

    def __init__(
        self,
        *,
        n_genes: int = 2000,
        n_components: int = 30,
        n_image_components: int = 30,
        k: int = 20,
        smooth: bool = False,
        encoder: str = "efficientnet-lite0",
    ) -> None:
        self.inputs = {"features": Features(encoder=encoder)}
        self.n_genes, self.n_components, self.n_image_components = n_genes, n_components, n_image_components
        self.k, self.smooth = k, smooth

    def segment(self, adata: AnnData, *, n_domains: int | None, seed: int, features: Tensor) -> Domains:
        """Group the spots by expression and tile."""
        looks = components(features.cpu().numpy(), self.n_image_components, seed).astype(np.float64)
        values = normalised(adata.X)[:, most_variable(adata.X, self.n_genes)]
        if self.smooth:
            n = 6 if adata.uns["he2st"]["lattice"] == "hexagonal" else 4
            values = smoothed(values, np.asarray(adata.obsm["spatial"]), looks, n).astype(np.float32)
        codes = components(scaled(values), self.n_components, seed).astype(np.float64)
        k = min(self.k, len(codes) - 1)
        points = [unit_spread(codes), unit_spread(looks)]
        shared = [shared_neighbours(p, k) for p in points]
        edges = []
        for start in self.steps(-(-len(codes) // _BLOCK), "Joining distances"):
            rows = np.arange(start * _BLOCK, min((start + 1) * _BLOCK, len(codes)))
            d1, d2 = (distances(p, rows) for p in points)
            distance = integrated(d1, d2, shared[0][rows], shared[1][rows], k)
            distance[np.arange(len(rows)), rows] = np.inf
            near = np.argpartition(distance, k - 1, axis=1)[:, :k]
            edges.append(np.stack([np.repeat(rows, k), near.ravel()], axis=1))
        labels, found = communities_of(np.concatenate(edges), np.hstack(points).astype(np.float32), n_domains, seed)
        return Domains(labels, found, torch.cat([torch.from_numpy(p) for p in points], 1).float().numpy())


def unit_spread(points: Array) -> Array:
    """Points whose mean squared length is 1, so that two kinds of distance compare."""
    return np.asarray(points / max(float(np.sqrt((points**2).sum(1).mean())), 1e-12))


def distances(points: Array, rows: NDArray[np.intp] | slice = slice(None)) -> Array:
    """Euclidean distances of some points to all."""
    from scipy.spatial.distance import cdist

    return np.asarray(cdist(points[rows], points))


def shared_neighbours(points: Array, k: int, prune: float = 1 / 15) -> csr_array:
    """Jaccard index of any two spots' neighbourhoods (k nearest, the spot itself among them); small ones are 0."""
    from scipy.sparse import csr_array

    n = len(points)
    near = np.column_stack([np.arange(n), nearest(points, k - 1)])
    member = csr_array((np.ones(near.size), (np.repeat(np.arange(n), k), near.ravel())), shape=(n, n))
    shared = (member @ member.T).tocsr()
    shared.data = shared.data / (2 * k - shared.data)
    shared.data[shared.data < prune] = 0
    shared.eliminate_zeros()
    return shared


def integrated(d1: Array, d2: Array, shared1: csr_array | Array, shared2: csr_array | Array, k: int) -> Array:
    """Some rows of the joined distances.

    Parameters
    ----------
    d1, d2
        Distances of these spots to all by either kind, (rows, n).
    shared1, shared2
        How much these spots' neighbourhoods overlap with those of all, by either kind, (rows, n).
    k
        Neighbours, the spot itself among them.

    Returns
    -------
    array
        (rows, n); each row has its own weights, so the whole is not symmetric.
    """
    pairs = ((d1, _dense(shared1)), (d2, _dense(shared2)))
    near = [np.argsort(d, axis=1, kind="stable")[:, 1:k] for d, _ in pairs]
    supports = []
    for own, (d, shared) in enumerate(pairs):
        order = np.argsort(np.where(shared > 0, shared, np.inf), axis=1, kind="stable")[:, :k]
        far = np.take_along_axis(d, order, axis=1).mean(axis=1)
        first = np.sort(d, axis=1)[:, 1]
        theta = [
            np.exp(-np.maximum(np.take_along_axis(d, n, axis=1).mean(axis=1) - first, 0) / (far - first + 1e-4))
            for n in near
        ]
        supports.append(theta[own] / (theta[1 - own] + 1e-4))
    weight = 1 / (1 + np.exp(supports[1] - supports[0]))[:, None]
    return np.asarray(d1 * weight + d2 * (1 - weight))


def coordinate_neighbours(xy: NDArray, n: int, rows: NDArray[np.intp] | slice = slice(None)) -> NDArray[np.bool_]:
    """Which spots are among the ``n`` nearest of some; equally far ones share their mean rank."""
    from scipy.stats import rankdata

    ranks = rankdata(distances(np.asarray(xy, dtype=np.float64), rows) ** 2, axis=1)
    return np.asarray((ranks <= n + 1) & (ranks != 1))


def smoothed(values: NDArray, xy: NDArray, looks: Array, n: int) -> Array:
    """Mean of each spot's expression and that of its ``n`` nearest, weighted by how much their tiles are alike.

    Where the neighbours' mean is exactly 0, the expression stays as it is.
    """
    length = np.linalg.norm(looks, axis=1, keepdims=True)
    directions = looks / np.where(length > 0, length, 1)
    parts = []
    for start in range(0, len(values), _BLOCK):
        rows = np.arange(start, min(start + _BLOCK, len(values)))
        weight = np.maximum(directions[rows] @ directions.T, 0) * coordinate_neighbours(xy, n, rows)
        total = weight.sum(axis=1, keepdims=True)
        mean = weight / np.where(total > 0, total, 1) @ values
        parts.append(np.where(mean != 0, (values[rows] + mean) / 2, values[rows]))
    return np.concatenate(parts)


def _dense(values: csr_array | Array) -> Array:
    return np.asarray(values.toarray() if hasattr(values, "toarray") else values)

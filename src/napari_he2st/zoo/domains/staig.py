"""STAIG: contrast of two views of the spot graph, whose edges drop where tiles differ (Yang et al. 2025)."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from napari_he2st.analysis.domains.grouping import Grouping, group
from napari_he2st.analysis.domains.refine import majority
from napari_he2st.analysis.graphs import knn_graph
from napari_he2st.core.types import Domains
from napari_he2st.zoo.base import DomainMethod
from napari_he2st.zoo.blocks.expression import components, panel, scaled, shared_panel
from napari_he2st.zoo.blocks.sparse import SparseGCNConv, edges_in, propagation, sparse_tensor, subset
from napari_he2st.zoo.inputs import Features
from napari_he2st.zoo.recipe import Recipe

if TYPE_CHECKING:
    from anndata import AnnData

Kernel = Literal["euclidean", "rbf", "cosine"]
ACTIVATIONS = {"prelu": nn.PReLU, "relu": nn.ReLU, "elu": nn.ELU, "rrelu": nn.RReLU, "leakyrelu": nn.LeakyReLU}


class STAIG(DomainMethod):
    """Neighbours whose tiles look different lose their edge more often; spots whose tiles look alike are no negatives.

    Parameters
    ----------
    n_genes
        Genes of highest variance to use.
    dim, projection_dim, depth
        Width of the encoder and of what is contrasted, and number of graph convolutions.
    n_neighbours
        Nearest spots that each is joined to.
    temperature
        Of the contrast.
    kernel
        How the difference of two tiles becomes a probability of dropping their edge.
    n_looks
        Groups of tiles that look alike.
    encoder
        Of the tiles; the published one is trained by the user on these very tiles.
    lr, epochs
        Of the training.
    refine
        A spot takes the domain that most of so many nearest spots have; 0 leaves it.
    grouping
        How spots are grouped in the end.
    """

    optional = frozenset({"features"})
    several = True

    def __init__(
        self,
        *,
        n_genes: int = 3000,
        dim: int = 64,
        projection_dim: int = 64,
        depth: int = 1,
        n_neighbours: int = 5,
        temperature: float = 35.0,
        kernel: Kernel = "euclidean",
        n_looks: int = 300,
        encoder: str = "efficientnet-lite0",
        lr: float = 5e-4,
        epochs: int = 300,
        refine: int = 15,
        grouping: Grouping = "mixture",
    ) -> None:
        self.inputs = {"features": Features(encoder=encoder, px=512)}
        self.n_genes, self.dim, self.projection_dim, self.depth = n_genes, dim, projection_dim, depth
        self.n_neighbours, self.temperature, self.kernel, self.n_looks = n_neighbours, temperature, kernel, n_looks
        self.refine, self.grouping = refine, grouping
        self.recipe = Recipe(lr=lr, weight_decay=1e-5, epochs=epochs)

    def segment(self, adata: AnnData, *, n_domains: int | None, seed: int, features: Tensor | None = None) -> Domains:
        """Group the spots; without tiles, edges drop by difference in expression and all other spots are negatives.

        Of several sections, genes that vary in each are taken as they are, and without tiles only spots of the same
        section are contrasted: what differs between sections is not learned.
        """
        from sklearn.cluster import KMeans

        xy = np.asarray(adata.obsm["spatial"])
        section = torch.tensor(adata.obs["section"].cat.codes.to_numpy()) if "section" in adata.obs else None
        values = panel(adata, self.n_genes) if section is None else shared_panel(adata, self.n_genes)
        graph = knn_graph(xy, self.n_neighbours)
        edges = edges_in(graph).flip(1)
        if features is None:
            drop = drop_probability(components(scaled(values), 64, seed), edges, "cosine")
            looks = None
        else:
            n_tile_components = 16 if section is None else 128
            tiles = components(scaled(features.cpu().numpy(), limit=None), n_tile_components, 42)
            drop = drop_probability(tiles, edges, self.kernel)
            n_looks = min(self.n_looks, max(len(tiles) // 4, 2))
            looks = torch.from_numpy(KMeans(n_looks, random_state=0, n_init=1).fit_predict(tiles).astype(np.int64))
        x, n = torch.from_numpy(values).double(), len(values)
        network = Network(x.shape[1], self.dim, self.projection_dim, depth=self.depth).double()
        neighbours = sparse_tensor(graph, torch.float64)

        def loss(_: int) -> Tensor:
            views = [
                network(
                    drop_columns(x, rate), propagation(drop_edges(edges, drop, torch.rand(len(edges))).T, n).double()
                )
                for rate in (0.1, 0.2)
            ]
            some = subset(n, self.max_spots)
            near = neighbours.index_select(0, some).index_select(1, some).to_dense()
            one, other = (view[some] for view in views)
            if looks is not None:
                return neighbour_contrast(one, other, near, self.temperature, looks[some])
            together = None if section is None else (section[some, None] == section[some]).to(one)
            return neighbour_contrast(one, other, near, self.temperature, together=together)

        report = self.minimise(network, loss, self.recipe)
        with torch.no_grad():
            embedding = network(x, propagation(edges, n).double()).float().numpy()
        labels, found = group(embedding, n_domains, seed, self.grouping)
        if self.refine:
            labels = majority(labels, xy, self.refine)
        return Domains(labels, {**report, **found}, embedding)


class Encoder(nn.Module):
    """Graph convolutions, each followed by the same activation; wider between the first and the last of several."""

    def __init__(self, n_in: int, dim: int, depth: int, activation: str) -> None:
        super().__init__()
        widths = [n_in, *[2 * dim] * (depth - 1), dim]
        self.conv = nn.ModuleList(SparseGCNConv(a, b) for a, b in pairwise(widths))
        self.activation = ACTIVATIONS[activation]()

    def forward(self, x: Tensor, graph: Tensor) -> Tensor:
        """(spots, dim)."""
        for layer in self.conv:
            x = self.activation(layer(x, graph))
        return x


class Network(nn.Module):
    """Encoder and projection; the embedding is the projection's output."""

    def __init__(self, n_in: int, dim: int, projection_dim: int, *, depth: int = 1, activation: str = "prelu") -> None:
        super().__init__()
        self.encoder = Encoder(n_in, dim, depth, activation)
        self.fc1, self.fc2 = nn.Linear(dim, projection_dim), nn.Linear(projection_dim, dim)

    def forward(self, x: Tensor, graph: Tensor) -> Tensor:
        """(spots, dim)."""
        return self.fc2(F.elu(self.fc1(self.encoder(x, graph))))


def drop_probability(looks: NDArray, edges: Tensor, kernel: Kernel) -> Tensor:
    """Probability of dropping each edge, float64; those of a spot's edges sum to 1.

    Parameters
    ----------
    looks
        What spots look like, (n, d).
    edges
        Both directions of each edge, int64 (edges, 2).
    kernel
        How far the looks of two spots differ: their distance, 1 − exp(−d²/100), or 1 − cosine.
    """
    values = torch.from_numpy(np.asarray(looks, dtype=np.float64))
    one, other = (values[edges[:, side]] for side in (0, 1))
    if kernel == "cosine":
        weight = torch.exp(1 - F.cosine_similarity(one, other))
    else:
        distance = (one - other).norm(dim=1)
        weight = distance if kernel == "euclidean" else torch.exp(1 - torch.exp(-0.01 * distance.square()))
    total = weight.new_zeros(len(values)).index_add(0, edges[:, 0], weight)
    return weight / total.clamp(min=1e-300)[edges[:, 0]]


def drop_edges(edges: Tensor, drop: Tensor, draws: Tensor) -> Tensor:
    """Edges that stay, in both directions, int64 (2, edges): those drawn at or above their probability of dropping.

    Both directions of an edge share the fate of that from the lower to the higher spot.
    """
    upper = edges[:, 0] <= edges[:, 1]
    kept = edges[upper][draws[: int(upper.sum())] >= drop[upper]].T
    return torch.cat([kept, kept.flip(0)], dim=1)


def drop_columns(x: Tensor, rate: float) -> Tensor:
    """A share ``rate`` of the features set to 0, the same in all spots."""
    return x * (torch.rand(x.shape[1]) >= rate)


def neighbour_contrast(
    z1: Tensor,
    z2: Tensor,
    near: Tensor,
    temperature: float,
    looks: Tensor | None = None,
    together: Tensor | None = None,
) -> Tensor:
    """Contrast in which neighbours are positives too; mean of both directions.

    Parameters
    ----------
    z1, z2
        Two views, (n, d).
    near
        Which spots are neighbours, 0 or 1, (n, n).
    temperature
        Of the similarities.
    looks
        Group of each spot's tile: spots of the same group are no negatives. None takes all pairs.
    together
        Which pairs count at all, 0 or 1, (n, n): those of the same section.
    """
    z1, z2 = F.normalize(z1), F.normalize(z2)
    within1, within2, between = (torch.exp(a @ b.T / temperature) for a, b in ((z1, z1), (z2, z2), (z1, z2)))
    if together is not None:
        within1, within2, between = within1 * together, within2 * together, between * together
    negative = 1.0 if looks is None else (looks[:, None] != looks).to(between)
    degree = near.sum(1)

    def one_way(within: Tensor, between: Tensor) -> Tensor:
        positives = between.diagonal() + (within * near).sum(1) + (between * near).sum(1)
        # The diagonal is subtracted even where ``negative`` has left it out, as published.
        everything = (within * negative).sum(1) + (between * negative).sum(1) - within.diagonal()
        return -torch.log(positives / everything / (2 * degree + 1)).mean()

    return (one_way(within1, between) + one_way(within2, between.T)) / 2

"""MuCoST: contrast of the spatial graph with one that also joins spots of like expression (Zhang et al. 2024)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from napari_he2st.analysis.domains.grouping import Grouping, group
from napari_he2st.analysis.domains.refine import majority
from napari_he2st.analysis.graphs import knn_graph, nearest
from napari_he2st.core.types import Domains
from napari_he2st.zoo.base import DomainMethod
from napari_he2st.zoo.blocks.expression import components, panel
from napari_he2st.zoo.blocks.sparse import Module, SparseGCNConv, edges_in, propagation, subset
from napari_he2st.zoo.recipe import Recipe

if TYPE_CHECKING:
    from anndata import AnnData


class MuCoST(DomainMethod):
    """An autoencoder over neighbours in space whose code agrees with one over neighbours in expression.

    Parameters
    ----------
    n_genes
        Genes of highest variance to use.
    dim
        Width of the code.
    n_neighbours, n_alike
        Nearest spots in space, and in expression, that each is joined to.
    weighted
        Whether edges weigh 0.3 in space and 0.7 in expression.
    alike_above
        Drop edges of expression below this correlation.
    temperature, drop
        Of the contrast, and the share of features that its positive view lacks.
    lr, epochs
        Of the training.
    refine
        A spot takes the domain that most of so many nearest spots have; 0 leaves it.
    grouping
        How spots are grouped in the end.
    """

    def __init__(
        self,
        *,
        n_genes: int = 3000,
        dim: int = 50,
        n_neighbours: int = 6,
        n_alike: int = 6,
        weighted: bool = False,
        alike_above: float = -1.0,
        temperature: float = 0.05,
        drop: float = 0.2,
        lr: float = 1e-3,
        epochs: int = 1000,
        refine: int = 25,
        grouping: Grouping = "mixture",
    ) -> None:
        self.n_genes, self.dim, self.n_neighbours, self.n_alike = n_genes, dim, n_neighbours, n_alike
        self.weighted, self.alike_above, self.temperature, self.drop = weighted, alike_above, temperature, drop
        self.refine, self.grouping = refine, grouping
        self.recipe = Recipe(lr=lr, epochs=epochs, clip=5.0)

    def segment(self, adata: AnnData, *, n_domains: int | None, seed: int) -> Domains:
        """Group the spots."""
        xy, n = np.asarray(adata.obsm["spatial"]), adata.n_obs
        values = panel(adata, self.n_genes)
        near = edges_in(knn_graph(xy, self.n_neighbours))
        codes = components(values, 50, seed)
        alike = alike_edges(codes, self.n_alike)
        alike = alike[correlated(torch.from_numpy(codes), alike, self.alike_above)]
        weights = (torch.full((len(near),), 0.3), torch.full((len(alike),), 0.7)) if self.weighted else None
        spatial, both = graphs(near, alike, n, weights)
        x = torch.from_numpy(values)
        network = Network(x.shape[1], self.dim)

        def loss(_: int) -> Tensor:
            keep = (torch.rand(1, x.shape[1]) >= self.drop).float()
            _, rebuilt, anchor, positive, negative = network(x, spatial, both, x * keep, x[torch.randperm(n)])
            agreement = contrast(anchor, positive, negative, self.temperature, self.max_spots)
            return F.mse_loss(rebuilt, x) + 0.2 * agreement

        report = self.minimise(network, loss, self.recipe)
        with torch.no_grad():
            embedding = network.encoder(x, spatial).numpy()
        labels, found = group(components(embedding, 50, seed), n_domains, seed, self.grouping)
        if self.refine:
            labels = majority(labels, xy, self.refine)
        return Domains(labels, {**report, **found}, embedding)


class Network(nn.Module):
    """One graph convolution to the code and one back; the views share one batch norm."""

    def __init__(self, n_in: int, dim: int) -> None:
        super().__init__()
        self.encoder, self.decoder = SparseGCNConv(n_in, dim), SparseGCNConv(dim, n_in)
        self.norm = Module(nn.BatchNorm1d(dim))

    def forward(self, x: Tensor, spatial: Tensor, both: Tensor, masked: Tensor, shuffled: Tensor) -> tuple[Tensor, ...]:
        """Code, reconstruction, then the three views: anchor, positive, negative."""
        code = self.encoder(x, spatial)
        rebuilt = self.decoder(code, spatial)
        anchor = F.elu(self.norm(code))
        positive = F.elu(self.norm(self.encoder(masked, both)))
        negative = F.elu(self.norm(self.encoder(shuffled, spatial)))
        return code, rebuilt, anchor, positive, negative


def graphs(near: Tensor, alike: Tensor, n: int, weights: tuple[Tensor, Tensor] | None = None) -> tuple[Tensor, Tensor]:
    """The spatial graph and that of both kinds of edges, where an edge of both kinds counts twice.

    Loops weigh 2 where edges have weights, else 1: the published layer asks for 2 but its library does so only then.
    """
    every = torch.cat([near, alike])
    if weights is None:
        return propagation(near, n), propagation(every, n)
    return propagation(near, n, weights[0], loop=2.0), propagation(every, n, torch.cat(weights), loop=2.0)


def alike_edges(codes: np.ndarray, k: int) -> Tensor:
    """Edges to each spot from the ``k`` spots of least cosine distance, (source, destination)."""
    length = np.linalg.norm(codes, axis=1, keepdims=True)
    near = nearest(codes / np.where(length > 0, length, 1), k)
    pairs = np.stack([near.ravel(), np.repeat(np.arange(len(codes)), near.shape[1])], axis=1)
    return torch.from_numpy(pairs.astype(np.int64))


def correlated(codes: Tensor, edges: Tensor, above: float) -> Tensor:
    """Which edges join spots whose codes correlate by more than ``above``, bool (edges,)."""
    centred = F.normalize(codes - codes.mean(1, keepdim=True))
    return (centred[edges[:, 0]] * centred[edges[:, 1]]).sum(1) > above


def contrast(anchor: Tensor, positive: Tensor, negative: Tensor, temperature: float, limit: int = 2**31) -> Tensor:
    """Cross-entropy of the positive view against all spots (at most ``limit``) of the negative one."""
    anchor, positive, negative = (F.normalize(view) for view in (anchor, positive, negative))
    negative = negative[subset(len(negative), limit)]
    logits = torch.cat([(anchor * positive).sum(1, keepdim=True), anchor @ negative.T], 1) / temperature
    return F.cross_entropy(logits, torch.zeros(len(logits), dtype=torch.int64))

"""STMVGAE: a variational graph autoencoder per graph of the spots, and their consensus (Niu et al. 2024)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from napari_he2st.analysis.domains.consensus import consensus
from napari_he2st.analysis.domains.grouping import group
from napari_he2st.analysis.domains.kmeans import means
from napari_he2st.analysis.graphs import nearest
from napari_he2st.core.errors import He2stError
from napari_he2st.core.types import Domains
from napari_he2st.zoo.base import DomainMethod
from napari_he2st.zoo.blocks.expression import components, most_variable, normalised
from napari_he2st.zoo.blocks.sparse import (
    Module,
    SparseGCNConv,
    divergence,
    gaussian_divergence,
    graph_balance,
    propagation,
    sharpened,
    student_t,
    subset,
)
from napari_he2st.zoo.inputs import Features
from napari_he2st.zoo.recipe import Recipe

if TYPE_CHECKING:
    from anndata import AnnData

View = Literal["radius", "knn", "cosine", "spearman"]
_BLOCK = 1024


class STMVGAE(DomainMethod):
    """Four graphs (near, nearest, alike twice), one autoencoder each; domains are where most of them agree.

    Parameters
    ----------
    n_genes
        Genes of highest variance to use.
    encoder_dims, graph_dims, decoder_dims
        Widths of the layers.
    n_neighbours
        Of the graphs of nearest and of most alike spots.
    reach_pitches
        Of the graph of near spots, in pitches.
    image_weight
        Share of the mean of the two spots of most similar tiles that is added to each spot's expression.
    encoder
        Of the tiles. The published features are of randomly changed tiles; here nothing is random.
    lr, epochs, epochs_after
        Of the training, before and after clusters count.
    """

    optional = frozenset({"features"})

    def __init__(
        self,
        *,
        n_genes: int = 3000,
        encoder_dims: tuple[int, ...] = (1000, 400, 30),
        graph_dims: tuple[int, ...] = (64, 8),
        decoder_dims: tuple[int, ...] = (400, 1000),
        n_neighbours: int = 12,
        reach_pitches: float = 2.5,
        image_weight: float = 0.2,
        encoder: str = "efficientnet-lite0",
        lr: float = 1e-3,
        epochs: int = 1000,
        epochs_after: int = 500,
    ) -> None:
        self.inputs = {"features": Features(encoder=encoder)}
        self.n_genes, self.n_neighbours, self.reach_pitches = n_genes, n_neighbours, reach_pitches
        self.widths: dict[str, Any] = {"encoder_dims": tuple(encoder_dims), "graph_dims": tuple(graph_dims)}
        self.widths |= {"decoder_dims": tuple(decoder_dims)}
        self.image_weight = image_weight
        self.recipe = Recipe(lr=lr, weight_decay=1e-4, epochs=epochs, clip=5.0)
        self.recipe_after = Recipe(lr=lr, weight_decay=1e-4, epochs=epochs_after, clip=5.0)

    def segment(self, adata: AnnData, *, n_domains: int | None, seed: int, features: Tensor | None = None) -> Domains:
        """Group the spots; without tiles, by expression alone."""
        if n_domains is None:
            raise He2stError("STMVGAE needs the number of domains", todo="Say how many")
        values = normalised(adata.X)[:, most_variable(adata.X, self.n_genes)]
        if features is not None:
            looks = components(features.cpu().numpy(), 50).astype(np.float64)
            values = values + self.image_weight * similar_mean(values, looks).astype(np.float32)
        xy, codes = np.asarray(adata.obsm["spatial"]), components(values, 50, seed).astype(np.float64)
        reach = self.reach_pitches * adata.uns["he2st"]["pitch_um"]
        labelings, embeddings, reports = [], [], []
        for view in ("radius", "knn", "cosine", "spearman"):
            edges = view_edges(view, xy, codes, k=self.n_neighbours, reach=reach)
            embedding, report = self._embed(torch.from_numpy(values), edges, n_domains, seed)
            reports.append(report)
            embeddings.append(embedding)
            labelings.append(group(embedding, n_domains, seed)[0])
        params = {
            "views": len(labelings),
            "epochs": int(sum(report["epochs"] for report in reports)),
            "seconds_per_epoch": round(float(np.mean([report["seconds_per_epoch"] for report in reports])), 4),
        }
        return Domains(consensus(labelings, n_domains), params, np.concatenate(embeddings, 1))

    def _embed(
        self, x: Tensor, edges: Tensor, n_domains: int, seed: int
    ) -> tuple[NDArray[np.float32], dict[str, float]]:
        n = len(x)
        graph, near = propagation(edges, n), undirected(edges, n)
        balance = graph_balance(n, near._nnz() - n)
        network = Network(x.shape[1], n_clusters=n_domains, **self.widths)

        def loss(_: int) -> Tensor:
            out = network(x, graph)
            some = subset(n, self.max_spots)
            truth = near.index_select(0, some).index_select(1, some).to_dense()
            return pretraining_loss(out, x, rebuilt_graph(out["z"][some]), truth, balance)

        target = torch.empty(0)

        def loss_after(epoch: int) -> Tensor:
            nonlocal target
            q = network(x, graph)["q"]
            if epoch % 20 == 0:
                target = sharpened(q).detach()
            return loss(epoch) + divergence(target, q)

        before = self.minimise(network, loss, self.recipe)
        with torch.no_grad():
            z = network(x, graph)["mu"]
            first = means(z.numpy(), n_domains, seed)
            network.cluster_layer.copy_(
                torch.stack([z[torch.from_numpy(first) == k].mean(0) for k in range(n_domains)])
            )
        report = self.minimise(network, loss_after, self.recipe_after)
        report["epochs"] += before["epochs"]
        with torch.no_grad():
            return network(x, graph)["mu"].numpy(), report


def _activation(n: int, dropout: float) -> nn.Sequential:
    return nn.Sequential(Module(nn.BatchNorm1d(n)), nn.ReLU(), nn.Dropout(dropout))


class _Graph(nn.Module):
    """A graph convolution under the key that PyTorch Geometric's containers give it."""

    def __init__(self, n_in: int, n_out: int) -> None:
        super().__init__()
        self.module_0 = SparseGCNConv(n_in, n_out)

    def forward(self, x: Tensor, graph: Tensor) -> Tensor:
        return self.module_0(x, graph)


class Network(nn.Module):
    """Three maps down, graph convolutions to a normal code and back, two maps up."""

    def __init__(
        self,
        n_in: int,
        *,
        encoder_dims: tuple[int, ...] = (1000, 400, 30),
        graph_dims: tuple[int, ...] = (64, 8),
        decoder_dims: tuple[int, ...] = (400, 1000),
        n_clusters: int = 15,
        alpha: float = 1.5,
        dropout: float = 0.01,
    ) -> None:
        super().__init__()
        self.alpha = alpha
        first, second, third = encoder_dims
        hidden, latent = graph_dims
        up, last = decoder_dims
        self.cluster_layer = nn.Parameter(torch.empty(n_clusters, latent))
        nn.init.xavier_normal_(self.cluster_layer)
        self.conv1, self.conv2, self.conv3 = nn.Linear(n_in, first), nn.Linear(first, second), nn.Linear(second, third)
        self.act1, self.act2, self.act3 = (_activation(n, dropout) for n in encoder_dims)
        self.act4 = _activation(last, dropout)
        self.conv_x, self.conv_mean = _Graph(third, hidden), _Graph(hidden, latent)
        self.conv_logvar, self.conv_x_ = _Graph(hidden, latent), _Graph(latent, up)
        self.conv4, self.conv5 = nn.Linear(up, last), nn.Linear(last, n_in)

    def forward(self, x: Tensor, graph: Tensor, eps: Tensor | None = None) -> dict[str, Tensor]:
        """Codes and reconstruction; ``z`` is drawn, by ``eps`` where given, also after training."""
        h = self.act3(self.conv3(self.act2(self.conv2(self.act1(self.conv1(x))))))
        hidden = self.conv_x(h, graph)
        mu, logvar = self.conv_mean(hidden, graph), self.conv_logvar(hidden, graph)
        z = mu + logvar.exp() * (torch.randn_like(mu) if eps is None else eps)
        rebuilt = self.conv5(self.act4(self.conv4(self.conv_x_(z, graph))))
        q = student_t(z, self.cluster_layer, self.alpha, 1e-8)
        return {"h": h, "conv": hidden, "mu": mu, "logvar": logvar, "z": z, "rebuilt": rebuilt, "q": q}


def rebuilt_graph(z: Tensor) -> Tensor:
    """Probability of an edge between any two spots."""
    return torch.sigmoid(z @ z.T)


def loss_terms(
    out: Mapping[str, Tensor], x: Tensor, graph: Tensor, truth: Tensor, balance: float
) -> tuple[Tensor, ...]:
    """Error of the expression, of the graph, and divergence of the code from a standard normal."""
    wrong_edges = balance * F.binary_cross_entropy(graph, truth)
    return F.mse_loss(out["rebuilt"], x), wrong_edges, gaussian_divergence(out["mu"], out["logvar"])


def pretraining_loss(out: Mapping[str, Tensor], x: Tensor, graph: Tensor, truth: Tensor, balance: float) -> Tensor:
    """The objective before clusters count."""
    expression, edges, divergence = loss_terms(out, x, graph, truth, balance)
    return expression + 0.1 * (edges + divergence)


def view_edges(view: View, xy: NDArray, codes: NDArray, *, k: int, reach: float, at_most: int = 50) -> Tensor:
    """Edges (spot, neighbour) of one of the graphs, with a loop at each spot; int64 (edges, 2), sorted.

    Parameters
    ----------
    view
        ``"radius"``: the ``at_most`` nearest that are nearer than ``reach``; ``"knn"``: the ``k`` nearest;
        ``"cosine"``, ``"spearman"``: the ``k`` most similar by the principal components of their expression.
    xy, codes
        Positions and principal components.
    """
    n = len(xy)
    if view == "radius":
        near = nearest(xy, at_most)
        spot = np.repeat(np.arange(n), near.shape[1])
        inside = np.linalg.norm(xy[spot] - xy[near.ravel()], axis=1) < reach
        pairs = np.stack([spot, near.ravel()], axis=1)[inside]
    else:
        if view == "spearman":
            from scipy.stats import rankdata

            ranks = rankdata(codes, axis=1)
            codes = ranks - ranks.mean(axis=1, keepdims=True)
        near = nearest(xy if view == "knn" else codes / np.linalg.norm(codes, axis=1, keepdims=True), k)
        pairs = np.stack([np.repeat(np.arange(n), near.shape[1]), near.ravel()], axis=1)
    every = np.concatenate([pairs, np.repeat(np.arange(n)[:, None], 2, axis=1)])
    return torch.from_numpy(every[np.lexsort((every[:, 1], every[:, 0]))].astype(np.int64))


def undirected(edges: Tensor, n: int) -> Tensor:
    """The graph without directions, 1 where there is an edge or the spot itself; sparse (n, n)."""
    both = torch.cat([edges, edges.flip(1)]).unique(dim=0).T
    return torch.sparse_coo_tensor(both, torch.ones(both.shape[1]), (n, n), check_invariants=False).coalesce()


def similar_mean(values: NDArray, looks: NDArray[np.float64]) -> NDArray[np.float64]:
    """Weighted mean of the two spots whose tiles are most like each spot's own, after the most like one of all."""
    length = np.linalg.norm(looks, axis=1, keepdims=True)
    directions = looks / np.where(length > 0, length, 1)
    parts = []
    for start in range(0, len(looks), _BLOCK):
        similarity = np.maximum(directions[start : start + _BLOCK] @ directions.T, 0)
        best = np.argsort(similarity, axis=1)[:, -3:][:, :2]
        weight = np.take_along_axis(similarity, best, axis=1)
        total = weight.sum(axis=1, keepdims=True)
        parts.append(np.einsum("nk,nkg->ng", weight / np.where(total > 0, total, 1), values[best]))
    return np.concatenate(parts)

"""Graphs of many spots in torch: sparse matrices, layers on them, and objectives over pairs of spots."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from napari_he2st.zoo.blocks.graph import GCNConv, scatter_softmax

if TYPE_CHECKING:
    from scipy.sparse import csr_array


def edges_in(graph: csr_array) -> Tensor:
    """Edges (source, destination) of a graph whose rows receive, int64 (edges, 2), by destination."""
    coo = graph.tocoo()
    return torch.from_numpy(np.stack([coo.coords[1], coo.coords[0]], axis=1).astype(np.int64))


def sparse_tensor(graph: csr_array, dtype: torch.dtype = torch.float32) -> Tensor:
    """The graph as a sparse torch matrix."""
    coo = graph.tocoo()
    index = torch.from_numpy(np.stack(coo.coords).astype(np.int64))
    values = torch.from_numpy(coo.data).to(dtype)
    return torch.sparse_coo_tensor(index, values, coo.shape, check_invariants=False).coalesce()


def propagation(edges: Tensor, n: int, weight: Tensor | None = None, *, loop: float = 1.0) -> Tensor:
    """Symmetrically normalised graph with a loop at each node, D^-1/2 (A + I) D^-1/2: sparse (n, n), rows receive.

    Parameters
    ----------
    edges
        (source, destination), int64 (edges, 2); an edge that is there twice counts twice.
    n
        Number of nodes.
    weight
        Of each edge; 1 by default.
    loop
        Weight of the loops of nodes that have none among ``edges``.
    """
    if weight is None:
        weight = torch.ones(len(edges), dtype=torch.get_default_dtype())
    is_loop = edges[:, 0] == edges[:, 1]
    loops = weight.new_full((n,), loop)
    loops[edges[is_loop, 0]] = weight[is_loop]
    everywhere = torch.arange(n)
    source, destination = (torch.cat([edges[~is_loop, side], everywhere]) for side in (0, 1))
    weight = torch.cat([weight[~is_loop], loops])
    degree = weight.new_zeros(n).index_add(0, destination, weight)
    scale = degree.rsqrt().masked_fill(degree == 0, 0)
    weight = scale[source] * weight * scale[destination]
    index = torch.stack([destination, source])
    return torch.sparse_coo_tensor(index, weight, (n, n), check_invariants=False).coalesce()


class SparseGCNConv(GCNConv):
    """Graph convolution (Kipf and Welling 2017) on a graph from :func:`propagation`."""

    def forward(self, nodes: Tensor, graph: Tensor) -> Tensor:
        """(n, out), from (n, in)."""
        return torch.sparse.mm(graph, self.lin(nodes)) + self.bias


class TransformerConv(nn.Module):
    """One head of attention over the neighbours, and a map of the node itself (Shi et al. 2021)."""

    def __init__(self, n_in: int, n_out: int) -> None:
        super().__init__()
        self.lin_key, self.lin_query = nn.Linear(n_in, n_out), nn.Linear(n_in, n_out)
        self.lin_value, self.lin_skip = nn.Linear(n_in, n_out), nn.Linear(n_in, n_out)

    def attention(self, nodes: Tensor, edges: Tensor) -> Tensor:
        """Weight of each edge (source, destination), (edges, 1); those of a destination sum to 1."""
        source, destination = edges.T
        query, key = self.lin_query(nodes), self.lin_key(nodes)
        score = (query[destination] * key[source]).sum(1, keepdim=True) / query.shape[1] ** 0.5
        return scatter_softmax(score, destination, len(nodes))

    def forward(self, nodes: Tensor, edges: Tensor, attention: Tensor | None = None) -> Tensor:
        """(n, out); without neighbours, the map of the node alone. ``attention`` is computed where it is not given."""
        weight = self.attention(nodes, edges) if attention is None else attention
        return spread(self.lin_value(nodes), edges, weight) + self.lin_skip(nodes)


def spread(nodes: Tensor, edges: Tensor, weight: Tensor) -> Tensor:
    """Sum over the edges (source, destination) that end in each node, (n, dim), weighted (edges, 1)."""
    source, destination = edges.T
    return torch.zeros_like(nodes).index_add(0, destination, weight * nodes[source])


class LinearBlock(nn.Sequential):
    """Linear, batch norm, ELU, dropout: the layer of the autoencoders of conST and SpaICL."""

    def __init__(self, n_in: int, n_out: int, dropout: float) -> None:
        norm = nn.BatchNorm1d(n_out, eps=1e-3, momentum=0.01)
        super().__init__(nn.Linear(n_in, n_out), norm, nn.ELU(), nn.Dropout(dropout))


class Module(nn.Module):
    """A layer under the key ``module``, as PyTorch Geometric wraps its norms."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.module = layer

    def forward(self, x: Tensor) -> Tensor:
        """What the layer makes of it."""
        return self.module(x)


def student_t(z: Tensor, centres: Tensor, alpha: float = 1.0, eps: float = 0.0, power: float | None = None) -> Tensor:
    """Soft assignment to clusters by Student's t (Xie et al. 2016): float (n, clusters), rows sum to 1.

    ``power`` is (alpha + 1) / 2 by default.
    """
    squares = (z[:, None] - centres).square().sum(2)
    q = (1 / (1 + squares / alpha + eps)) ** ((alpha + 1) / 2 if power is None else power)
    return q / q.sum(1, keepdim=True)


def sharpened(q: Tensor) -> Tensor:
    """The target of deep embedded clustering: confident assignments raised, large clusters lowered."""
    weight = q.square() / q.sum(0)
    return weight / weight.sum(1, keepdim=True)


def divergence(p: Tensor, q: Tensor) -> Tensor:
    """Of the soft assignment ``q`` from its target ``p``, averaged over spots and clusters."""
    return (p * (p.log() - q.log())).mean()


def graph_balance(n: int, n_edges: float) -> float:
    """n² / (2 (n² − edges)): weight of a reconstructed adjacency in which most entries are 0."""
    return n * n / (2 * (n * n - n_edges))


def gaussian_divergence(mean: Tensor, log_std: Tensor) -> Tensor:
    """Divergence of a graph autoencoder's latent normals from the standard one, per node and averaged twice."""
    inner = 1 + 2 * log_std - mean.square() - log_std.exp().square()
    return -0.5 / len(mean) * inner.sum(1).mean()


def info_nce(z1: Tensor, z2: Tensor, temperature: float) -> Tensor:
    """Contrast of two views of the same nodes, over all pairs of both (Zhu et al. 2020); mean of both directions."""
    z1, z2 = F.normalize(z1), F.normalize(z2)
    within1, within2, between = (torch.exp(a @ b.T / temperature) for a, b in ((z1, z1), (z2, z2), (z1, z2)))

    def one_way(within: Tensor, between: Tensor) -> Tensor:
        total = within.sum(1) + between.sum(1) - within.diagonal()
        return -torch.log(between.diagonal() / total).mean()

    return (one_way(within1, between) + one_way(within2, between.T)) / 2


def subset(n: int, limit: int) -> Tensor:
    """Which of ``n`` spots an objective over all pairs is taken over: all up to ``limit``, else a random part."""
    return torch.arange(n) if n <= limit else torch.randperm(n)[:limit].sort().values

"""Graphs of spots and layers on them, in plain torch.

A dense graph is float32 (n, n), 1 where the row's node hears of the column's. A sparse one is int64
(edges, 2), each row (source, destination).
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def nearest_graph(positions: Tensor, k: int, *, within: float | Literal["std"] | None = None) -> Tensor:
    """Which ``k`` other points are nearest to each, dense; neither symmetric nor a point its own neighbour.

    Parameters
    ----------
    positions
        (n, d); points at the same place are neighbours of each other. Of equally near ones the first counts.
    k
        Number of neighbours; all other points where there are fewer.
    within
        Drop those further than this, or than the point's own mean plus standard deviation (``"std"``).
    """
    distance = torch.cdist(positions.double(), positions.double()).fill_diagonal_(torch.inf)
    length, near = distance.sort(dim=1, stable=True)
    k = min(k, len(positions) - 1)
    length, near = length[:, :k], near[:, :k]
    if within == "std" and k > 0:
        limit = length.mean(1, keepdim=True) + length.std(1, correction=0, keepdim=True)
    else:
        limit = torch.full_like(length[:, :1], torch.inf if within in (None, "std") else within)
    return torch.zeros_like(distance, dtype=torch.float32).scatter_(1, near, (length <= limit).float())


def mean_of_neighbours(adjacency: Tensor, nodes: Tensor, *, faithful: bool = False) -> Tensor:
    """Mean over the neighbours of each node in a dense graph; 0 without any, or NaN where ``faithful``."""
    degree = adjacency.sum(1, keepdim=True)
    return adjacency / (degree if faithful else degree.masked_fill(degree == 0, 1)) @ nodes


class GraphAttention(nn.Module):
    """One head of graph attention (Veličković et al. 2018) on a dense graph, without bias.

    Parameters
    ----------
    n_in, n_out
        Features of a node before and after.
    """

    def __init__(self, n_in: int, n_out: int) -> None:
        super().__init__()
        self.W = nn.Parameter(torch.empty(n_in, n_out))
        self.a = nn.Parameter(torch.empty(2 * n_out, 1))
        nn.init.xavier_uniform_(self.W, gain=1.414)
        nn.init.xavier_uniform_(self.a, gain=1.414)

    def forward(self, nodes: Tensor, adjacency: Tensor, *, over: int = -1) -> Tensor:
        """Float32 (n, out); weights sum to 1 along axis ``over``, by default for each receiving node.

        A node without neighbours sees all nodes alike.
        """
        h = nodes @ self.W
        to, of = (h @ part for part in self.a.chunk(2))
        score = F.leaky_relu(to + of.T, 0.01).masked_fill(adjacency <= 0, -9e15)
        return score.softmax(over) @ h


def scatter_mean(values: Tensor, index: Tensor, n: int) -> Tensor:
    """Mean of the rows of ``values`` that have the same ``index``, (n, …); 0 where there are none."""
    total = values.new_zeros(n, *values.shape[1:]).index_add(0, index, values)
    count = torch.bincount(index, minlength=n).clamp(min=1).to(values)
    return total / count.view(n, *[1] * (values.ndim - 1))


class HypergraphConv(nn.Module):
    """Nodes to their hyperedges and back (Bai et al. 2021).

    Parameters
    ----------
    n_in, n_out
        Features of a node before and after.
    """

    def __init__(self, n_in: int, n_out: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(n_out))
        self.lin = nn.Linear(n_in, n_out, bias=False)

    def forward(self, nodes: Tensor, incidence: Tensor, weight: Tensor) -> Tensor:
        """Float32 (n, out).

        Parameters
        ----------
        nodes
            (n, in).
        incidence
            Int64 (incidences, 2), each row (node, hyperedge).
        weight
            Of each hyperedge.
        """
        node, edge = incidence.T
        means = scatter_mean(self.lin(nodes)[node], edge, len(weight))
        total = weight.new_zeros(len(nodes)).index_add(0, node, weight[edge])
        gathered = torch.zeros_like(means[: len(nodes)]).index_add(0, node, means[edge])
        return gathered * total.reciprocal().masked_fill(total == 0, 0)[:, None] + self.bias


class GCNConv(nn.Module):
    """Graph convolution (Kipf and Welling 2017) on dense graphs: a loop at each node, symmetric normalisation."""

    def __init__(self, n_in: int, n_out: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(n_out))
        self.lin = nn.Linear(n_in, n_out, bias=False)

    def forward(self, nodes: Tensor, adjacency: Tensor) -> Tensor:
        """Float32 (…, n, out), from (…, n, in) and graphs (…, n, n)."""
        graph = adjacency + torch.eye(adjacency.shape[-1], device=adjacency.device)
        scale = graph.sum(-1).rsqrt()
        return (scale[..., None] * graph * scale[..., None, :]) @ self.lin(nodes) + self.bias


class GraphConv(nn.Module):
    """A map of the sum of the neighbours plus one of the node itself (Morris et al. 2019), on dense graphs."""

    def __init__(self, n_in: int, n_out: int) -> None:
        super().__init__()
        self.lin_rel, self.lin_root = nn.Linear(n_in, n_out), nn.Linear(n_in, n_out, bias=False)

    def forward(self, nodes: Tensor, adjacency: Tensor) -> Tensor:
        """Float32 (…, n, out), from (…, n, in) and graphs (…, n, n)."""
        return self.lin_rel(adjacency @ nodes) + self.lin_root(nodes)


def lattice_offsets(positions: Tensor) -> Tensor:
    """Steps (column, row) to the neighbours on the lattice that array positions lie on, int64 (6 or 8, 2).

    Hexagonal lattices count columns in half pitches: column and row are then both even or both odd.
    """
    hexagonal = len(positions) > 1 and bool(((positions.sum(1) - positions[0].sum()) % 2 == 0).all())
    six = ((-1, -1), (1, -1), (-2, 0), (2, 0), (-1, 1), (1, 1))
    eight = ((-1, -1), (0, -1), (1, -1), (-1, 0), (1, 0), (-1, 1), (0, 1), (1, 1))
    return torch.tensor(six if hexagonal else eight, device=positions.device)


def at_offsets(positions: Tensor, offsets: Tensor) -> Tensor:
    """Row of the spot at each offset from each spot, int64 (n, offsets); −1 where there is none."""
    found = (positions[:, None] + offsets)[:, :, None] == positions
    there = found.all(-1)
    return torch.where(there.any(-1), there.float().argmax(-1), -1)


class SAGEConv(nn.Module):
    """A map of the neighbours' mean plus one of the node itself (Hamilton et al. 2017), on sparse graphs."""

    def __init__(self, n_in: int, n_out: int) -> None:
        super().__init__()
        self.lin_l, self.lin_r = nn.Linear(n_in, n_out), nn.Linear(n_in, n_out, bias=False)

    def forward(self, nodes: Tensor, edges: Tensor) -> Tensor:
        """Float32 (n, out), from (n, in) and edges (source, destination)."""
        source, destination = edges.T
        return self.lin_l(scatter_mean(nodes[source], destination, len(nodes))) + self.lin_r(nodes)


def scatter_softmax(values: Tensor, index: Tensor, n: int) -> Tensor:
    """Softmax over the rows of ``values`` (rows, channels) that have the same ``index``, channel by channel."""
    target = index[:, None].expand_as(values)
    highest = values.new_full((n, values.shape[1]), -torch.inf).scatter_reduce(0, target, values.detach(), "amax")
    raised = (values - highest[index]).exp()
    return raised / raised.new_zeros(n, values.shape[1]).index_add(0, index, raised)[index]


def edges_of(adjacency: Tensor) -> Tensor:
    """A dense graph, whose rows receive, as edges (source, destination)."""
    return adjacency.nonzero().flip(1)

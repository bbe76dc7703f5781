"""Graphs of spots and layers on them, in plain torch.

A dense graph is float32 (n, n), 1 where the row's node hears of the column's. A sparse one is int64
(edges, 2), each row (source, destination).
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor


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
    if within == "std":
        limit = length.mean(1, keepdim=True) + length.std(1, correction=0, keepdim=True)
    else:
        limit = torch.full_like(length[:, :1], torch.inf if within is None else within)
    return torch.zeros_like(distance, dtype=torch.float32).scatter_(1, near, (length <= limit).float())


def mean_of_neighbours(adjacency: Tensor, nodes: Tensor, *, faithful: bool = False) -> Tensor:
    """Mean over the neighbours of each node in a dense graph; 0 without any, or NaN where ``faithful``."""
    degree = adjacency.sum(1, keepdim=True)
    return adjacency / (degree if faithful else degree.masked_fill(degree == 0, 1)) @ nodes

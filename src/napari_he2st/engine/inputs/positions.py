"""Resolvers of inputs that follow from where the spots lie."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from napari_he2st.analysis.graphs import nearest
from napari_he2st.core.errors import ModelError
from napari_he2st.zoo import inputs as kinds

if TYPE_CHECKING:
    from napari_he2st.engine.inputs.supply import Supply

Rows = NDArray[np.intp]


def positions(supply: Supply, spec: kinds.Positions) -> Callable[[int, Rows], Tensor]:
    """Micrometres, or array positions that count from the first spot that is seen."""
    grid, device = supply.scene.grid, supply.scene.device
    if spec.kind == "um":
        um = torch.from_numpy((grid.xy * grid.mpp).astype(np.float32)).to(device)
        return lambda number, rows: um[torch.from_numpy(rows).to(device)]
    column_row = np.ascontiguousarray(grid.index[:, ::-1], dtype=np.int64)
    step = 1.0 if spec.kind == "lattice" else supply.scene.array_step

    def counted(number: int, rows: Rows) -> Tensor:
        first = column_row[rows if supply.together else slice(None)].min(axis=0)
        # The small surplus keeps whole positions whole where the step is not exact in floating point.
        here = np.floor((column_row[rows] - first) * step + 1e-6).astype(np.int64)
        if spec.bins is not None and int(here.max()) >= spec.bins:
            message = f"The spots span {int(here.max()) + 1} array positions; this predictor knows {spec.bins}"
            raise ModelError(message, todo="Predict a smaller region, or at a coarser pitch")
        return torch.from_numpy(here).to(device)

    return counted


def index(supply: Supply, spec: kinds.Index) -> Callable[[int, Rows], Tensor]:
    """Rows of the batch among all spots."""
    device = supply.scene.device
    return lambda number, rows: torch.from_numpy(rows.astype(np.int64)).to(device)


def knn_graph(supply: Supply, spec: kinds.KnnGraph) -> Callable[[int, Rows], Tensor]:
    """Edges between the spots of a batch; the supply gives all spots where a batch is only a part of them."""
    scene = supply.scene

    def edges(number: int, rows: Rows) -> Tensor:
        found = nearest_edges(
            scene.grid.xy[rows] * scene.grid.mpp, spec.k, spec.radius_um, loops=spec.loops, symmetric=spec.symmetric
        )
        return torch.from_numpy(found).to(scene.device)

    return edges


def nearest_edges(
    points: NDArray[np.float64], k: int, radius: float | None = None, *, loops: bool = False, symmetric: bool = False
) -> NDArray[np.int64]:
    """Edges (neighbour, spot) of :class:`~napari_he2st.zoo.inputs.KnnGraph` over positions (n, 2): (2, edges)."""
    n = len(points)
    k = min(k, n - 1)
    near = nearest(points, k) if k > 0 else np.zeros((n, 0), dtype=np.intp)
    exists = np.ones(near.shape, dtype=bool)
    if radius is not None:
        exists = np.linalg.norm(points[near] - points[:, None], axis=2) <= radius
    spot = np.repeat(np.arange(n)[:, None], near.shape[1], axis=1)
    if loops:
        near = np.concatenate([np.arange(n)[:, None], near], axis=1)
        spot = np.concatenate([np.arange(n)[:, None], spot], axis=1)
        exists = np.concatenate([np.ones((n, 1), dtype=bool), exists], axis=1)
    edges = np.stack([near[exists], spot[exists]]).astype(np.int64)
    if symmetric:
        back = edges[::-1]
        missing = ~np.isin(back[0] * n + back[1], edges[0] * n + edges[1])
        edges = np.concatenate([edges, back[:, missing]], axis=1)
    return edges

"""SpatialEx: cells in a hypergraph of neighbours (Nature Methods 2025, s41592-025-02926-6), and SpatialEx+."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_array
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.swa_utils import update_bn

from napari_he2st.analysis.graphs import nearest
from napari_he2st.zoo.base import Batches, Expression, Output, Predictor, Slide
from napari_he2st.zoo.blocks.graph import scatter_mean
from napari_he2st.zoo.blocks.losses import nan_mse
from napari_he2st.zoo.blocks.sparse import sparse_tensor
from napari_he2st.zoo.blocks.start import start_at_mean
from napari_he2st.zoo.encoders.build import spec_of
from napari_he2st.zoo.inputs import Features, Positions
from napari_he2st.zoo.recipe import Recipe

_SLOPE, _MLP_SLOPE = 0.01, 0.1
_PITCH_UM = 100.0
_RADIUS_UM = 27.5


class SpatialEx(Predictor):
    """Cells hear of their neighbours twice; a second network learns what is common to a tissue.

    Parameters
    ----------
    n_genes
        Size of the panel.
    encoder, feature_dim
        Of the crop around each cell, and the width of its features (by default the encoder's).
    dim, depth
        Width of the hidden state, and hypergraph layers.
    n_neighbours
        Cells of a hyperedge, the cell itself included.
    plus
        The network of SpatialEx+, in which both tasks share their first layers.
    dropout
        In the hypergraph layers.
    tile_px, tile_mpp
        Of the crop.
    """

    unit = Slide()
    max_spots = 10_000
    targets = {"expression": Expression("log1p_cp10k", panel="hvg:150")}
    outputs = {"expression": Output(per="cell")}
    recipe = Recipe("adam", lr=1e-3, epochs=1000, batch_size=1)

    def __init__(
        self,
        n_genes: int,
        *,
        encoder: str = "uni",
        feature_dim: int | None = None,
        dim: int = 512,
        depth: int = 2,
        n_neighbours: int = 7,
        plus: bool = False,
        dropout: float = 0.1,
        tile_px: int = 112,
        tile_mpp: float | None = None,
    ) -> None:
        super().__init__()
        self.inputs = {
            "features": Features(encoder=encoder, px=tile_px, mpp=tile_mpp),
            "positions": Positions(kind="um"),
        }
        width = feature_dim or spec_of(encoder).dim
        self.n_neighbours, self.plus = n_neighbours, plus
        if plus:
            self.mlp, self.hgnn = _mlp(width, dim), HypergraphNet(dim, dim, dim, depth, dropout)
            self.predictor = nn.Linear(dim, n_genes)
            self.dgi = nn.Module()
            self.dgi.hgnn = HypergraphNet(dim, n_genes, n_genes, 1, dropout)
            return
        self.predictor = nn.Module()
        self.predictor.mlp = _mlp(width, dim)
        self.predictor.mod = HypergraphNet(dim, dim, dim, depth, 0.0)
        self.predictor.linear = nn.Linear(dim, n_genes)
        self.dgi_model = nn.Module()
        self.dgi_model.mlp = _mlp(width, dim)
        self.dgi_model.dgi = nn.Module()
        self.dgi_model.dgi.hgnn = HypergraphNet(dim, n_genes, n_genes, 1, dropout)

    def prepare(self, *, features: Tensor, positions: Tensor) -> dict[str, Any]:
        """Features of the cells and the operator of their hypergraph."""
        return {"features": features, "graph": hypergraph(positions, self.n_neighbours)}

    def forward(self, features: Tensor, graph: Tensor) -> tuple[Tensor, Tensor]:
        """Expression (cells, n_genes) and state (cells, dim) of cells (cells, feature_dim)."""
        if self.plus:
            state = self.hgnn(self.mlp(features), graph)
            return F.leaky_relu(self.predictor(F.leaky_relu(state, _SLOPE)), _SLOPE), state
        state = self.predictor.mod(self.predictor.mlp(features), graph)
        return F.leaky_relu(self.predictor.linear(F.leaky_relu(state, _SLOPE)), _SLOPE), state

    def predict(self, *, noise: Any = None, **prepared: Any) -> Tensor:
        """Expression of the cells."""
        return self(**prepared)[0]

    def loss(self, targets: Mapping[str, Tensor], *, features: Tensor, graph: Tensor) -> Tensor:
        """Squared error of the cells, or of the spots they lie in; and what is common to the tissue."""
        predicted, _ = self(features, graph)
        measured = targets["expression"]
        if "owner" in targets:
            own = targets["owner"] >= 0
            predicted = scatter_mean(predicted[own], targets["owner"][own], len(measured))
        shuffled = torch.randperm(len(features), device=features.device)
        return nan_mse(predicted, measured) + self.common(features, graph, shuffled)[0]

    def fit(self, batches: Batches, recipe: Recipe) -> Iterator[dict[str, float]]:
        """Train from the mean of the training cells on; ``faithful`` from random weights."""
        if not self.faithful:
            start_at_mean(batches, self.predictor if self.plus else self.predictor.linear)
        yield from super().fit(batches, recipe)

    def finish(self, batches: Batches) -> None:
        """Normalise by the training cells as the trained layer sees them; ``faithful`` by running averages.

        A slide is one step. Running averages then still hold much of what they started from, and lag behind the
        states of the cells, whose spread is small beside how far their mean moves from step to step: cells would be
        predicted at another level than they were learnt at.
        """
        if not self.faithful:
            update_bn((prepared["features"] for _, prepared in batches), self.mlp if self.plus else self.predictor.mlp)

    def common(self, features: Tensor, graph: Tensor, order: Tensor) -> tuple[Tensor, Tensor]:
        """How far cells are from their mean beside cells in another ``order``: the loss, and their states."""
        mlp, dgi = (self.mlp, self.dgi) if self.plus else (self.dgi_model.mlp, self.dgi_model.dgi)
        hidden = mlp(features)
        states, wrong = dgi.hgnn(hidden, graph), dgi.hgnn(hidden[order], graph)
        mean = states.mean(dim=0).expand_as(states)
        same = torch.ones(len(states), device=states.device)
        loss = F.cosine_embedding_loss(states, mean, same) + F.cosine_embedding_loss(wrong, mean, -same)
        return loss, states


class HypergraphNet(nn.Module):
    """Layers over a hypergraph.

    Parameters
    ----------
    before, dim, after, depth, dropout
        Widths before, within and after ``depth`` layers (1 or 2), and the share that is dropped before each.
    """

    def __init__(self, before: int, dim: int, after: int, depth: int, dropout: float) -> None:
        super().__init__()
        self.depth = depth
        self.activation = nn.PReLU()
        self.W1 = nn.Linear(before, dim)
        for number in range(2, depth + 1):
            self.add_module(f"W{number}", nn.Linear(dim, after if number == depth else dim))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, graph: Tensor) -> Tensor:
        """States (cells, after) of cells (cells, before) under the operator (cells, cells), sparse or not."""
        for number in range(1, self.depth + 1):
            x = torch.sparse.mm(graph, self.get_submodule(f"W{number}")(self.dropout(x)))
            if number < self.depth or self.depth == 1:
                x = self.activation(x)
        return x


class PanelMapper(nn.Module):
    """SpatialEx+'s map from one panel of genes to another."""

    def __init__(self, before: int, after: int, dim: int | None = None) -> None:
        super().__init__()
        hidden = dim or after
        self.mlp = nn.Sequential(
            nn.Linear(before, hidden),
            nn.LeakyReLU(_MLP_SLOPE),
            nn.BatchNorm1d(hidden),
            nn.Linear(hidden, after),
            nn.LeakyReLU(_MLP_SLOPE),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Expression (cells, after) of cells (cells, before)."""
        return self.mlp(x)


def _mlp(before: int, after: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(before, after), nn.LeakyReLU(_MLP_SLOPE), nn.BatchNorm1d(after))


def hypergraph(positions: Tensor, n_neighbours: int = 7) -> Tensor:
    """Normalised operator Dv^-½ H De^-1 Hᵀ Dv^-½ of the hyperedges that each cell spans with its neighbours.

    Parameters
    ----------
    positions
        Shape (cells, 2).
    n_neighbours
        Cells of a hyperedge, the cell itself included.

    Returns
    -------
    Tensor
        Sparse, float32 (cells, cells).
    """
    n = len(positions)
    k = min(n_neighbours, n)
    own = np.arange(n)[:, None]
    others = nearest(positions.detach().cpu().numpy().astype(np.float64), k - 1) if k > 1 else np.zeros((n, 0), int)
    cells = np.concatenate([own, others], axis=1).ravel()
    weight = np.bincount(cells, minlength=n)[cells] ** -0.5
    incidence = csr_array((weight, (cells, np.repeat(np.arange(n), k))), shape=(n, n))
    return sparse_tensor(csr_array(incidence @ incidence.T / k)).to(positions.device)


def pseudo_spots(
    xy_um: NDArray[np.float64], *, everywhere: bool = True
) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """Spots of a generated Visium-like lattice, for cells that have none.

    Parameters
    ----------
    xy_um
        Positions of the cells, not below 0, shape (cells, 2).
    everywhere
        Take cells between the spots into the nearest one, too.

    Returns
    -------
    owner, centres
        Spot of each cell, −1 in none; centres of the spots that hold cells, (spots, 2).
    """
    from scipy.spatial import KDTree

    step_y = _PITCH_UM * 3**0.5
    points = []
    for x0, y0 in ((0.0, 0.0), (_PITCH_UM / 2, step_y / 2)):
        xs = np.arange(x0, xy_um[:, 0].max() + _PITCH_UM, _PITCH_UM)
        ys = np.arange(y0, xy_um[:, 1].max() + step_y, step_y)
        points.append(np.stack(np.meshgrid(xs, ys), axis=-1).reshape(-1, 2))
    centres = np.concatenate(points)
    distance, owner = KDTree(centres).query(xy_um)
    if not everywhere:
        owner = np.where(distance < _RADIUS_UM, owner, -1)
    used = np.unique(owner[owner >= 0])
    renumbered = np.full(len(centres) + 1, -1, dtype=np.intp)
    renumbered[used] = np.arange(len(used))
    return renumbered[owner], centres[used]

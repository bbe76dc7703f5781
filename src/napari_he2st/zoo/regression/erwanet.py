"""ErwaNet: windows as a graph of three kinds of edges (Chen et al., Computers in Biology and Medicine 174, 2024)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from napari_he2st.core.noise import Noise
from napari_he2st.zoo.base import Expression, Predictor, Slide
from napari_he2st.zoo.blocks.exemplars import exemplar_loss
from napari_he2st.zoo.blocks.graph import edges_of, nearest_graph, scatter_mean
from napari_he2st.zoo.encoders.build import spec_of
from napari_he2st.zoo.inputs import Features, Positions
from napari_he2st.zoo.recipe import Recipe

_SLOPE = 0.2
_KINDS = ("near", "close", "sim")
_NEIGHBOURS = 5
_QUANTILE = 3e-5


class ErwaNet(Predictor):
    """Messages along edges of likeness and of place, each with the edge's length, and a vector of the slide.

    Parameters
    ----------
    n_genes
        Size of the panel.
    encoder, feature_dim
        Of the spots, and the width of its features (by default the encoder's).
    dim
        Width of all nodes.
    depth
        Number of layers.
    pool_heads
        Heads of the attention that gives the vector of the slide; 0 for none. The published code of it is
        missing: this is attention of one learnt query to all spots, as its name says.
    tile_px
        Width of the tile.
    faithful
        Give all edges of a kind the same length, the root of the sum of squares of all, as published, which
        grows with the slide. By default each has its own.
    """

    unit = Slide()
    targets = {"expression": Expression("minmax_log10", panel="mean:250")}
    recipe = Recipe("adamw", lr=5e-4, weight_decay=1e-4, epochs=300, batch_size=1)

    def __init__(
        self,
        n_genes: int,
        *,
        encoder: str = "timm:resnet50.tv_in1k",
        feature_dim: int | None = None,
        dim: int = 512,
        depth: int = 4,
        pool_heads: int = 4,
        tile_px: int = 256,
        faithful: bool = False,
    ) -> None:
        super().__init__()
        self.inputs = {"features": Features(encoder=encoder, px=tile_px), "grid_xy": Positions(kind="grid")}
        self.pretransform_win = nn.Linear(feature_dim or spec_of(encoder).dim, dim, bias=False)
        self.post_plot_transform = nn.Sequential(
            nn.LeakyReLU(_SLOPE), nn.Linear(dim, dim, bias=False), nn.LeakyReLU(_SLOPE)
        )
        if pool_heads:
            self.poolers = nn.ModuleList(_SlideVector(dim, pool_heads) for _ in range(depth))
        self.plot_convs = nn.ModuleList(_Layer(dim, faithful) for _ in range(depth))
        self.lin = nn.Linear(dim, n_genes)

    def prepare(self, *, features: Tensor, grid_xy: Tensor) -> dict[str, Tensor]:
        """Features, array positions, and edges: nearly the same feature, near by, like."""
        distance = torch.cdist(features, features)
        same = distance < distance[:, len(distance) // 2].quantile(_QUANTILE)
        return {
            "window": features,
            "positions": grid_xy.float(),
            "near": edges_of(same),
            "close": edges_of(nearest_graph(grid_xy, _NEIGHBOURS)),
            "sim": edges_of(nearest_graph(features, _NEIGHBOURS)),
        }

    def forward(self, window: Tensor, positions: Tensor, near: Tensor, close: Tensor, sim: Tensor) -> Tensor:
        """Float32 (spots, genes).

        Parameters
        ----------
        window
            Features of the spots, (spots, width).
        positions
            (spots, 2).
        near, close, sim
            Edges (source, destination).
        """
        x = self.post_plot_transform(self.pretransform_win(window))
        for number, layer in enumerate(self.plot_convs):
            slide = self.poolers[number](x) if hasattr(self, "poolers") else None
            x = F.leaky_relu(layer(x, positions, (near, close, sim), slide), _SLOPE)
        return self.lin(x)

    def loss(self, targets: Mapping[str, Tensor], **prepared: Tensor) -> Tensor:
        """MSE and correlation over the slide."""
        return exemplar_loss(self.predict(**prepared), targets["expression"])

    def predict(self, *, noise: Noise | None = None, **prepared: Tensor) -> Tensor:
        """Logarithm of counts, 0 … 1 over the training spots, float32 (spots, genes)."""
        return self(**prepared)


class _Layer(nn.Module):
    """Mean of what a spot hears by each kind of edge."""

    def __init__(self, dim: int, faithful: bool) -> None:
        super().__init__()
        self.convs = nn.ModuleDict({f"window__{kind}__window": _EdgeConv(dim, faithful) for kind in _KINDS})

    def forward(self, x: Tensor, positions: Tensor, edges: tuple[Tensor, ...], slide: Tensor | None = None) -> Tensor:
        heard = [conv(x, positions, kind, slide) for conv, kind in zip(self.convs.values(), edges, strict=True)]
        return torch.stack(heard).mean(0)


class _EdgeConv(nn.Module):
    """Messages of both ends, their difference, the edge's length and its kind."""

    def __init__(self, dim: int, faithful: bool) -> None:
        super().__init__()
        self.faithful = faithful
        self.r_one_hot = nn.Parameter(torch.tensor([1.0, 0.0, 0.0]), requires_grad=False)  # of every kind the same
        self.lin_l, self.lin_r = nn.Linear(dim, dim), nn.Linear(dim, dim, bias=False)
        self.mlp = nn.Sequential(nn.Linear(4 * dim + 4, dim), nn.ReLU(), nn.Linear(dim, dim))

    def forward(self, x: Tensor, positions: Tensor, edges: Tensor, slide: Tensor | None) -> Tensor:
        of, to = edges.T
        step = positions[of] - positions[to]
        length = (step.norm() if self.faithful else step.norm(dim=1, keepdim=True)).expand(len(edges), 1)
        own, other = x[to], x[of]
        kind = self.r_one_hot.expand(len(edges), -1)
        message = self.mlp(torch.cat([own, own, other, other - own, length, kind], dim=1))
        heard = scatter_mean(message, to, len(x))
        return self.lin_l(heard if slide is None else heard + slide) + self.lin_r(x)


class _SlideVector(nn.Module):
    """Attention of one learnt query to all spots, float32 (1, dim)."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.query = nn.Parameter(torch.empty(1, dim))
        nn.init.xavier_uniform_(self.query)
        self.lin1, self.lin2 = nn.Linear(dim, dim), nn.Linear(dim, dim)
        self.attention = nn.MultiheadAttention(dim, heads)
        self.out = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        x = self.lin1(x)
        seen = self.query + self.attention(self.query, x, x, need_weights=False)[0]
        return self.lin2(seen + F.relu(self.out(seen)))

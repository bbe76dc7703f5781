"""EGGN: a graph of spots and of training spots that look alike (Yang et al., Pattern Recognition 145, 2024)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from napari_he2st.core.noise import Noise
from napari_he2st.zoo.base import Batches, Expression, Predictor, Slide
from napari_he2st.zoo.blocks.exemplars import BANK, empty_bank, exemplar_loss, fill_bank, nearest_exemplars
from napari_he2st.zoo.blocks.graph import SAGEConv, edges_of, nearest_graph, scatter_mean, scatter_softmax
from napari_he2st.zoo.encoders.build import spec_of
from napari_he2st.zoo.inputs import Features, Positions
from napari_he2st.zoo.recipe import Recipe

_SLOPE = 0.2
_NEAR, _CLOSE = 5, 3


class EGGN(Predictor):
    """Spots hear of their neighbours and of exemplars, exemplars of each other and of the spots.

    Parameters
    ----------
    n_genes
        Size of the panel.
    encoder, feature_dim
        Of the spots, and the width of its features (by default the encoder's).
    dim
        Width of all nodes, a multiple of 4.
    depth
        Number of layers.
    n_exemplars
        Exemplars of each spot.
    tile_px
        Width of the tile.
    faithful
        Take the exemplars' expression for the last columns of their transformed state, as published, which
        it is not. By default their expression itself is used.

    Notes
    -----
    ``extras["reference"]`` is the bank. In training, exemplars come from other slides; with one slide alone,
    from its other spots.
    """

    unit = Slide()
    targets = {"expression": Expression("minmax_log10", panel="mean:250")}
    recipe = Recipe("adamw", lr=5e-4, weight_decay=1e-4, epochs=300, batch_size=1)
    beside = {"reference": BANK}

    def __init__(
        self,
        n_genes: int,
        *,
        encoder: str = "timm:resnet18.tv_in1k",
        feature_dim: int | None = None,
        dim: int = 512,
        depth: int = 4,
        n_exemplars: int = 6,
        tile_px: int = 256,
        faithful: bool = False,
    ) -> None:
        super().__init__()
        self.inputs = {"features": Features(encoder=encoder, px=tile_px), "grid_xy": Positions(kind="grid")}
        width = feature_dim or spec_of(encoder).dim
        self.n_genes, self.n_exemplars, self.faithful = n_genes, n_exemplars, faithful
        self.extras["reference"] = empty_bank(n_exemplars, width, n_genes)
        self.pretransform_win = nn.Linear(width, dim, bias=False)
        self.pretransform_exp = nn.Linear(width + n_genes, dim, bias=False)
        self.post_transform = nn.Sequential(nn.LeakyReLU(_SLOPE), nn.Linear(dim, dim, bias=False), nn.LeakyReLU(_SLOPE))
        self.pretransform_ey = nn.Linear(n_genes, dim, bias=False)
        self.convs = nn.ModuleList(_Layer(dim) for _ in range(depth))
        self.pool = _Pool(dim)
        self.lin = nn.Linear(dim, n_genes)

    def prepare(self, *, features: Tensor, grid_xy: Tensor) -> dict[str, Tensor]:
        """Features, and edges between spots that touch."""
        return {"window": features, "near": edges_of(nearest_graph(grid_xy, _NEAR, within=2**0.5 + 1e-6))}

    def forward(self, window: Tensor, example: Tensor, near: Tensor, refer: Tensor, close: Tensor) -> Tensor:
        """Float32 (spots, genes).

        Parameters
        ----------
        window
            Features of the spots, (spots, width).
        example
            Features and expression of the exemplars, (exemplars, width + genes).
        near, refer, close
            Edges (source, destination) from spot to spot, exemplar to spot, exemplar to exemplar.
        """
        w = self.post_transform(self.pretransform_win(window))
        e = self.post_transform(self.pretransform_exp(example))
        y = self.pretransform_ey((e if self.faithful else example)[:, -self.n_genes :])
        for layer in self.convs:
            w, e, y = (F.leaky_relu(x, _SLOPE) for x in (*layer(w, e, y, near, refer, close), y))
        return self.lin(self.pool(w, e, refer))

    def predict(
        self, *, window: Tensor, near: Tensor, slide: Tensor | None = None, noise: Noise | None = None
    ) -> Tensor:
        """Logarithm of counts, 0 … 1 over the training spots, float32 (spots, genes)."""
        bank = self.extras["reference"]
        _, rows = nearest_exemplars(window, bank, self.n_exemplars, 1, slide)
        every = torch.cat([torch.from_numpy(bank[name]).to(window) for name in ("features", "expression")], dim=1)
        example, which = every[rows.flatten()].unique(dim=0, return_inverse=True)
        spot = torch.arange(len(window), device=window.device).repeat_interleave(rows.shape[1])
        refer = torch.stack([which, spot], dim=1)
        return self(window, example, near, refer, edges_of(nearest_graph(example, _CLOSE)))

    def loss(self, targets: Mapping[str, Tensor], **prepared: Tensor) -> Tensor:
        """MSE and correlation, with exemplars of other slides."""
        return exemplar_loss(self.predict(**prepared, slide=targets["slide"]), targets["expression"])

    def fit(self, batches: Batches, recipe: Recipe) -> Iterator[dict[str, float]]:
        """Fill the bank, then train."""
        self.extras["reference"] = fill_bank(batches, "window")
        yield from super().fit(batches, recipe)


class _Layer(nn.Module):
    """Three kinds of edges; what a node hears by two of them is averaged."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.convs = nn.ModuleDict(
            {
                "window__near__window": SAGEConv(dim, dim),
                "example__close__example": SAGEConv(dim, dim),
                "example__refer__window": ExemplarBridge(dim),
            }
        )

    def forward(
        self, w: Tensor, e: Tensor, y: Tensor, near: Tensor, refer: Tensor, close: Tensor
    ) -> tuple[Tensor, Tensor]:
        to_e, to_w = self.convs["example__refer__window"](e, w, y, refer)
        to_w = (self.convs["window__near__window"](w, near) + to_w) / 2
        return to_w, (self.convs["example__close__example"](e, close) + to_e) / 2


class ExemplarBridge(nn.Module):
    """Messages between exemplars and spots, weighted channel by channel by how they differ (EGB block)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.bias_src, self.bias_dist = nn.Parameter(torch.zeros(dim)), nn.Parameter(torch.zeros(dim))
        for name in ("lin_src", "lin_dst", "lin_y"):
            self.add_module(name, nn.Linear(dim, dim, bias=False))
        self.att = nn.Sequential(nn.Identity(), nn.Linear(dim, dim // 4, bias=False))
        self.score = nn.Sequential(nn.LeakyReLU(_SLOPE), nn.Linear(dim // 4, dim // 2))
        self.out_src, self.out_dist = nn.Linear(dim, dim), nn.Linear(dim, dim)

    def forward(self, e: Tensor, w: Tensor, y: Tensor, refer: Tensor) -> tuple[Tensor, Tensor]:
        """What exemplars and spots hear, from the states of exemplars, spots and exemplars' expression."""
        of, to = refer.T
        src, dst = F.leaky_relu(self.lin_src(e), _SLOPE), F.leaky_relu(self.lin_dst(w), _SLOPE)
        y = self.lin_y(y)
        weight = self.score(self.att(src)[of] - self.att(dst)[to]).sigmoid()
        to_dst, to_src = weight.chunk(2, dim=1)
        new_w = scatter_mean(_message(to_dst, src[of], y[of], dst[to]), to, len(w))
        new_e = scatter_mean(_message(to_src, dst[to], src[of], y[of]), of, len(e))
        return self.out_src(new_e + self.bias_src), self.out_dist(new_w + self.bias_dist)


def _message(weight: Tensor, *parts: Tensor) -> Tensor:
    """Mean of the weighted parts; each weight holds for consecutive channels of all parts in a row."""
    joined = torch.cat(parts, dim=1)
    weighted = joined * weight.repeat_interleave(joined.shape[1] // weight.shape[1], dim=1)
    return weighted.unflatten(1, (len(parts), -1)).mean(1)


class _Pool(nn.Module):
    """Each spot plus a mean of its exemplars, weighted channel by channel."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.lam = nn.Parameter(torch.tensor([0.1]))
        self.head = nn.Linear(dim, dim)

    def forward(self, w: Tensor, e: Tensor, refer: Tensor) -> Tensor:
        (of, to), w = refer.T, self.head(w)
        alpha = scatter_softmax(0.1 * (e[of] - w[to]), to, len(w))
        return w + self.lam * torch.zeros_like(w).index_add(0, to, alpha * e[of])

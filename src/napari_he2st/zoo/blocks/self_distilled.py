"""Slide-wide regressors that also fit a count likelihood and distil their own views: Hist2ST and its heirs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from napari_he2st.core.noise import Noise
from napari_he2st.zoo.base import Batches, Expression, Label, Predictor, Slide
from napari_he2st.zoo.blocks.graph import nearest_graph
from napari_he2st.zoo.blocks.losses import nan_mse
from napari_he2st.zoo.blocks.start import start_at_mean
from napari_he2st.zoo.blocks.vit import Attention, FeedForward, PreNorm
from napari_he2st.zoo.guard import safe_import
from napari_he2st.zoo.inputs import Positions, Tiles
from napari_he2st.zoo.recipe import Recipe

Likelihood = Literal["zinb", "nb"] | None


class SelfDistilled(Predictor):
    """What Hist2ST and HGGEP share: inputs, heads and objective.

    A subclass builds its layers, calls :meth:`_add_count_heads` where its state dict has them, adds
    ``gene_head``, and defines ``hidden``.
    """

    unit = Slide()
    targets: Mapping[str, Expression | Label] = {
        "expression": Expression("log10_cp10k_panel", panel="hvg:1000"),
        "counts": Expression("counts"),
    }
    recipe = Recipe("adam", lr=1e-5, epochs=350, batch_size=1, schedule="step:50:0.9")
    neighbours: int
    within: float | Literal["std"] | None

    def _declare(self, tile_px: int, bins: int, likelihood: Likelihood, n_views: int) -> None:
        self.inputs = {"tiles": Tiles(px=tile_px), "grid_xy": Positions(kind="grid", bins=bins)}
        if likelihood is None:
            self.targets = {"expression": self.targets["expression"]}
        self.likelihood, self.n_views = likelihood, n_views

    def _add_count_heads(self, dim: int, n_genes: int) -> None:
        if self.likelihood == "nb":
            self.hr, self.hp = nn.Linear(dim, n_genes), nn.Linear(dim, n_genes)
        elif self.likelihood == "zinb":
            self.mean, self.disp, self.pi = (nn.Sequential(nn.Linear(dim, n_genes)) for _ in range(3))
        if self.n_views:
            self.coef = nn.Sequential(nn.Linear(dim, dim), nn.ReLU(), nn.Linear(dim, 1))

    def prepare(self, *, tiles: Tensor, grid_xy: Tensor) -> dict[str, Tensor]:
        """Pixel values from 0 to 255, width before height, one slide per batch; graph on array positions."""
        return {
            "patches": tiles.transpose(-1, -2).float()[None],
            "centers": grid_xy[None],
            "adj": nearest_graph(grid_xy, self.neighbours, within=self.within),
        }

    def hidden(self, patches: Tensor, centers: Tensor, adj: Tensor) -> Tensor:
        """State of each spot before the heads, float32 (spots, dim)."""
        raise NotImplementedError

    def forward(
        self, patches: Tensor, centers: Tensor, adj: Tensor, aug: bool = False
    ) -> tuple[Tensor, tuple[Tensor, ...] | None, Tensor]:
        """Expression (spots, genes), parameters of the counts' distribution, state before the heads.

        Parameters
        ----------
        patches
            (1, spots, 3, px, px).
        centers
            Array (column, row), int64 (1, spots, 2).
        adj
            Dense graph (spots, spots).
        aug
            Return the weight of this view, (spots, 1), in place of the state.
        """
        h = self.hidden(patches, centers, adj)
        return self.gene_head(h), self._counts(h), self.coef(h) if aug else h

    def _counts(self, h: Tensor) -> tuple[Tensor, ...] | None:
        if self.likelihood == "nb":
            return self.hr(h), self.hp(h)
        if self.likelihood == "zinb":
            mean, dispersion = self.mean(h).exp().clamp(1e-5, 1e6), F.softplus(self.disp(h)).clamp(1e-4, 1e4)
            return mean, dispersion, self.pi(h).sigmoid()
        return None

    def loss(self, targets: Mapping[str, Tensor], **prepared: Any) -> Tensor:
        """MSE, 0.25 of the counts' negative log-likelihood, and 0.5 of the MSE to the distilled views."""
        predicted, parameters, _ = self(**prepared)
        total = nan_mse(predicted, targets["expression"])
        if parameters is not None:
            total = total + 0.25 * count_loss(targets["counts"], parameters)
        if self.n_views:
            patches = prepared.pop("patches")
            views = [self(_view(patches), **prepared, aug=True) for _ in range(self.n_views)]
            distilled = distil(*(torch.stack([view[part] for view in views]) for part in (0, 2)))
            total = total + 0.5 * F.mse_loss(distilled, predicted)
        return total

    def fit(self, batches: Batches, recipe: Recipe) -> Iterator[dict[str, float]]:
        """Start the head at the mean of the targets, unless ``faithful``, then train."""
        if not self.faithful:
            start_at_mean(batches, self.gene_head[-1])
        yield from super().fit(batches, recipe)

    def predict(self, *, noise: Noise | None = None, **prepared: Tensor) -> Tensor:
        """Expression of the spots of the one slide, float32 (spots, genes)."""
        return self(**prepared)[0]


class SpotBlock(nn.Module):
    """Pre-norm attention (``attn``) and feed-forward (``ff``) among the spots of a slide."""

    def __init__(self, dim: int, *, heads: int, dim_head: int, mlp_dim: int, dropout: float) -> None:
        super().__init__()
        self.attn = PreNorm(dim, Attention(dim, heads=heads, dim_head=dim_head, dropout=dropout))
        self.ff = PreNorm(dim, FeedForward(dim, mlp_dim, dropout))

    def forward(self, x: Tensor) -> Tensor:
        """Spots (1, n, dim) of unchanged shape."""
        x = x + self.attn(x)
        return x + self.ff(x)


def _view(patches: Tensor) -> Tensor:
    """One random change of colour, angle and side, the same for all patches of the slide."""
    transforms = safe_import("torchvision.transforms")
    change = transforms.Compose(
        [transforms.RandomGrayscale(0.1), transforms.RandomRotation(90), transforms.RandomHorizontalFlip(0.2)]
    )
    return change(patches[0])[None]


def distil(predicted: Tensor, weight: Tensor) -> Tensor:
    """Mean of views (views, spots, genes), weighted per spot by the softmax of (views, spots, 1)."""
    return (weight.softmax(0) * predicted).sum(0)


def count_loss(counts: Tensor, parameters: tuple[Tensor, ...]) -> Tensor:
    """Negative log-likelihood of the counts of a slide under a ZINB (mean, dispersion, dropout) or NB (r, p)."""
    if len(parameters) == 2:
        r, p = parameters
        return nb_loss(counts, r, p)
    total = counts.nansum(1)
    mean, dispersion, dropout = parameters
    return zinb_loss(counts, mean, dispersion, dropout, total / total.median().clamp(min=1))


def zinb_loss(counts: Tensor, mean: Tensor, dispersion: Tensor, dropout: Tensor, size_factor: Tensor) -> Tensor:
    """Zero-inflated negative binomial, mean over measured entries; ``size_factor`` (spots,) scales the mean."""
    known, c, eps = counts.isfinite(), counts.nan_to_num(), 1e-10
    m, t = mean * size_factor[:, None], dispersion
    zero = -torch.log(dropout + (1 - dropout) * (t / (t + m + eps)).pow(t) + eps)
    positive = (
        torch.lgamma(t + eps)
        + torch.lgamma(c + 1)
        - torch.lgamma(c + t + eps)
        + (t + c) * torch.log1p(m / (t + eps))
        + c * (torch.log(t + eps) - torch.log(m + eps))
        - torch.log(1 - dropout + eps)
    )
    return torch.where(c <= 1e-8, zero, positive)[known].mean()


def nb_loss(counts: Tensor, r: Tensor, p: Tensor) -> Tensor:
    """Negative binomial from log r and logit p, sum over measured genes and mean over spots."""
    known, c = counts.isfinite(), counts.nan_to_num()
    likelihood = torch.lgamma(r.exp() + c) - torch.lgamma(r.exp()) + p * c - F.softplus(p) * (c + r.exp())
    return -torch.where(known, likelihood, torch.zeros_like(c)).sum(1).mean()

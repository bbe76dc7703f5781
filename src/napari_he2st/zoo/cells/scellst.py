"""sCellST: expression of single cells learned from spots alone (Chadoutaud et al., bioRxiv 2024.11.07.622225)."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any, Literal

import torch
from torch import Tensor, nn

from napari_he2st.zoo.base import Expression, Output, Predictor, Spots
from napari_he2st.zoo.blocks.graph import scatter_mean
from napari_he2st.zoo.blocks.losses import nan_mse
from napari_he2st.zoo.encoders.build import spec_of
from napari_he2st.zoo.inputs import Features
from napari_he2st.zoo.recipe import Recipe

_SLOPE = 0.01
_SHARPNESS = 20.0
_TINY = 1e-8


class SCellST(Predictor):
    """A network for single cells, whose mean over the cells of a spot is what was measured there.

    Parameters
    ----------
    n_genes
        Size of the panel.
    encoder, feature_dim
        Of the crop around each nucleus, and the width of its features (by default the encoder's).
    dims, dropout
        Hidden layers, and the share that is dropped after each.
    likelihood
        None: squared error of scaled expression. ``"nb"``: counts with a negative binomial whose mean is the
        size factor times the cells' mean; ``"nb-total"``: whose number of failures is.
    tile_px, tile_mpp
        Of the crop: 48 px at 0.25 µm/px.
    """

    unit = Spots()
    targets = {"expression": Expression("log1p_cp10k", panel="hvg:1000")}
    outputs = {"expression": Output(per="cell")}
    recipe = Recipe("adamw", lr=1e-4, epochs=400, batch_size=128)

    def __init__(
        self,
        n_genes: int,
        *,
        encoder: str = "resnet50",
        feature_dim: int | None = None,
        dims: tuple[int, ...] = (256, 256, 256),
        dropout: float = 0.1,
        likelihood: Literal["nb", "nb-total"] | None = None,
        tile_px: int = 48,
        tile_mpp: float = 0.25,
    ) -> None:
        super().__init__()
        self.inputs = {"features": Features(encoder=encoder, px=tile_px, mpp=tile_mpp)}
        if likelihood is not None:
            self.targets = {"expression": Expression("counts", panel="hvg:1000")}
        self.likelihood = likelihood
        self.gene_predictor = nn.Module()
        if likelihood is not None:
            self.gene_predictor.gene_param = nn.Parameter(torch.zeros(n_genes))
        widths = (feature_dim or spec_of(encoder).dim, *dims)
        layers = [
            nn.Sequential(nn.Linear(a, b), nn.LeakyReLU(_SLOPE), nn.Dropout(dropout)) for a, b in pairwise(widths)
        ]
        last = nn.Sequential(nn.Linear(widths[-1], n_genes), nn.Softplus(beta=_SHARPNESS))
        self.gene_predictor.model = nn.Sequential(*layers, last)

    def forward(self, features: Tensor) -> Tensor:
        """Expression (cells, n_genes) of cells (cells, feature_dim)."""
        return self.gene_predictor.model(features)

    def loss(self, targets: Mapping[str, Tensor], **prepared: Any) -> Tensor:
        """Objective of the spots whose cells these are."""
        measured = targets["expression"]
        owner = targets.get("owner", torch.arange(len(measured), device=measured.device))
        own = owner >= 0
        bags = scatter_mean(self(prepared["features"])[own], owner[own], len(measured))
        seen = owner[own].bincount(minlength=len(measured)) > 0
        if self.likelihood is None:
            return nan_mse(bags[seen], measured[seen])
        counts = measured[seen]
        total = counts.nansum(dim=1, keepdim=True)
        return self.negative_log_likelihood(bags[seen], counts, total / total.median().clamp(min=1))

    def distribution(self, bags: Tensor, size_factor: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and number of failures of the counts of spots, each (n, n_genes)."""
        scaled, parameter = size_factor * bags, self.gene_predictor.gene_param
        if self.likelihood == "nb-total":
            return scaled * parameter.exp(), scaled
        return scaled, parameter.exp().expand_as(scaled)

    def negative_log_likelihood(self, bags: Tensor, counts: Tensor, size_factor: Tensor) -> Tensor:
        """Of counts (n, n_genes), summed over genes; the mean over spots."""
        mean, failures = self.distribution(bags, size_factor)
        known = torch.isfinite(counts)
        y = torch.where(known, counts, torch.zeros_like(counts)).trunc()
        log = (
            failures * ((failures + _TINY).log() - (failures + mean + _TINY).log())
            + y * ((mean + _TINY).log() - (failures + mean + _TINY).log())
            + (y + failures).lgamma()
            - failures.lgamma()
            - (y + 1).lgamma()
        )
        return -(log * known).sum(dim=1).mean()

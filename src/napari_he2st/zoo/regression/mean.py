"""The mean of each gene over the training spots: what any predictor has to beat."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from napari_he2st.zoo.base import Batches, Predictor
from napari_he2st.zoo.inputs import Index
from napari_he2st.zoo.recipe import Recipe


class Mean(Predictor):
    """Predicts each gene's training mean everywhere; NaN for a gene that was measured nowhere.

    Parameters
    ----------
    n_genes
        Size of the panel.
    """

    mean: Tensor
    inputs = {"index": Index()}
    recipe = Recipe(epochs=1)

    def __init__(self, n_genes: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.full((n_genes,), torch.nan))

    def forward(self, index: Tensor) -> Tensor:
        """Float32, shape (n, genes), for the rows (n,) of a batch."""
        return self.mean.expand(len(index), -1)

    def fit(self, batches: Batches, recipe: Recipe) -> Iterator[dict[str, Any]]:
        """Average measured targets in one pass."""
        total = torch.zeros(len(self.mean), dtype=torch.float64)
        known = torch.zeros_like(total)
        for targets, _ in batches:
            values = targets["expression"].cpu().double()
            total += values.nansum(0)
            known += values.isfinite().sum(0)
        self.mean.copy_(total / known)
        yield {"epoch": 0}

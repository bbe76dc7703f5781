"""A bank of training spots, and the search for those that look like a given one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from napari_he2st.zoo.blocks.losses import nan_mse, spot_pcc_loss

Bank = dict[str, np.ndarray]
"""Float32 ``features`` (m, dim) and ``expression`` (m, genes), int64 ``slide`` (m,)."""


BANK = "features, expression and slide of the training spots, one row each"
"""What ``extras["reference"]`` is, for importers of checkpoints."""


def empty_bank(n: int, n_features: int, n_genes: int) -> Bank:
    """A bank of ``n`` zeros, for a predictor that has not been trained."""
    zeros = np.zeros((n, n_features), np.float32), np.zeros((n, n_genes), np.float32)
    return {"features": zeros[0], "expression": zeros[1], "slide": np.zeros(n, np.int64)}


def fill_bank(batches: Iterable[tuple[Mapping[str, Tensor], Mapping[str, Any]]], features: str) -> Bank:
    """All spots of an epoch; ``features`` names the prepared tensor that holds theirs. Unmeasured genes are 0."""
    parts: dict[str, list[np.ndarray]] = {"features": [], "expression": [], "slide": []}
    for targets, prepared in batches:
        parts["features"].append(prepared[features].detach().cpu().numpy())
        parts["expression"].append(targets["expression"].nan_to_num().cpu().numpy())
        parts["slide"].append(targets["slide"].cpu().numpy())
    return {name: np.concatenate(values) for name, values in parts.items()}


def nearest_exemplars(
    query: Tensor, bank: Bank, k: int, p: float, slide: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Distance and row of the ``k`` spots of a bank nearest to each query, both (n, k), nearest first.

    Parameters
    ----------
    query
        Features, (n, dim).
    bank
        Where to search.
    k, p
        Number of spots, and order of the norm.
    slide
        Slide of each query while training: its own spots are left out, or where the bank has but that one
        slide, those that are the query itself.
    """
    distance = torch.cdist(query, torch.from_numpy(bank["features"]).to(query), p=p)
    if slide is not None:
        owner = torch.from_numpy(bank["slide"]).to(query.device)
        own = owner == slide[:, None]
        distance = distance.masked_fill(distance == 0 if own.all() else own, torch.inf)
    return distance.topk(min(k, distance.shape[1]), largest=False)


def exemplar_loss(predicted: Tensor, target: Tensor) -> Tensor:
    """MSE plus half of 1 − mean over genes of the correlation across spots."""
    return nan_mse(predicted, target) + 0.5 * spot_pcc_loss(predicted.T, target.T)

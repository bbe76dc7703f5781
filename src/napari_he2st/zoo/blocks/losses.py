"""Losses that two or more systems share."""

from __future__ import annotations

import torch
from torch import Tensor


def nan_mse(predicted: Tensor, target: Tensor) -> Tensor:
    """Mean squared error over entries whose target is a number; 0 where there are none."""
    known = torch.isfinite(target)
    difference = torch.where(known, predicted - torch.nan_to_num(target), torch.zeros_like(predicted))
    return difference.square().sum() / known.sum().clamp(min=1)


def spot_pcc_loss(predicted: Tensor, target: Tensor) -> Tensor:
    """1 − mean over spots of the Pearson correlation across genes, over genes whose target is a number."""
    known = torch.isfinite(target)
    n = known.sum(1, keepdim=True).clamp(min=1)

    def centred(x: Tensor) -> Tensor:
        x = torch.where(known, x, torch.zeros_like(x))
        return torch.where(known, x - x.sum(1, keepdim=True) / n, torch.zeros_like(x))

    p, t = centred(predicted), centred(target)
    return 1 - ((p * t).sum(1) / (p.square().sum(1) * t.square().sum(1) + 1e-8).sqrt()).mean()

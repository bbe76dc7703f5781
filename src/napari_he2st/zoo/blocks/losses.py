"""Losses that two or more systems share."""

from __future__ import annotations

import torch
from torch import Tensor


def nan_mse(predicted: Tensor, target: Tensor) -> Tensor:
    """Mean squared error over entries whose target is a number; 0 where there are none."""
    known = torch.isfinite(target)
    difference = torch.where(known, predicted - torch.nan_to_num(target), torch.zeros_like(predicted))
    return difference.square().sum() / known.sum().clamp(min=1)

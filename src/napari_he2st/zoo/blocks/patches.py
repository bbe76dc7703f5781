"""Random parts of a slide, for training."""

from __future__ import annotations

import torch
from torch import Tensor


def random_patch(positions: Tensor, low: int, high: int) -> Tensor:
    """Rows of the spots nearest to a random one, int64: at least ``low`` and less than ``high``, where there are."""
    n = len(positions)
    size = min(n, low + int(max(min(high, n) - low, 0) * torch.rand(())))
    centre = positions[torch.randint(n, (), device=positions.device)]
    return (positions - centre).norm(dim=-1).topk(size, largest=False).indices

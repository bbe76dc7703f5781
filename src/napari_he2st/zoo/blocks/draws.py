"""Random numbers of a batch as tensors."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from napari_he2st.core.noise import Noise


def normal(noise: Noise | None, like: Tensor, *tail: int) -> Tensor:
    """Standard normal, (rows of ``like``, *tail), on its device; without ``noise``, that of seed 0."""
    return torch.from_numpy(_given(noise, like).normal(*tail)).to(like.device)


def uniform(noise: Noise | None, like: Tensor, *tail: int) -> Tensor:
    """Uniform in [0, 1), as :func:`normal`."""
    return torch.from_numpy(_given(noise, like).uniform(*tail)).to(like.device)


def _given(noise: Noise | None, like: Tensor) -> Noise:
    return noise or Noise(seed=0, draw=0, rows=np.arange(len(like), dtype=np.intp))

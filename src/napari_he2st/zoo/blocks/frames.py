"""Frame averaging: what is computed from points becomes blind to how they are turned (Puny et al., ICLR 2022)."""

from __future__ import annotations

import torch
from torch import Tensor

N_FRAMES = 4
_SIGNS = ((-1.0, -1.0), (-1.0, 1.0), (1.0, -1.0), (1.0, 1.0))


def in_frames(points: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Points of the plane in the four frames of their principal axes.

    Parameters
    ----------
    points
        Float (batch, n, 2).
    mask
        Bool (batch, n); points that do not count are projected as they are, without being centred.

    Returns
    -------
    projected
        (batch, 4, n, 2): coordinates along the axes of smaller and of larger scatter, under each flip of their signs.
    centre
        (batch, 2): mean of the points that count.
    """
    if mask is None:
        centre = points.mean(1)
        centred = points - centre[:, None]
        counted = centred
    else:
        weight = mask.unsqueeze(-1).to(points)
        centre = (points * weight).sum(1) / weight.sum(1).clamp(min=1)
        centred = points - centre[:, None] * weight
        counted = centred * weight
    axes = torch.linalg.eigh(counted.transpose(1, 2) @ counted, UPLO="U").eigenvectors
    signs = points.new_tensor(_SIGNS)
    return (centred @ axes)[:, None] * signs[None, :, None], centre

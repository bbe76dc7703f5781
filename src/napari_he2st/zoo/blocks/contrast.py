"""Image and expression in one space: the heads that lead there and the losses that bring pairs together.

Embeddings are float32 (n, dim); row i of both kinds is the same spot.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class ProjectionHead(nn.Module):
    """BLEEP's head: a linear map, a residual layer on it, and normalisation.

    Parameters
    ----------
    n_in, dim
        Features before and after.
    dropout
        Inside the residual layer.
    eps
        Of the normalisation.
    """

    def __init__(self, n_in: int, dim: int, *, dropout: float = 0.0, eps: float = 1e-5) -> None:
        super().__init__()
        self.projection = nn.Linear(n_in, dim)
        self.fc = nn.Linear(dim, dim)
        self.dropout = nn.Dropout(dropout)
        self.layer_norm = nn.LayerNorm(dim, eps=eps)

    def forward(self, x: Tensor) -> Tensor:
        """Embeddings (…, dim), from (…, n_in)."""
        projected = self.projection(x)
        return self.layer_norm(self.dropout(self.fc(F.gelu(projected))) + projected)


def soft_clip_losses(
    images: Tensor,
    spots: Tensor,
    temperature: float | Tensor = 1.0,
    *,
    target_temperature: float | Tensor | None = None,
    damping: float = 1.0,
) -> Tensor:
    """Cross entropy of each spot with targets that know which spots of the batch are alike, (n,).

    The target of a pair is the softmax of the mean of its similarity among images and among spots. Gradients
    flow through the targets, and their transpose is not normalised again, both as published (Xie et al. 2023).

    Parameters
    ----------
    images, spots
        Embeddings.
    temperature
        Divides the similarity of images to spots.
    target_temperature
        Divides that of the targets, by default the same.
    damping
        Divides the similarity of different spots in the targets (as in CarHE).
    """
    logits = spots @ images.T / temperature
    alike = (images @ images.T + spots @ spots.T) / 2
    own = torch.eye(len(alike), dtype=torch.bool, device=alike.device)
    alike = torch.where(own, alike, alike / damping)
    targets = (alike / (temperature if target_temperature is None else target_temperature)).softmax(-1)
    return (_soft_cross_entropy(logits, targets) + _soft_cross_entropy(logits.T, targets.T)) / 2


def _soft_cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    return -(targets * logits.log_softmax(-1)).sum(-1)


def pair_loss(images: Tensor, spots: Tensor, temperature: float | Tensor = 1.0) -> Tensor:
    """Cross entropy of finding a spot's own image, and an image's own spot, in the batch (InfoNCE)."""
    logits = spots @ images.T / temperature
    own = torch.arange(len(logits), device=logits.device)
    return (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2

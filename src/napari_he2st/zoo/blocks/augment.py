"""Random changes to tiles while training."""

from __future__ import annotations

import torch
from torch import Tensor

from napari_he2st.zoo.guard import safe_import


def jitter_flip_turn(images: Tensor, *, jitter: float = 0.5, degrees: float = 180.0) -> Tensor:
    """Each image under its own change of brightness, contrast and saturation, a flip and a turn.

    Parameters
    ----------
    images
        (n, 3, px, px) in 0 … 1.
    jitter
        Largest relative change.
    degrees
        Largest turn, to either side; what comes into view is black.
    """
    transforms = safe_import("torchvision.transforms")
    change = transforms.Compose(
        [
            transforms.ColorJitter(jitter, jitter, jitter),
            transforms.RandomHorizontalFlip(),
            transforms.RandomRotation(degrees),
        ]
    )
    return torch.stack([change(image) for image in images])

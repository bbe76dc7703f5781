"""Random changes to tiles while training."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

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


def crop_flip_turn(images: Tensor, px: int, area: tuple[float, float] | None = None) -> Tensor:
    """A square of each image from somewhere in it, perhaps flipped, turned by quarters.

    Parameters
    ----------
    images
        (n, channels, side, side).
    px
        Width of what is returned.
    area
        Between which shares of the image's area the square has, before it is brought to ``px``; None for
        squares of ``px`` as they are.
    """
    side = images.shape[-1]
    views = []
    for image in images:
        share = 0.0 if area is None else float(torch.empty(()).uniform_(*area))
        width = px if area is None else max(1, round(side * share**0.5))
        top, left = (int(torch.randint(side - width + 1, ())) for _ in range(2))
        view = image[:, top : top + width, left : left + width]
        if width != px:
            view = F.interpolate(view[None], (px, px), mode="bilinear", antialias=width > px, align_corners=False)[0]
        if torch.rand(()) < 0.5:
            view = view.flip(-1)
        views.append(view.rot90(int(torch.randint(4, ())), (-2, -1)))
    return torch.stack(views)


def stain_jitter(images: Tensor, strength: float = 0.3) -> Tensor:
    """The optical density of each channel of each image, in 0 … 1, times a factor between 1 − and 1 + ``strength``."""
    factors = 1 + strength * (2 * torch.rand(len(images), images.shape[1], 1, 1, device=images.device) - 1)
    return images.clamp(min=1e-3) ** factors

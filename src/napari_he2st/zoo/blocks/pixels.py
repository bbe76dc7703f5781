"""Standardising the pixels of tiles."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor

IMAGENET: Mapping[str, Sequence[float]] = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
"""Statistics of ImageNet, with which most published networks standardise."""

PIXELS = "mean and std of the training pixels, three numbers in 0 … 1 each"
"""What ``extras["pixels"]`` is, for importers of checkpoints."""


def standardise(tiles: Tensor, pixels: Mapping[str, Sequence[float]] | None = IMAGENET) -> Tensor:
    """Tiles as floats, (tiles / 255 − mean) / std.

    Parameters
    ----------
    tiles
        RGB, uint8, shape (…, 3, height, width).
    pixels
        Mean and standard deviation of each channel, in 0 … 1; None leaves the tiles in 0 … 1.
    """
    x = tiles.float() / 255
    if pixels is None:
        return x
    mean, std = (x.new_tensor(pixels[name]).view(3, 1, 1) for name in ("mean", "std"))
    return (x - mean) / std


def pixel_statistics(batches: Iterable[Tensor], *, per_image: bool = False) -> dict[str, list[float]]:
    """Mean and standard deviation of each channel over images.

    Parameters
    ----------
    batches
        Images (n, 3, height, width) in 0 … 1.
    per_image
        Average the standard deviation within images, so that differences between images do not count.
    """
    n, mean, second = 0, torch.zeros(3, dtype=torch.float64), torch.zeros(3, dtype=torch.float64)
    for batch in batches:
        images = batch.double().cpu()
        n += len(images)
        mean += images.mean((2, 3)).sum(0)
        second += (images.std((2, 3)) if per_image else images.square().mean((2, 3))).sum(0)
    mean, second = mean / n, second / n
    std = second if per_image else (second - mean.square()).clamp(min=0).sqrt()
    return {"mean": mean.tolist(), "std": std.clamp(min=1e-6).tolist()}

"""The eight symmetries of a square image: averaging predictions over them, and drawing one for training."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def eight_symmetries(images: Tensor) -> list[Tensor]:
    """All rotations and reflections of square images (…, px, px), the images themselves first.

    The innermost step is a quarter turn counter-clockwise, then a vertical, then a horizontal flip.
    """
    turned = [images, torch.rot90(images, 1, (-2, -1))]
    upright = [*turned, *(view.flip(-2) for view in turned)]
    return [*upright, *(view.flip(-1) for view in upright)]


def mean_over_symmetries(network: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    """Mean of what a network says of the eight symmetries of its images."""
    total = sum(network(view) for view in eight_symmetries(images))
    return total / 8  # type: ignore[return-value, operator]


def random_symmetry(images: Tensor) -> Tensor:
    """Each image (n, …, px, px) under a symmetry of its own, all eight equally likely."""
    return random_symmetries(images)[0]


def random_symmetries(*stacks: Tensor) -> list[Tensor]:
    """Several stacks of images, each (n, …, px, px): row i of all of them under the same random symmetry."""
    drawn = torch.randint(8, (len(stacks[0]),))
    results = []
    for images in stacks:
        result = torch.empty_like(images)
        for number, view in enumerate(eight_symmetries(images)):
            here = (drawn == number).to(images.device)
            result[here] = view[here]
        results.append(result)
    return results

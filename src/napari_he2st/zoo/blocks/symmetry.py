"""The eight symmetries of a square image: averaging predictions over them, and drawing one for training."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def symmetry(images: Tensor, number: int) -> Tensor:
    """One of the eight rotations and reflections of square images (…, px, px); 0 is the images themselves.

    Bit by bit of ``number``, the lowest first: a quarter turn counter-clockwise, a vertical flip, a
    horizontal flip.
    """
    x = torch.rot90(images, 1, (-2, -1)) if number & 1 else images
    x = x.flip(-2) if number & 2 else x
    return x.flip(-1) if number & 4 else x


def eight_symmetries(images: Tensor) -> list[Tensor]:
    """All rotations and reflections of square images, in the order of :func:`symmetry`."""
    return [symmetry(images, number) for number in range(8)]


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
        for number in drawn.unique().tolist():
            here = (drawn == number).to(images.device)
            result[here] = symmetry(images[here], number)
        results.append(result)
    return results

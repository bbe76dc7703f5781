from __future__ import annotations

import torch

from napari_he2st.zoo.blocks.symmetry import (
    eight_symmetries,
    mean_over_symmetries,
    random_symmetries,
    random_symmetry,
)

IMAGES = torch.rand(40, 3, 6, 6, generator=torch.Generator().manual_seed(0))


def test_the_eight_views_differ_and_keep_the_pixels() -> None:
    views = eight_symmetries(IMAGES[:1])
    assert len({tuple(view.flatten().tolist()) for view in views}) == 8
    assert all(torch.equal(view.flatten().sort().values, IMAGES[:1].flatten().sort().values) for view in views)


def test_the_mean_does_not_depend_on_how_the_slide_lay() -> None:
    weights = torch.rand(3, 6, 6)

    def network(x: torch.Tensor) -> torch.Tensor:
        return (x * weights).sum((1, 2, 3))

    turned = torch.rot90(IMAGES, 1, (-2, -1)).flip(-1)
    torch.testing.assert_close(mean_over_symmetries(network, IMAGES), mean_over_symmetries(network, turned))


def test_every_image_gets_its_own_symmetry() -> None:
    torch.manual_seed(0)
    turned = random_symmetry(IMAGES)
    numbers = [
        next(k for k, view in enumerate(eight_symmetries(image[None])) if torch.equal(view[0], result))
        for image, result in zip(IMAGES, turned, strict=True)
    ]
    assert set(numbers) == set(range(8))


def test_stacks_are_turned_together() -> None:
    means = torch.nn.functional.avg_pool2d(IMAGES, 2)
    turned, pooled = random_symmetries(IMAGES, means)
    torch.testing.assert_close(torch.nn.functional.avg_pool2d(turned, 2), pooled)

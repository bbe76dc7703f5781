from __future__ import annotations

import pytest
import torch

from napari_he2st.zoo.blocks.pixels import IMAGENET, pixel_statistics, standardise

TILES = torch.randint(0, 256, (10, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_white_is_standardised() -> None:
    white = standardise(torch.full((1, 3, 2, 2), 255, dtype=torch.uint8))
    for channel in range(3):
        wanted = (1 - IMAGENET["mean"][channel]) / IMAGENET["std"][channel]
        assert white[0, channel].unique().tolist() == pytest.approx([wanted], rel=1e-6)


def test_none_leaves_tiles_between_0_and_1() -> None:
    torch.testing.assert_close(standardise(TILES, None), TILES / 255)


def test_statistics_standardise_what_they_were_taken_from() -> None:
    pixels = pixel_statistics(part / 255 for part in TILES.split(3))
    x = standardise(TILES, pixels)
    torch.testing.assert_close(x.mean((0, 2, 3)), torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(x.std((0, 2, 3), correction=0), torch.ones(3), atol=1e-5, rtol=0)


def test_differences_between_images_do_not_count_per_image() -> None:
    flat = torch.stack([torch.zeros(3, 4, 4), torch.ones(3, 4, 4)])
    assert pixel_statistics([flat])["std"] == pytest.approx([0.5] * 3)
    assert max(pixel_statistics([flat], per_image=True)["std"]) < 1e-5

"""Pixel sizes that other things suggest, and what speaks against one."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from tests.tiny.slides import tissue_image, write_slide

from napari_he2st.core.errors import SlideError
from napari_he2st.data.slides import Slide
from napari_he2st.data.slides.nucleus_size import nucleus_px
from napari_he2st.data.slides.proposals import doubts, from_distance, from_nuclei, from_objective, from_spots, proposals


def test_two_points_of_known_distance() -> None:
    found = from_distance(100, (10, 20), (130, 180))
    assert (found.mpp, found.source) == (0.5, "two points 100 µm apart")
    with pytest.raises(SlideError, match="no pixel size"):
        from_distance(100, (10, 20), (10, 20))


def test_objective() -> None:
    assert from_objective(40).mpp == 0.25
    with pytest.raises(SlideError, match="above zero"):
        from_objective(0)


@pytest.mark.parametrize("hexagonal", [False, True])
def test_spot_pitch(hexagonal: bool) -> None:
    index = np.stack(np.meshgrid(np.arange(12.0), np.arange(10.0)), -1).reshape(-1, 2)
    if hexagonal:
        index = np.stack([index[:, 0] + 0.5 * (index[:, 1] % 2), index[:, 1] * 3**0.5 / 2], 1)
    found = from_spots(index * 200 + 17, 100)
    assert found is not None
    assert found.mpp == pytest.approx(0.5)
    assert from_spots(index[:2], 100) is None


def nuclei(diameter_px: float, n: int = 400) -> np.ndarray:
    """Violet discs on pink: uint8 (1600, 1600, 3)."""
    rng = np.random.default_rng(0)
    image = np.full((1600, 1600, 3), (225, 160, 200), np.uint8)
    for x, y in rng.uniform(50, 1550, (n, 2)):
        cv2.circle(image, (int(x), int(y)), round(diameter_px / 2), (90, 60, 150), -1, cv2.LINE_AA)
    return cv2.GaussianBlur(image, (0, 0), 1)


@pytest.mark.parametrize("diameter_px", [12, 28])
def test_nuclei_of_known_size(tmp_path: Path, diameter_px: int) -> None:
    Image.fromarray(nuclei(diameter_px)).save(tmp_path / "a.png")
    with Slide.open(tmp_path / "a.png", mpp=1) as slide:
        assert nucleus_px(slide) == pytest.approx(diameter_px, rel=0.2)
        found = from_nuclei(slide)
    assert found is not None
    assert found.fits(6.5 / diameter_px)


def test_without_nuclei_nothing_is_proposed(tmp_path: Path) -> None:
    Image.fromarray(np.full((400, 400, 3), 240, np.uint8)).save(tmp_path / "a.png")
    with Slide.open(tmp_path / "a.png", mpp=1) as slide:
        assert from_nuclei(slide) is None


@pytest.mark.needs_data
def test_nuclei_of_real_sections(her2st: Path) -> None:
    with Slide.open(her2st / "ST-imgs" / "C" / "C5" / "5714_HE_BT_E1.jpg", mpp=1) as slide:
        found = from_nuclei(slide)
    assert found is not None
    assert found.mpp == pytest.approx(0.69, rel=0.25)


def test_what_the_slide_suggests_is_listed_apart(tmp_path: Path) -> None:
    path = write_slide(tmp_path / "a.svs", tissue_image(), kind="svs", mpp=0.25)
    with Slide.open(path, mpp=0.5) as slide:
        found = proposals(slide)
    assert [(p.source, p.mpp) for p in found] == [("Aperio MPP", 0.25), ("objective 20×", 0.5)]
    (doubt,) = doubts(0.5, (600, 500), found)
    assert doubt == "The Aperio MPP suggests about 0.25 µm, not 0.5."
    assert doubts(0.25, (600, 500), found)[0].startswith("The objective 20× suggests about 0.5 µm")


def test_impossible_sizes_of_the_scan() -> None:
    assert doubts(0.25, (100_000, 80_000), []) == []
    assert "larger than a microscope slide" in doubts(2.5, (100_000, 80_000), [])[0]
    assert "only 20 µm wide" in doubts(0.01, (2000, 1000), [])[0]

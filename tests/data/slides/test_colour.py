"""Colour profiles: where they come from, what they change, and what stays as it is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageCms
from tests.tiny.slides import SCANNER, tissue_image, write_slide

from napari_he2st.data.slides import Slide, probe
from napari_he2st.data.slides.colour import ToSrgb, profile_name, to_srgb

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


@pytest.fixture
def image() -> np.ndarray:
    return tissue_image(300, 200)


@pytest.fixture
def path(tmp_path: Path, image: np.ndarray) -> Path:
    return write_slide(tmp_path / "a.tif", image, levels=2, iccprofile=SCANNER)


def expected(image: np.ndarray) -> np.ndarray:
    """The same conversion by Pillow."""
    source, target = (ImageCms.getOpenProfile(p) for p in _files(SCANNER, SRGB))
    way = ImageCms.buildTransform(source, target, "RGB", "RGB", renderingIntent=1)
    return np.asarray(ImageCms.applyTransform(Image.fromarray(image), way))


def _files(*profiles: bytes):
    import io

    return [io.BytesIO(profile) for profile in profiles]


def test_every_way_of_reading_gives_srgb(path: Path, image: np.ndarray) -> None:
    wanted = expected(image).astype(int)
    assert np.abs(wanted - image).mean() > 5
    with Slide.open(path) as slide:
        assert slide.colours.startswith("icc-")
        assert np.abs(slide.read(0, 0, 300, 200, mpp=0.5) - wanted).max() <= 2
        assert np.abs(np.asarray(slide.pyramid()[0]) - wanted).max() <= 2
        (batch,) = slide.read_tiles([[100, 100], [200, 100]], 64, 0.5)
        assert np.abs(batch.tiles[0] - wanted[68:132, 68:132]).max() <= 2
        assert np.abs(slide.thumbnail(300) - wanted).max() <= 2
        assert (slide.read(-50, -50, 20, 20, mpp=0.5) == 255).all()  # outside stays white


def test_it_can_be_switched_on_an_open_slide(path: Path, image: np.ndarray, tmp_path: Path) -> None:
    with Slide.open(path) as slide:
        off = slide.by_profile(False)
        assert (slide.profiled, off.profiled, off.original is slide) == (True, False, True)
        assert (off.read(0, 0, 300, 200, mpp=0.5) == image).all()
        assert off.by_profile(True).colours == slide.colours
    with Slide.open(write_slide(tmp_path / "b.tif", image)) as slide:
        assert slide.profiled is None
        assert slide.by_profile(True).colours == "as stored"


def test_it_can_be_left_out(path: Path, image: np.ndarray) -> None:
    with Slide.open(path, icc=False) as slide:
        assert slide.colours == "as stored"
        assert (slide.read(0, 0, 300, 200, mpp=0.5) == image).all()


def test_facts_name_the_profile(path: Path) -> None:
    assert probe(path)["icc"] == "RGB built-in"


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif"])
def test_plain_images_have_profiles_too(tmp_path: Path, image: np.ndarray, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(image).save(path, icc_profile=SCANNER, **({"quality": 95} if suffix == "jpg" else {}))
    with Slide.open(path, mpp=0.5) as slide:
        assert slide.colours.startswith("icc-")
        difference = np.abs(slide.read(0, 0, 300, 200, mpp=0.5).astype(int) - expected(image)).mean()
    assert difference < 4


def test_what_is_srgb_already_is_not_touched(tmp_path: Path, image: np.ndarray) -> None:
    assert to_srgb(SRGB) is None
    with Slide.open(write_slide(tmp_path / "a.tif", image, iccprofile=SRGB)) as slide:
        assert slide.colours == "as stored"
        assert slide.info()["icc"] == "sRGB built-in"


@pytest.mark.parametrize("icc", [b"", b"broken", SCANNER[:200]])
def test_a_damaged_profile_changes_nothing(tmp_path: Path, image: np.ndarray, icc: bytes) -> None:
    assert to_srgb(icc) is None
    assert profile_name(icc) == ""
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, image, tile=(64, 64), photometric="rgb", **({"iccprofile": icc} if icc else {}))
    with Slide.open(path, mpp=0.5) as slide:
        assert (slide.read(0, 0, 300, 200, mpp=0.5) == image).all()


def test_profiles_of_other_colour_spaces_are_left_alone() -> None:
    assert to_srgb(ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()) is None


def test_recoloured_slides_share_their_file(path: Path, image: np.ndarray) -> None:
    class Negative:
        key = "negative"

        def __call__(self, pixels: np.ndarray) -> np.ndarray:
            return 255 - pixels

    with Slide.open(path, icc=False) as slide:
        other = slide.recoloured(Negative())
        assert (other.colours, other.fingerprint) == ("negative", slide.fingerprint)
        assert (other.read(0, 0, 300, 200, mpp=0.5) == 255 - image).all()
        other.close()
        assert (slide.read(0, 0, 300, 200, mpp=0.5) == image).all()


def test_white_stays_white() -> None:
    assert (ToSrgb(SCANNER)(np.full((4, 4, 3), 255, np.uint8)) == 255).all()

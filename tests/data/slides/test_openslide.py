"""The OpenSlide reader, tried on files that our own reader reads as well."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
from tests.tiny.formats import write_vendor
from tests.tiny.slides import tissue_image, write_slide

from napari_he2st.core.errors import SlideError
from napari_he2st.data.slides import SLIDE_READERS, Slide
from napari_he2st.data.slides.formats.openslide import read_openslide
from napari_he2st.data.slides.source import DamagedSlideError, laid_on_white


@pytest.fixture
def openslide_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the TIFF reader out."""
    monkeypatch.setattr("napari_he2st.data.slides.opening.SLIDE_READERS", [SLIDE_READERS["openslide"]])


def test_readers_are_asked_from_the_fastest_to_the_most_general() -> None:
    assert [e.name for e in sorted(SLIDE_READERS, key=lambda e: e.facts["order"])] == [
        "ome-zarr",
        "tiff",
        "czi",
        "dicom",
        "openslide",
        "flat",
    ]


@pytest.mark.usefixtures("openslide_only")
def test_pixels_levels_and_streams(tmp_path: Path) -> None:
    image = tissue_image(2600, 1200)  # several blocks
    path = write_slide(tmp_path / "a.tif", image, compression="deflate", levels=2)
    with Slide.open(path) as slide:
        assert slide.format == "OpenSlide generic-tiff"
        assert slide.mpp == pytest.approx(0.5)
        assert [v.downsample for v in slide.levels] == [1, 2]
        assert (slide.read(900, 900, 400, 350, mpp=0.5)[:300] == image[900:1200, 900:1300]).all()
        assert [a.shape for a in slide.pyramid()] == [(1200, 2600, 3), (600, 1300, 3), (300, 650, 3)]
        centres = np.stack(np.meshgrid(np.arange(50, 2600, 100), np.arange(50, 1200, 100)), -1).reshape(-1, 2)
        before = slide.decoded
        tiles = np.concatenate([b.tiles for b in slide.read_tiles(centres, 100, 0.5)])
        assert slide.decoded - before == 3 * 2
    for (x, y), tile in zip(centres, tiles, strict=True):
        assert (tile == image[y - 50 : y + 50, x - 50 : x + 50]).all()


@pytest.mark.usefixtures("openslide_only")
def test_a_damaged_block_does_not_stop_the_run(tmp_path: Path) -> None:
    """OpenSlide refuses every call after an error; the reader opens the file anew."""
    path = write_slide(tmp_path / "a.tif", tissue_image(2600, 1024), compression="jpeg", levels=1)
    with tifffile.TiffFile(path) as tif:
        offset, size = tif.pages[0].dataoffsets[0], tif.pages[0].databytecounts[0]
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(b"\0" * size)
    with Slide.open(path) as slide:
        (batch,) = slide.read_tiles([[100, 100], [1500, 500], [200, 200], [2500, 500]], 64, 0.5, threads=1)
    assert batch.ok.tolist() == [False, True, False, True]


def test_transparent_pixels_are_white() -> None:
    """MRXS slides have areas that were not scanned."""
    rgba = np.array([[[10, 20, 30, 255], [0, 0, 0, 0], [0, 0, 0, 128]]], dtype=np.uint8)
    assert laid_on_white(rgba).tolist() == [[[10, 20, 30], [255, 255, 255], [127, 127, 127]]]


def test_huge_tiles_are_refused_before_openslide_ends_the_process(tmp_path: Path) -> None:
    path = write_vendor(tmp_path / "a.scn", tissue_image(300, 200), "leica")
    with tifffile.TiffFile(path, mode="r+b") as tif:
        tif.pages[0].tags["TileLength"].overwrite(2**31 - 1)
    with pytest.raises(DamagedSlideError, match="tiles of 64 × 2147483647"):
        Slide.open(path, mpp=0.5)


def test_what_openslide_does_not_know(tmp_path: Path) -> None:
    (tmp_path / "a.mrxs").write_text("nothing")
    with pytest.raises(SlideError, match="not a format that OpenSlide knows"):
        read_openslide(tmp_path / "a.mrxs")

"""Files that are missing, cut off, damaged or lie about themselves."""

from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image
from tests.tiny.slides import tissue_image, write_shared_tables, write_slide

from napari_he2st.core.errors import SlideError
from napari_he2st.data.slides import Slide, probe
from napari_he2st.data.slides.source import DamagedSlideError, TileError


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write_slide(tmp_path / "a.tif", tissue_image(256, 256), compression="jpeg", levels=2)


def cut(path: Path, size: int) -> Path:
    path.write_bytes(path.read_bytes()[:size])
    return path


def places(path: Path) -> list[tuple[int, int]]:
    """Offset and size of the tiles of level 0."""
    with tifffile.TiffFile(path) as tif:
        return list(zip(tif.pages[0].dataoffsets, tif.pages[0].databytecounts, strict=True))


def overwrite(path: Path, offset: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(data)


@pytest.mark.parametrize("open_", [lambda path: Slide.open(path, mpp=0.5), probe])
class TestOpening:
    def test_missing(self, tmp_path: Path, open_) -> None:
        with pytest.raises(SlideError, match=r"no such file.*nothing\.svs"):
            open_(tmp_path / "nothing.svs")

    def test_folder(self, tmp_path: Path, open_) -> None:
        with pytest.raises(SlideError, match="folder"):
            open_(tmp_path)

    def test_empty(self, tmp_path: Path, open_) -> None:
        (tmp_path / "a.svs").touch()
        with pytest.raises(SlideError, match="empty"):
            open_(tmp_path / "a.svs")

    @pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="the superuser may read everything")
    def test_not_permitted(self, path: Path, open_) -> None:
        path.chmod(0)
        with pytest.raises(SlideError, match="permissions"):
            open_(path)

    def test_links_that_lead_in_a_circle(self, tmp_path: Path, open_) -> None:
        (tmp_path / "a.svs").symlink_to(tmp_path / "b.svs")
        (tmp_path / "b.svs").symlink_to(tmp_path / "a.svs")
        with pytest.raises(SlideError, match=r"leads in a circle.*a\.svs"):
            open_(tmp_path / "a.svs")

    @pytest.mark.parametrize("method", ["stat", "iterdir"])
    def test_a_folder_that_cannot_be_read(self, tmp_path: Path, open_, method: str, monkeypatch) -> None:
        def refuse(path: Path, **options) -> None:
            raise PermissionError(13, "Permission denied")

        (tmp_path / "a.zarr").mkdir()
        monkeypatch.setattr(Path, method, refuse)
        with pytest.raises(SlideError, match=r"Permission denied.*a\.zarr.*permissions"):
            open_(tmp_path / "a.zarr")

    def test_a_pipe_is_not_waited_for(self, tmp_path: Path, open_) -> None:
        os.mkfifo(tmp_path / "a.svs")
        with pytest.raises(SlideError, match="neither a file nor a folder"):
            open_(tmp_path / "a.svs")

    def test_not_an_image(self, tmp_path: Path, open_) -> None:
        (tmp_path / "a.svs").write_text("not a slide")
        with pytest.raises(SlideError, match=r"tiff: .*openslide: .*flat: .*a\.svs"):
            open_(tmp_path / "a.svs")

    @pytest.mark.parametrize("size", [1, 7, 100, 200])
    def test_cut_in_the_header(self, path: Path, open_, size: int) -> None:
        with pytest.raises(SlideError, match=r"a\.tif"):
            open_(cut(path, size))

    def test_cut_in_the_middle(self, path: Path, open_) -> None:
        # Tile tables at the front, tiles behind: as slides are downloaded.
        with pytest.raises(SlideError, match=r"a\.tif"):
            open_(cut(path, path.stat().st_size // 2))

    def test_cut_in_the_last_tile(self, tmp_path: Path, open_) -> None:
        path = write_slide(tmp_path / "b.tif", tissue_image(256, 256), compression="jpeg", levels=1)
        offset, size = places(path)[-1]
        with pytest.raises(DamagedSlideError, match="truncated: 1 of its 16 tiles lie beyond its end"):
            open_(cut(path, offset + size - 10))

    def test_declares_more_tiles_than_it_lists(self, path: Path, open_) -> None:
        with tifffile.TiffFile(path, mode="r+b") as tif:
            tif.pages[0].tags["ImageWidth"].overwrite(10**6)
            tif.pages[0].tags["ImageLength"].overwrite(10**6)
        with pytest.raises(SlideError, match="declares 244140625 tiles but lists 16"):
            open_(path)

    def test_declares_huge_tiles(self, path: Path, open_) -> None:
        with tifffile.TiffFile(path, mode="r+b") as tif:
            tif.pages[0].tags["TileWidth"].overwrite(60_000)
            tif.pages[0].tags["TileLength"].overwrite(60_000)
        with pytest.raises(SlideError, match="tiles of 60000 × 60000"):
            open_(path)

    def test_declares_a_huge_plain_image(self, tmp_path: Path, open_) -> None:
        (tmp_path / "bomb.png").write_bytes(png_header(200_000, 200_000))
        with pytest.raises(DamagedSlideError, match="declares 200000 × 200000 pixels"):
            open_(tmp_path / "bomb.png")

    @pytest.mark.parametrize("suffix", ["png", "jpg"])
    def test_cut_plain_image(self, tmp_path: Path, open_, suffix: str) -> None:
        path = tmp_path / f"a.{suffix}"
        Image.fromarray(tissue_image(200, 200)).save(path)
        with pytest.raises(DamagedSlideError, match="truncated"):
            open_(cut(path, path.stat().st_size // 2))

    def test_cut_plain_tiff(self, tmp_path: Path, open_) -> None:
        tifffile.imwrite(tmp_path / "a.tif", tissue_image(200, 200), photometric="rgb")
        with pytest.raises(DamagedSlideError, match="truncated"):
            open_(cut(tmp_path / "a.tif", 60_000))

    def test_sixteen_bits(self, tmp_path: Path, open_) -> None:
        tifffile.imwrite(tmp_path / "a.tif", tissue_image(200, 200).astype(np.uint16), photometric="rgb")
        with pytest.raises(SlideError, match="uint16"):
            open_(tmp_path / "a.tif")


@pytest.mark.parametrize(("doctype", "mpp"), [("", 0.5), ('<!DOCTYPE x [<!ENTITY a "b">]>', None)])
def test_metadata_with_entities_is_not_parsed(tmp_path: Path, doctype: str, mpp: float | None) -> None:
    xml = (
        f'<?xml version="1.0"?>{doctype}<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"><Image '
        'ID="Image:0"><Pixels ID="Pixels:0" DimensionOrder="XYCZT" Type="uint8" SizeX="200" SizeY="200" SizeC="3" '
        'SizeZ="1" SizeT="1" PhysicalSizeX="0.5" PhysicalSizeY="0.5"><Channel ID="Channel:0:0" SamplesPerPixel="3"/>'
        '<TiffData IFD="0"/></Pixels></Image></OME>'
    )
    path, image = tmp_path / "a.ome.tif", tissue_image(200, 200)
    tifffile.imwrite(path, image, photometric="rgb", tile=(64, 64), description=xml, metadata=None)
    assert probe(path)["mpp"] == mpp


def png_header(width: int, height: int) -> bytes:
    """A PNG that declares a size but holds no pixels."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.parametrize("suffix", ["svs", "jpg", "dat"])
def test_a_wrong_ending_does_not_matter(path: Path, suffix: str) -> None:
    with Slide.open(path.rename(path.with_suffix(f".{suffix}"))) as slide:
        assert slide.format == "tiled TIFF"
        assert slide.thumbnail().min() < 200


def test_a_plain_image_damaged_inside_fails_when_read(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(tissue_image(200, 200)).save(path)
    overwrite(path, path.stat().st_size // 2, b"\0" * 200)
    with Slide.open(path, mpp=0.5) as slide, pytest.raises(DamagedSlideError, match=r"cannot be decoded.*a\.png"):
        slide.read(0, 0, 10, 10, mpp=0.5)


@pytest.mark.parametrize(
    ("compression", "half"),
    [("jpeg", False), ("jpeg2000", False), ("deflate", False), ("webp", False), ("jpeg", True), ("deflate", True)],
)
def test_one_damaged_tile_does_not_stop_the_run(tmp_path: Path, compression: str, half: bool) -> None:
    image = tissue_image(256, 256)
    path = write_slide(tmp_path / "a.tif", image, compression=compression, levels=1)
    offset, size = places(path)[5]  # row 1, column 1
    overwrite(path, offset + (size // 2 if half else 0), b"\0" * (size // 2))
    centres = np.stack(np.meshgrid(np.arange(16, 256, 32), np.arange(16, 256, 32)), -1).reshape(-1, 2)
    with Slide.open(path) as slide:
        batches = list(slide.read_tiles(centres, 32, 0.5, batch_size=10))
        ok = np.concatenate([b.ok for b in batches])
        hurt = ((centres >= 64) & (centres < 128)).all(axis=1)
        assert (ok == ~hurt).all()
        with pytest.raises(TileError, match=r"cannot be decoded.*a\.tif"):
            slide.read(60, 60, 20, 20, mpp=0.5)
        assert (slide.read(0, 0, 64, 64, mpp=0.5) < 255).any()
        grey = np.asarray(slide.pyramid()[0])
        assert (grey[64:128, 64:128] == 128).all()
        assert slide.thumbnail(128).shape == (128, 128, 3)


def test_shared_jpeg_tables_that_are_missing(tmp_path: Path) -> None:
    """The file opens, but no tile can be decoded."""
    path = write_shared_tables(tmp_path / "a.tif", tissue_image(256, 192))
    with tifffile.TiffFile(path, mode="r+b") as tif:
        tag = tif.pages[0].tags[347]
        tag.overwrite(b"\xff\xd8\xff\xd9" + b"\0" * (tag.count - 4))
    with Slide.open(path) as slide:
        (batch,) = slide.read_tiles([[32, 32], [150, 100]], 32, 0.5)
        assert not batch.ok.any()
        assert (slide.thumbnail(64) == 128).all()


def test_damage_is_known_at_coarser_levels(tmp_path: Path) -> None:
    """A level that the file lacks is made of finer tiles, one of which is damaged."""
    path = write_slide(tmp_path / "a.tif", tissue_image(1280, 256), compression="jpeg", levels=1)
    offset, size = places(path)[0]
    overwrite(path, offset, b"\0" * size)
    with Slide.open(path) as slide:
        (batch,) = slide.read_tiles([[64, 64], [600, 64]], 32, 1.0)
    assert batch.ok.tolist() == [False, True]


def test_a_file_cut_while_open(path: Path) -> None:
    with Slide.open(path) as slide:
        offset, _ = places(path)[0]
        os.truncate(path, offset)
        (batch,) = slide.read_tiles([[32, 32]], 32, 0.5)
    assert not batch.ok[0]

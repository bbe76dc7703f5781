"""Every format gives back the pixels, levels and pixel size that were written."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import tifffile
from PIL import Image
from tests.tiny.slides import halved, tissue_image, write_shared_tables, write_slide

from napari_he2st.core import cache
from napari_he2st.core.errors import MissingMppError, SlideError
from napari_he2st.data.slides import Slide, probe


def difference(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.abs(a.astype(int) - b.astype(int)).mean())


@pytest.mark.parametrize("kind", ["tiff", "svs", "ome"])
@pytest.mark.parametrize(
    ("compression", "tolerance"),
    [(None, 0), ("lzw", 0), ("deflate", 0), ("jpeg2000", 0), ("jpeg", 4), ("webp", 4)],
)
def test_pixels_of_all_levels(tmp_path: Path, kind: str, compression: str | None, tolerance: float) -> None:
    image = tissue_image(301, 203)
    if kind == "svs" and compression == "jpeg2000":
        compression = "APERIO_JP2000_RGB"
    path = write_slide(tmp_path / f"a.{kind}.tif", image, kind=kind, compression=compression)  # type: ignore[arg-type]
    with Slide.open(path) as slide:
        assert slide.size == (301, 203)
        assert [(v.width, v.height, v.downsample) for v in slide.levels] == [
            (301, 203, 1),
            (150, 101, 2),
            (75, 50, 4),
        ]
        assert slide.mpp == pytest.approx(0.5)
        assert slide.mpp_source.startswith("metadata: ")
        expected = image
        for level in slide.levels:
            mpp = slide.mpp * level.downsample
            assert difference(slide.read(0, 0, level.width, level.height, mpp=mpp), expected) <= tolerance
            expected = halved(expected)


def test_jpeg_tables_that_tiles_share(tmp_path: Path) -> None:
    image = tissue_image(256, 192)
    with Slide.open(write_shared_tables(tmp_path / "a.tif", image)) as slide:
        assert difference(slide.read(0, 0, 256, 192, mpp=slide.mpp), image) < 2


def test_jpeg_tiles_cut_at_the_edge(tmp_path: Path) -> None:
    """Some writers store the last column and row in their own size."""
    import imagecodecs

    image = tissue_image(100, 90)
    parts = [image[y : y + 64, x : x + 64] for y in (0, 64) for x in (0, 64)]
    tiles = [imagecodecs.jpeg8_encode(np.ascontiguousarray(part), level=95) for part in parts]
    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path) as tif:
        tif.write(iter(tiles), shape=image.shape, dtype="uint8", tile=(64, 64), compression="jpeg", photometric="ycbcr")
    with Slide.open(path, mpp=0.5) as slide:
        assert difference(slide.read(0, 0, 100, 90, mpp=0.5), image) < 4


def test_colours_stored_apart(tmp_path: Path) -> None:
    image = tissue_image(130, 90)
    path = tmp_path / "a.tif"
    tifffile.imwrite(
        path, np.moveaxis(image, -1, 0), tile=(64, 64), photometric="rgb", planarconfig="separate", compression="lzw"
    )
    with Slide.open(path, mpp=0.5) as slide:
        assert (slide.read(0, 0, 130, 90, mpp=0.5) == image).all()


def test_colours_as_three_pages_of_ome_tiff(tmp_path: Path) -> None:
    image = tissue_image(130, 90)
    path = tmp_path / "a.ome.tif"
    channels = np.moveaxis(image, -1, 0)
    tifffile.imwrite(path, channels, tile=(64, 64), photometric="minisblack", metadata={"axes": "CYX"})
    with Slide.open(path, mpp=0.5) as slide:
        assert slide.name == "a"
        assert (slide.read(0, 0, 130, 90, mpp=0.5) == image).all()


def test_grey_tiles(tmp_path: Path) -> None:
    grey = tissue_image(130, 90)[:, :, 0]
    tifffile.imwrite(tmp_path / "grey.tif", grey, tile=(64, 64))
    with Slide.open(tmp_path / "grey.tif", mpp=0.5) as slide:
        assert (slide.read(0, 0, 130, 90, mpp=0.5) == grey[:, :, None]).all()


def test_transparent_tiles_are_laid_on_white(tmp_path: Path) -> None:
    image = np.dstack([tissue_image(130, 90), np.full((90, 130), 255, np.uint8)])
    image[:40, :50] = 0
    tifffile.imwrite(tmp_path / "a.tif", image, tile=(64, 64), photometric="rgb", extrasamples=["unassalpha"])
    with Slide.open(tmp_path / "a.tif", mpp=0.5) as slide:
        pixels = slide.read(0, 0, 130, 90, mpp=0.5)
    assert (pixels[:40, :50] == 255).all()
    assert (pixels[40:] == image[40:, :, :3]).all()


def test_tiles_left_out_of_a_sparse_file_are_white(tmp_path: Path) -> None:
    image = tissue_image(256, 256)
    path = write_slide(tmp_path / "a.tif", image, levels=1)
    with tifffile.TiffFile(path, mode="r+b") as tif:
        sizes = list(tif.pages[0].databytecounts)
        sizes[5] = 0
        tif.pages[0].tags["TileByteCounts"].overwrite(sizes)
    with Slide.open(path) as slide:
        pixels = slide.read(0, 0, 256, 256, mpp=slide.mpp)
    assert (pixels[64:128, 64:128] == 255).all()
    assert (pixels[:64] == image[:64]).all()


def test_levels_that_are_not_marked(tmp_path: Path) -> None:
    image = tissue_image(512, 400)
    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path) as tif:
        for pixels in (image, halved(image)):
            tif.write(pixels, tile=(64, 64), photometric="rgb", metadata=None)
    with Slide.open(path, mpp=0.5) as slide:
        assert [v.downsample for v in slide.levels] == [1, 2]


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif", "bmp", "webp"])
@pytest.mark.parametrize("on_disk", [False, True])
def test_plain_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str, on_disk: bool) -> None:
    if on_disk:
        monkeypatch.setattr("napari_he2st.data.slides.formats.flat.MEMORY_BYTES", 1000)
        monkeypatch.setenv("HE2ST_CACHE", str(tmp_path / "cache"))
    image = tissue_image(1300, 700)
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(image).save(path, **({"quality": 95} if suffix in {"jpg", "webp"} else {}))
    tolerance = 4 if suffix in {"jpg", "webp"} else 0
    with Slide.open(path, mpp=0.5) as slide:
        assert slide.format.startswith("plain")
        assert difference(slide.read(0, 0, 1300, 700, mpp=0.5), image) <= tolerance
        assert [a.shape for a in slide.pyramid()] == [(700, 1300, 3), (350, 650, 3)]
    assert len(list((tmp_path / "cache").rglob("*.npy"))) == on_disk
    with Slide.open(path, mpp=0.5) as slide:  # from the cache
        assert difference(slide.read(0, 0, 1300, 700, mpp=0.5), image) <= tolerance


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA", "P", "CMYK"])
def test_plain_images_of_other_modes(tmp_path: Path, mode: str) -> None:
    image = Image.fromarray(tissue_image(80, 60)).convert(mode)
    if mode in {"LA", "RGBA"}:
        image.putalpha(Image.fromarray(np.full((60, 80), 255, dtype=np.uint8)).point(lambda _: 128))
    path = tmp_path / ("a.jpg" if mode == "CMYK" else "a.png")
    image.save(path, **({"quality": 95} if mode == "CMYK" else {}))
    white = Image.new("RGBA", image.size, "white")
    white.alpha_composite(Image.open(path).convert("RGBA"))
    with Slide.open(path, mpp=0.5) as slide:
        assert difference(slide.read(0, 0, 80, 60, mpp=0.5), np.asarray(white)[:, :, :3]) <= 1


def test_tiff_in_strips(tmp_path: Path) -> None:
    image = tissue_image(300, 200)
    tifffile.imwrite(
        tmp_path / "strips.tif", image, photometric="rgb", compression="lzw", resolution=(2e4, 2e4), resolutionunit=3
    )
    tifffile.imwrite(
        tmp_path / "apart.tif", np.moveaxis(image, -1, 0), photometric="rgb", planarconfig="separate", rowsperstrip=16
    )
    with Slide.open(tmp_path / "strips.tif") as slide:
        assert slide.mpp == pytest.approx(0.5)
        assert (slide.read(0, 0, 300, 200, mpp=0.5) == image).all()
    with Slide.open(tmp_path / "apart.tif", mpp=0.5) as slide:
        assert (slide.read(0, 0, 300, 200, mpp=0.5) == image).all()


def test_old_rasters_leave_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("napari_he2st.data.slides.formats.flat.MEMORY_BYTES", 1000)
    monkeypatch.setenv("HE2ST_CACHE", str(tmp_path / "cache"))
    cache.set_limit(100_000)
    for seed in range(3):
        image = tissue_image(160, 120, seed=seed)  # 57,600 bytes decoded
        Image.fromarray(image).save(tmp_path / f"{seed}.png")
        with Slide.open(tmp_path / f"{seed}.png", mpp=0.5) as slide:
            assert (slide.read(0, 0, 160, 120, mpp=0.5) == image).all()
    assert len(list((tmp_path / "cache").rglob("*.npy"))) == 1


def test_a_full_disk_is_said_before_decoding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("napari_he2st.data.slides.formats.flat.MEMORY_BYTES", 1000)
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=50_000))
    monkeypatch.setenv("HE2ST_CACHE", str(tmp_path / "cache"))
    Image.fromarray(tissue_image(160, 120)).save(tmp_path / "a.png")
    with Slide.open(tmp_path / "a.png", mpp=0.5) as slide, pytest.raises(SlideError, match=r"GB of disk.*HE2ST_CACHE"):
        slide.thumbnail()


# --- pixel size


def test_no_pixel_size_is_an_error_with_ways_out(tmp_path: Path) -> None:
    path = write_slide(tmp_path / "a.svs", tissue_image(), kind="svs", mpp=None)
    with pytest.raises(MissingMppError, match=r"--mpp.*20x.*0\.5.*40x.*0\.25"):
        Slide.open(path)
    assert probe(path)["mpp"] is None
    assert Slide.open(path, mpp=0.3).mpp_source == "given"


def test_objective_is_not_a_pixel_size(tmp_path: Path) -> None:
    path = tmp_path / "a.svs"
    tifffile.imwrite(
        path,
        tissue_image(),
        tile=(64, 64),
        photometric="rgb",
        metadata=None,
        description="Aperio Image Library v12\n600x500|AppMag = 40",
    )
    assert probe(path)["objective_power"] == 40
    with pytest.raises(MissingMppError, match="objective is 40x"):
        Slide.open(path)


@pytest.mark.parametrize(("unit", "size"), [("µm", 0.5), ("nm", 500), ("mm", 0.0005)])
def test_units_of_ome(tmp_path: Path, unit: str, size: float) -> None:
    path = tmp_path / "a.ome.tif"
    sizes = {f"PhysicalSize{axis}": size for axis in "XY"} | {f"PhysicalSize{axis}Unit": unit for axis in "XY"}
    tifffile.imwrite(path, tissue_image(), tile=(64, 64), photometric="rgb", metadata={"axes": "YXS", **sizes})
    assert Slide.open(path).mpp == pytest.approx(0.5)


@pytest.mark.parametrize("dpi", [72, 300])
def test_printer_resolution_is_ignored(tmp_path: Path, dpi: int) -> None:
    Image.fromarray(tissue_image()).save(tmp_path / "a.jpg", dpi=(dpi, dpi))
    info = probe(tmp_path / "a.jpg")
    assert info["mpp"] is None
    assert "implausible" in info["mpp_notes"][0]


def test_contradictions_are_reported(tmp_path: Path) -> None:
    path = write_slide(
        tmp_path / "a.svs", tissue_image(), kind="svs", resolution=(1e4, 1e4), resolutionunit="CENTIMETER"
    )
    slide = Slide.open(path)
    assert (slide.mpp, slide.mpp_source) == (0.5, "metadata: Aperio MPP")
    assert "contradicts TIFF resolution tag (1)" in slide.info()["mpp_notes"][0]
    given = Slide.open(path, mpp=0.25).info()
    assert (given["mpp"], given["mpp_source"]) == (0.25, "given")
    assert "The given pixel size (0.25 µm per pixel) contradicts Aperio MPP (0.5)" in given["mpp_notes"][0]


@pytest.mark.parametrize("mpp", [0, -0.5, float("nan"), float("inf")])
def test_given_pixel_size_has_to_be_positive(tmp_path: Path, mpp: float) -> None:
    path = write_slide(tmp_path / "a.tif", tissue_image())
    with pytest.raises(SlideError, match="above zero"):
        Slide.open(path, mpp=mpp)
    with pytest.raises(SlideError, match="above zero"):
        Slide.open(path).read(0, 0, 10, 10, mpp=mpp)


# --- what is said of a slide


def test_info_is_json_and_names_no_path(tmp_path: Path) -> None:
    import json

    folder = tmp_path / "secret"
    folder.mkdir()
    path = write_slide(folder / "a.svs", tissue_image(), kind="svs")
    info = Slide.open(path).info()
    assert json.loads(json.dumps(info)) == info
    assert "secret" not in json.dumps(info)
    assert info["format"] == "Aperio SVS"
    assert info["compression"] == "DEFLATE"
    assert info["size"] == [600, 500]
    assert len(info["levels"]) == 3
    assert info["objective_power"] == 20


def test_fingerprint_survives_a_move_and_sees_an_edit(tmp_path: Path) -> None:
    path = write_slide(tmp_path / "a.tif", tissue_image(), compression=None)
    first = Slide.open(path).fingerprint
    moved = path.rename(tmp_path / "b.tif")
    assert Slide.open(moved).fingerprint == first
    other = write_slide(tmp_path / "c.tif", tissue_image(seed=1), compression=None)
    assert Slide.open(other).fingerprint != first


# --- real files


@pytest.mark.needs_data
def test_real_svs(he2st_data: Path) -> None:
    path = he2st_data / "wsi" / "tcga-cr-7395-01a-01-ts1.svs"
    with pytest.raises(MissingMppError):
        Slide.open(path)
    with Slide.open(path, mpp=0.5) as slide:
        assert slide.size == (4443, 3567)
        assert [v.downsample for v in slide.levels] == [1, 2]
        ours = slide.read(2000, 1500, 300, 200, mpp=0.5)
    openslide = pytest.importorskip("openslide")
    theirs = np.asarray(openslide.OpenSlide(path).read_region((2000, 1500), 0, (300, 200)))[:, :, :3]
    assert difference(ours, theirs) < 0.5


@pytest.mark.needs_data
def test_real_dicom_through_openslide(he2st_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wsidicom", None)  # as where the extra is not installed
    with Slide.open(he2st_data / "wsi" / "multi_frame_jpeg2000_camelyon_challenge_image.dcm") as slide:
        assert slide.size == (1696, 812)
        assert slide.mpp == pytest.approx(28.97, abs=0.01)
        assert slide.format == "OpenSlide dicom"
        assert 100 < slide.thumbnail().mean() < 250
        assert "Penelope" not in str(slide.info())  # the patient's name stands in the file
        centres = np.stack(np.meshgrid(np.arange(8) * 200 + 100, np.arange(4) * 200 + 100), -1).reshape(-1, 2)
        tiles = np.concatenate([b.tiles for b in slide.read_tiles(centres, 200, slide.mpp)])
        assert (tiles[9] == slide.read(200, 200, 200, 200, mpp=slide.mpp)).all()


@pytest.mark.needs_data
def test_real_pyramid_without_a_usable_pixel_size(he2st_data: Path) -> None:
    info = probe(he2st_data / "wsi" / "valid_tiff.tif")
    assert info["size"] == [205, 205]
    assert info["mpp"] is None
    assert "implausible (1000 µm per pixel)" in info["mpp_notes"][0]


@pytest.mark.needs_data
@pytest.mark.parametrize(("name", "reason"), [("broken.svs", "not a TIFF file"), ("small_dicom.dcm", "image flavor")])
def test_real_files_that_cannot_be_read(he2st_data: Path, name: str, reason: str) -> None:
    with pytest.raises(SlideError, match=rf"tiff:.*openslide:.*flat:.*{name}") as caught:
        Slide.open(he2st_data / "wsi" / name, mpp=0.5)
    assert reason in str(caught.value)


@pytest.mark.needs_data
def test_real_jpeg(her2st: Path) -> None:
    with Slide.open(her2st / "ST-imgs" / "C" / "C5" / "5714_HE_BT_E1.jpg", mpp=0.69) as slide:
        assert slide.size == (9272, 9901)
        thumbnail = slide.thumbnail(500)
        assert thumbnail.shape == (500, 468, 3)
        assert 180 < thumbnail.mean() < 240

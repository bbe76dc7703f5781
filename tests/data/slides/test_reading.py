"""Regions and streams of tiles: right pixels, right order, each tile decoded once, memory bounded."""

from __future__ import annotations

import threading
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.tiny.slides import tissue_image, write_slide

from napari_he2st.core.errors import SlideError
from napari_he2st.data.slides import Slide
from napari_he2st.data.slides import stream as streaming

MPP = 0.5


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    return tissue_image(1100, 800)


@pytest.fixture(scope="module")
def path(image: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_slide(tmp_path_factory.mktemp("slides") / "a.tif", image, mpp=MPP, levels=2)


@pytest.fixture(scope="module")
def single(image: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same slide without further levels."""
    return write_slide(tmp_path_factory.mktemp("slides") / "single.tif", image, mpp=MPP, levels=1)


def raster(width: int, height: int, pitch: float) -> np.ndarray:
    """Centres (x, y) of a square grid, in raster order."""
    x, y = np.arange(pitch / 2, width, pitch), np.arange(pitch / 2, height, pitch)
    return np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2)


def padded(image: np.ndarray, margin: int) -> np.ndarray:
    return np.pad(image, ((margin, margin), (margin, margin), (0, 0)), constant_values=255)


# --- native pixels


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("batch_size", [1, 7, 1000])
def test_tiles_are_the_pixels_around_their_centres(
    path: Path, image: np.ndarray, threads: int, batch_size: int
) -> None:
    centres = raster(1100, 800, 40)
    with Slide.open(path) as slide:
        batches = list(slide.read_tiles(centres, 40, MPP, batch_size=batch_size, threads=threads))
    assert [b.start for b in batches] == list(range(0, len(centres), batch_size))
    assert all(len(b.tiles) == len(b.ok) == batch_size for b in batches[:-1])
    tiles = np.concatenate([b.tiles for b in batches])
    assert tiles.dtype == np.uint8
    assert all(b.ok.all() for b in batches)
    whole = padded(image, 40)
    for (x, y), tile in zip(centres.astype(int), tiles, strict=True):
        assert (tile == whole[y + 20 : y + 60, x + 20 : x + 60]).all()


def test_any_order_and_any_place(path: Path, image: np.ndarray) -> None:
    rng = np.random.default_rng(0)
    centres = rng.uniform(-60, 1200, size=(200, 2))
    centres[0] = -5000, 9000  # far outside
    with Slide.open(path) as slide:
        tiles = np.concatenate([b.tiles for b in slide.read_tiles(centres, 33, MPP)])
    whole = padded(image, 600)
    for (x, y), tile in zip(np.floor(centres - 16.5 + 0.5).astype(int)[1:] + 600, tiles[1:], strict=True):
        assert (tile == whole[y : y + 33, x : x + 33]).all()
    assert (tiles[0] == 255).all()


def test_a_slide_smaller_than_a_tile_is_padded_white(tmp_path: Path) -> None:
    image = tissue_image(20, 10)
    with Slide.open(write_slide(tmp_path / "a.tif", image, levels=1, mpp=MPP)) as slide:
        (batch,) = slide.read_tiles([[10, 5]], 100, MPP)
    assert (batch.tiles[0, 45:55, 40:60] == image).all()
    assert (batch.tiles[0, :45] == 255).all()
    assert batch.ok.all()


def test_no_centres_give_no_batches(path: Path) -> None:
    assert list(Slide.open(path).read_tiles(np.empty((0, 2)), 32, MPP)) == []


# --- economy


@pytest.mark.parametrize(("px", "pitch", "mpp"), [(64, 64, MPP), (48, 48, MPP), (30, 60, 1.0), (32, 44.16, 0.69)])
def test_each_tile_is_decoded_once_in_raster_order(single: Path, px: int, pitch: float, mpp: float) -> None:
    with Slide.open(single) as slide:
        for _ in slide.read_tiles(raster(1100, 800, pitch), px, mpp, batch_size=16):
            pass
        tiles = -(-1100 // 64) * -(-800 // 64)
        assert tiles * 0.85 < slide.decoded <= tiles * 1.05


def test_memory_is_bounded_and_rows_are_cut(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A row of patches far above the limit still comes out right, a few windows at a time."""
    centres = raster(1100, 800, 4)  # heavily overlapping: 55,000 patches of 12 kB
    with Slide.open(path) as slide:
        expected = [b.tiles[0, 0, 0].copy() for b in slide.read_tiles(centres[:8000], 64, MPP, batch_size=8)]
        monkeypatch.setattr(streaming, "OPEN_BYTES", 2 * 2**20)
        monkeypatch.setattr(streaming, "WINDOW_BYTES", 2**18)
        tracemalloc.start()
        found = [b.tiles[0, 0, 0].copy() for b in slide.read_tiles(centres[:8000], 64, MPP, batch_size=8)]
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert (np.array(found) == np.array(expected)).all()
    assert peak < 8 * 2**20  # all patches at once would be 98 MB


def test_only_tiles_under_patches_are_decoded(path: Path) -> None:
    with Slide.open(path) as slide:
        list(slide.read_tiles([[32, 32], [500, 300]], 16, MPP))
        assert slide.decoded <= 5


# --- resampling


def reference(image: np.ndarray, centre: np.ndarray, px: int, factor: float) -> np.ndarray:
    """Antialiased bilinear resizing of a margin around the patch, by Pillow."""
    x, y = centre + 200 - px * factor / 2
    box = (x, y, x + px * factor, y + px * factor)
    return np.asarray(Image.fromarray(padded(image, 200)).resize((px, px), Image.Resampling.BILINEAR, box=box))


@pytest.mark.parametrize("factor", [1.2, 1.38, 1.7])
def test_exact_resampling_is_antialiased_and_at_the_very_position(
    single: Path, image: np.ndarray, factor: float
) -> None:
    centres = np.random.default_rng(1).uniform(150, 650, size=(20, 2))
    with Slide.open(single) as slide:
        tiles = np.concatenate([b.tiles for b in slide.read_tiles(centres, 100, MPP * factor)])
    expected = np.stack([reference(image, centre, 100, factor) for centre in centres])
    assert np.abs(tiles.astype(int) - expected).mean() < 1.0


def test_fast_resampling_is_close(single: Path, image: np.ndarray) -> None:
    centres = np.random.default_rng(1).integers(150, 650, size=(20, 2)) + 0.5 * (round(1.38 * 100) % 2)
    with Slide.open(single) as slide:
        tiles = np.concatenate([b.tiles for b in slide.read_tiles(centres, 100, MPP * 1.38, exact=False)])
    expected = np.stack([reference(image, centre, 100, 1.38) for centre in centres])
    assert np.abs(tiles.astype(int) - expected).mean() < 1.0


@pytest.mark.parametrize("factor", [2, 3, 4])
@pytest.mark.parametrize("exact", [True, False])
def test_whole_factors_are_means_over_areas(single: Path, image: np.ndarray, factor: int, exact: bool) -> None:
    px = 24
    with Slide.open(single) as slide:
        (batch,) = slide.read_tiles([[512, 400]], px, MPP * factor, exact=exact)
    half = px * factor // 2
    area = image[400 - half : 400 + half, 512 - half : 512 + half].astype(float)
    means = area.reshape(px, factor, px, factor, 3).mean(axis=(1, 3))
    assert np.abs(batch.tiles[0] - means).max() <= 1


def test_enlarging_beyond_the_slides_own_pixels(path: Path, image: np.ndarray) -> None:
    with Slide.open(path) as slide:
        (batch,) = slide.read_tiles([[512, 400]], 64, MPP / 2)
    expected = np.asarray(Image.fromarray(image[384:416, 496:528]).resize((64, 64), Image.Resampling.BILINEAR))
    assert np.abs(batch.tiles[0, 4:-4, 4:-4].astype(int) - expected[4:-4, 4:-4]).mean() < 1


def test_the_coarsest_fitting_level_is_read(path: Path) -> None:
    with Slide.open(path) as slide:
        list(slide.read_tiles(raster(1100, 800, 128), 64, 2 * MPP * 0.995))  # within 1 %
        assert slide.decoded <= 9 * 7  # tiles of level 1, not the 18 × 13 of level 0


def test_a_region_is_exact_across_its_width(path: Path, image: np.ndarray) -> None:
    """Within 1 % of a level is near enough for a tile, but a wide region would drift."""
    with Slide.open(path) as slide:
        region = slide.read(0, 0, 1092, 790, mpp=MPP * 1.007)
    expected = np.asarray(
        Image.fromarray(image).resize((1092, 790), Image.Resampling.BILINEAR, box=(0, 0, 1092 * 1.007, 790 * 1.007))
    )
    assert np.abs(region[:, -50:].astype(int) - expected[:, -50:]).mean() < 1


def test_region_outside_is_white(path: Path, image: np.ndarray) -> None:
    with Slide.open(path) as slide:
        region = slide.read(-10, 790, 30, 20, mpp=MPP)
    assert (region[:10, 10:] == image[790:, :20]).all()
    assert (region[:, :10] == 255).all()
    assert (region[10:] == 255).all()


# --- several at once


def test_streams_zip_and_threads_share_a_slide(path: Path) -> None:
    centres = raster(1100, 800, 50)
    with Slide.open(path) as slide:
        alone = np.concatenate([b.tiles for b in slide.read_tiles(centres, 50, MPP)])
        pairs = zip(
            slide.read_tiles(centres, 50, MPP, batch_size=10),
            slide.read_tiles(centres, 25, 2 * MPP, batch_size=10),
            strict=True,
        )
        assert all(a.start == b.start and len(a.tiles) == len(b.tiles) for a, b in pairs)
        results: list[np.ndarray] = []

        def work() -> None:
            results.append(np.concatenate([b.tiles for b in slide.read_tiles(centres, 50, MPP)]))

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(results) == 4
    assert all((tiles == alone).all() for tiles in results)


def test_stopping_early_leaves_no_thread_behind(path: Path) -> None:
    with Slide.open(path) as slide:
        stream = slide.read_tiles(raster(1100, 800, 20), 20, MPP, batch_size=4)
        next(stream)
        stream.close()
        assert not [t for t in threading.enumerate() if t.name.startswith("read-tiles")]


# --- drawing


@pytest.mark.parametrize("which", ["path", "single"])
def test_pyramid_is_the_image_at_every_level(which: str, image: np.ndarray, request: pytest.FixtureRequest) -> None:
    with Slide.open(request.getfixturevalue(which)) as slide:
        levels = slide.pyramid()
        assert [a.shape for a in levels] == [(800, 1100, 3), (400, 550, 3)]
        assert all(a.dtype == np.uint8 for a in levels)
        assert (np.asarray(levels[0]) == image).all()
        assert (np.asarray(levels[0][100:220, 301:777]) == image[100:220, 301:777]).all()
        means = image.astype(float).reshape(400, 2, 550, 2, 3).mean(axis=(1, 3))
        assert np.abs(np.asarray(levels[1]) - means).max() <= 1


def test_pyramid_ends_small_and_odd_sizes_lose_nothing(tmp_path: Path) -> None:
    image = tissue_image(2601, 1303)
    with Slide.open(write_slide(tmp_path / "a.tif", image, levels=1)) as slide:
        assert [a.shape for a in slide.pyramid()] == [(1303, 2601, 3), (652, 1301, 3), (326, 651, 3)]
        top = np.asarray(slide.pyramid()[-1])
        assert np.abs(top[325].astype(int) - image[1300:1303].mean(axis=0).reshape(-1, 3)[:2604:4]).max() < 255
        assert top.min() < 200  # tissue, not white only


def test_drawing_twice_decodes_once_and_forgets_within_its_limit(single: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("napari_he2st.data.slides.slide.CACHE_BYTES", 100 * 64 * 64 * 3)
    with Slide.open(single) as slide:
        level = slide.pyramid()[0]
        np.asarray(level[:256, :256])
        decoded = slide.decoded
        np.asarray(level[:256, :256])
        assert slide.decoded == decoded
        np.asarray(level)
        assert slide._drawing.cache.bytes <= 100 * 64 * 64 * 3


def test_thumbnail(path: Path, image: np.ndarray) -> None:
    with Slide.open(path) as slide:
        assert slide.thumbnail(110).shape == (80, 110, 3)
        assert (slide.thumbnail(5000) == image).all()  # never enlarged
        blocks = image.astype(float).reshape(80, 10, 110, 10, 3).mean(axis=(1, 3))
        assert np.abs(slide.thumbnail(110) - blocks).mean() < 2


# --- arguments


@pytest.mark.parametrize(
    "arguments",
    [
        {"centres": [[np.nan, 0]]},
        {"px": 0},
        {"mpp": 0},
        {"mpp": -1},
        {"batch_size": 0},
        {"threads": 0},
    ],
)
def test_bad_arguments(path: Path, arguments: dict) -> None:
    with pytest.raises(SlideError):
        Slide.open(path).read_tiles(**{"centres": [[5, 5]], "px": 8, "mpp": MPP, **arguments})


@pytest.mark.parametrize("region", [(0, 0, 0, 5), (0, 0, 5, -1), (np.nan, 0, 5, 5), (0, 0, 10**6, 5)])
def test_bad_regions(path: Path, region: tuple) -> None:
    with pytest.raises(SlideError, match="cannot be read"):
        Slide.open(path).read(*region, mpp=MPP)


def test_a_closed_slide_says_so(path: Path) -> None:
    slide = Slide.open(path)
    level = slide.pyramid()[0]
    slide.close()
    for use in (slide.thumbnail, lambda: slide.read_tiles([[5, 5]], 8, MPP), level.compute):
        with pytest.raises(SlideError, match="closed"):
            use()

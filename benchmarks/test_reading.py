"""Reading all patches of a slide, as a share of what decoding its compressed tiles costs.

Run with ``HE2ST_DATA=… pytest benchmarks/test_reading.py -s``. Shares are ratios of CPU seconds measured in
one run: (decoding each touched tile once, one thread) / (reading), medians of interleaved repeats. The
reference decodes into one buffer that stays in the processor's cache, which is up to half as fast again as
decoding into new arrays; both are printed. The floors guard against getting worse.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import imagecodecs
import numpy as np
import pytest
import tifffile

from napari_he2st.data.slides import Slide
from napari_he2st.data.slides.pyramid import halve, tile_buffer
from napari_he2st.data.slides.tissue import tissue_mask

SIZE, TILE, MPP = 20_480, 256, 0.5
SECTIONS = ["C/C5/5714_HE_BT_E1", "C/C2/5714_HE_BT_C2", "B/B4/BT10737_D2_HE", "C/C3/5714_HE_BT_D1"]
REPEATS = 3


@pytest.fixture(scope="module")
def slide_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A 20,480² Aperio-like pyramid of four real sections; kept where HE2ST_BENCH_SLIDE names a file."""
    path = Path(os.environ.get("HE2ST_BENCH_SLIDE") or tmp_path_factory.mktemp("bench") / "slide.tif")
    if path.exists():
        return path
    folder = os.environ.get("HE2ST_DATA")
    if not folder:
        pytest.skip("needs the real sections that HE2ST_DATA names")
    image = np.full((SIZE, SIZE, 3), 244, dtype=np.uint8)
    for i, name in enumerate(SECTIONS):
        section = cv2.imread(str(Path(folder) / "her2st" / "ST-imgs" / f"{name}.jpg"))[:9600, :9600, ::-1]
        y, x = (i // 2) * SIZE // 2 + 320, (i % 2) * SIZE // 2 + 320
        image[y : y + section.shape[0], x : x + section.shape[1]] = section
    description = f"Aperio Image Library v12.0.0\n{SIZE}x{SIZE} (256x256) JPEG/RGB Q=85|AppMag = 20|MPP = {MPP}"
    with tifffile.TiffWriter(path, bigtiff=True) as tif:
        level = 0
        while level == 0 or image.shape[0] >= 640:
            tif.write(
                image,
                tile=(TILE, TILE),
                photometric="ycbcr",
                subsampling=(2, 2),
                compression="jpeg",
                compressionargs={"level": 85},
                subfiletype=0 if level == 0 else 1,
                description=description if level == 0 else None,
                metadata=None,
            )
            image, level = halve(image), level + 1
    return path


def raw_decode(path: Path, level: int = 0, *, buffer: np.ndarray | None = None) -> Callable[[], int]:
    """Decode every tile of a level once: into a new array each, or into one buffer."""
    with tifffile.TiffFile(path) as tif:
        page = tif.pages[level]
        offsets, sizes = list(page.dataoffsets), list(page.databytecounts)

    def run() -> int:
        file = os.open(path, os.O_RDONLY)
        for offset, size in zip(offsets, sizes, strict=True):
            imagecodecs.jpeg8_decode(os.pread(file, size, offset), outcolorspace="RGB", out=buffer)
        os.close(file)
        return len(offsets)

    return run


def read_all(path: Path, mpp: float, *, exact: bool, threads: int = 1, px: int = 224) -> Callable[[], int]:
    """Read all patches of a regular grid; return how many tiles were decoded."""

    def run() -> int:
        with Slide.open(path) as slide:
            pitch = px * mpp / slide.mpp
            n = int(SIZE // pitch)
            centres = (np.stack(np.meshgrid(np.arange(n), np.arange(n)), axis=-1).reshape(-1, 2) + 0.5) * pitch
            for batch in slide.read_tiles(centres, px, mpp, exact=exact, threads=threads):
                assert batch.ok.all()
            return slide.decoded

    return run


def cpu_seconds(run: Callable[[], object]) -> float:
    start = time.process_time()
    run()
    return time.process_time() - start


CASES = [
    # name, level read, mpp, exact, threads, floor
    ("native, 1 thread", 0, 0.5, True, 1, 0.6),
    ("native, 2 threads", 0, 0.5, True, 2, 0.5),
    ("factor 2, stored level", 1, 1.0, True, 1, 0.6),
    ("0.69, fast", 0, 0.69, False, 1, 0.4),
    ("0.69, exact", 0, 0.69, True, 1, 0.2),
]


@pytest.mark.parametrize(("name", "level", "mpp", "exact", "threads", "floor"), CASES, ids=[c[0] for c in CASES])
def test_share_of_raw_decode(
    slide_path: Path, name: str, level: int, mpp: float, exact: bool, threads: int, floor: float
) -> None:
    check_share(name, slide_path, level, read_all(slide_path, mpp, exact=exact, threads=threads), floor)


def _openslide(path: Path) -> Callable[[int, int], object]:
    import openslide

    slide = openslide.OpenSlide(path)
    return lambda x, y: np.asarray(slide.read_region((x, y), 0, (224, 224)).convert("RGB"))


def _tiffslide(path: Path) -> Callable[[int, int], object]:
    slide = pytest.importorskip("tiffslide").TiffSlide(path)
    return lambda x, y: slide.read_region((x, y), 0, (224, 224), as_array=True)


def _fastslide(path: Path) -> Callable[[int, int], object]:
    slide = pytest.importorskip("fastslide").FastSlide.from_file_path(str(path))
    return lambda x, y: np.asarray(slide.read_region((x, y), 0, (224, 224)))


@pytest.mark.parametrize("peer", [_openslide, _tiffslide, _fastslide], ids=lambda peer: peer.__name__[1:])
def test_peers_read_the_same_patches(slide_path: Path, peer: Callable[[Path], Callable[[int, int], object]]) -> None:
    """784 patches at the native mpp with peers that are installed (extra ``bench``), against raw decode and us."""
    start, n = 2048, 28
    corners = [(start + 224 * i, start + 224 * j) for j in range(n) for i in range(n)]
    tiles = range(start // TILE, -(-(start + 224 * n) // TILE))
    with tifffile.TiffFile(slide_path) as tif:
        page = tif.pages[0]
        wanted = [row * (SIZE // TILE) + column for row in tiles for column in tiles]
        places = [(page.dataoffsets[i], page.databytecounts[i]) for i in wanted]
    read = peer(slide_path)

    def raw() -> None:
        buffer, file = tile_buffer(TILE, TILE), os.open(slide_path, os.O_RDONLY)
        for offset, size in places:
            imagecodecs.jpeg8_decode(os.pread(file, size, offset), outcolorspace="RGB", out=buffer)
        os.close(file)

    def theirs() -> None:
        for x, y in corners:
            read(x, y)

    def ours() -> None:
        with Slide.open(slide_path) as slide:
            for batch in slide.read_tiles(np.array(corners) + 112, 224, MPP, threads=1):
                assert batch.ok.all()

    for run in (raw, theirs, ours):
        run()
    seconds = [[cpu_seconds(run) for run in (raw, theirs, ours)] for _ in range(REPEATS)]
    of_peer, of_us = (statistics.median(row[0] / row[i] for row in seconds) for i in (1, 2))
    print(f"\n{peer.__name__[1:]}: {of_peer:.2f} of raw decode; here {of_us:.2f}")
    assert of_us > 3 * of_peer


def check_share(name: str, path: Path, level: int, read: Callable[[], int], floor: float) -> None:
    raw, raw_new = raw_decode(path, level, buffer=tile_buffer(TILE, TILE)), raw_decode(path, level)
    n_tiles, n_decoded = raw(), read()
    seconds = [[cpu_seconds(run) for run in (raw, raw_new, read)] for _ in range(REPEATS)]
    share, share_new = (statistics.median(row[i] / row[2] for row in seconds) for i in (0, 1))
    raw_s, _, read_s = (statistics.median(column) for column in zip(*seconds, strict=True))
    print(
        f"\n{name}: {share:.2f} of raw decode into a buffer, {share_new:.2f} into new arrays "
        f"({raw_s:.2f} and {read_s:.2f} CPU-s), {n_decoded / n_tiles:.3f} decodes per tile"
    )
    assert n_decoded <= 1.05 * n_tiles
    assert share >= floor


def test_factor_2_without_that_level(slide_path: Path, tmp_path: Path) -> None:
    """A pyramid that lacks the wanted level: means over 2 × 2 pixels."""
    single = tmp_path / "single.tif"
    with tifffile.TiffFile(slide_path) as tif, tifffile.TiffWriter(single, bigtiff=True) as out:
        page = tif.pages[0]
        tiles = [_read(tif, o, n) for o, n in zip(page.dataoffsets, page.databytecounts, strict=True)]
        out.write(
            iter(tiles),
            shape=page.shape,
            dtype=page.dtype,
            tile=(TILE, TILE),
            photometric="ycbcr",
            subsampling=(2, 2),
            compression="jpeg",
            description=page.description,
            metadata=None,
        )
    check_share("factor 2 from the full resolution", single, 0, read_all(single, 1.0, exact=True), 0.6)


def _read(tif: tifffile.TiffFile, offset: int, size: int) -> bytes:
    tif.filehandle.seek(offset)
    return tif.filehandle.read(size)


def test_tissue_mask(slide_path: Path) -> None:
    with Slide.open(slide_path) as slide:
        start = time.process_time()
        mask = tissue_mask(slide)
        seconds = time.process_time() - start
    print(f"\ntissue mask: {seconds:.2f} CPU-s, {mask.fraction:.1%} tissue")
    assert seconds <= 0.3
    assert mask.warning is None

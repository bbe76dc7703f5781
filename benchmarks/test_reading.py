"""Reading all patches of a slide, as a share of what decoding its compressed tiles costs.

Run with ``HE2ST_DATA=… pytest benchmarks/test_reading.py -s``. Shares are ratios of CPU seconds measured in
one run: (decoding each touched tile once, one thread) / (reading), medians of interleaved repeats. The
reference decodes into one buffer that stays in the processor's cache, which is up to half as fast again as
decoding into new arrays; both are printed.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import tifffile
from benchmarks.slides import SIZE, TILE, write_real

from napari_he2st.data.slides import Slide
from napari_he2st.data.slides.pyramid import tile_buffer
from napari_he2st.data.slides.tissue import tissue_mask

REPEATS = 3


@pytest.fixture(scope="module")
def slide_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A 20,480² Aperio-like pyramid of four real sections; kept where HE2ST_BENCH_SLIDE names a file."""
    path = Path(os.environ.get("HE2ST_BENCH_SLIDE") or tmp_path_factory.mktemp("bench") / "slide.tif")
    if path.exists():
        return path
    if not os.environ.get("HE2ST_DATA"):
        pytest.skip("needs the real sections that HE2ST_DATA names")
    return write_real(path)


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
    # name, level read, mpp, exact, threads, limit
    ("native, 1 thread", 0, 0.5, True, 1, 0.7),
    ("native, 2 threads", 0, 0.5, True, 2, 0.7),
    ("factor 2, stored level", 1, 1.0, True, 1, 0.7),
    ("0.69 µm/px, fast filter", 0, 0.69, False, 1, 0.5),
    ("0.69 µm/px, exact filter", 0, 0.69, True, 1, 0.2),
]


@pytest.mark.parametrize(("name", "level", "mpp", "exact", "threads", "limit"), CASES, ids=[c[0] for c in CASES])
def test_share_of_raw_decode(
    figure, slide_path: Path, name: str, level: int, mpp: float, exact: bool, threads: int, limit: float
) -> None:
    check_share(figure, name, slide_path, level, read_all(slide_path, mpp, exact=exact, threads=threads), limit)


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
            for batch in slide.read_tiles(np.array(corners) + 112, 224, 0.5, threads=1):
                assert batch.ok.all()

    for run in (raw, theirs, ours):
        run()
    seconds = [[cpu_seconds(run) for run in (raw, theirs, ours)] for _ in range(REPEATS)]
    of_peer, of_us = (statistics.median(row[0] / row[i] for row in seconds) for i in (1, 2))
    print(f"\n{peer.__name__[1:]}: {of_peer:.2f} of raw decode; here {of_us:.2f}")
    assert of_us > 3 * of_peer


def check_share(figure, name: str, path: Path, level: int, read: Callable[[], int], limit: float) -> None:
    raw, raw_new = raw_decode(path, level, buffer=tile_buffer(TILE, TILE)), raw_decode(path, level)
    n_tiles, n_decoded = raw(), read()
    seconds = [[cpu_seconds(run) for run in (raw, raw_new, read)] for _ in range(REPEATS)]
    share, share_new = (statistics.median(row[i] / row[2] for row in seconds) for i in (0, 1))
    raw_s, _, read_s = (statistics.median(column) for column in zip(*seconds, strict=True))
    print(
        f"\n{name}: {share:.2f} of raw decode into a buffer, {share_new:.2f} into new arrays "
        f"({raw_s:.2f} and {read_s:.2f} CPU-s), {n_decoded / n_tiles:.3f} decodes per tile"
    )
    figure(f"reading: decodes per tile, {name}", n_decoded / n_tiles, at_most=1.05)
    figure(
        f"reading: share of raw decode, {name}", share, at_least=limit, beside=f"{share_new:.2f} of one into new arrays"
    )


def test_factor_2_without_that_level(figure, slide_path: Path, tmp_path: Path) -> None:
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
    check_share(figure, "factor 2 from the full resolution", single, 0, read_all(single, 1.0, exact=True), 0.7)


def _read(tif: tifffile.TiffFile, offset: int, size: int) -> bytes:
    tif.filehandle.seek(offset)
    return tif.filehandle.read(size)


def test_tissue_mask(figure, slide_path: Path) -> None:
    with Slide.open(slide_path) as slide:
        start = time.process_time()
        mask = tissue_mask(slide)
        seconds = time.process_time() - start
    assert mask.warning is None
    figure("reading: tissue mask", seconds, "s of CPU", at_most=0.3, beside=f"{mask.fraction:.0%} tissue")

"""Plain images: JPEG, PNG, TIFF in strips and whatever else Pillow reads; decoded once, kept as a raster."""

from __future__ import annotations

import mmap
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image, JpegImagePlugin, PngImagePlugin, UnidentifiedImageError

from napari_he2st.core import cache
from napari_he2st.core.atomic import atomic_write
from napari_he2st.core.errors import SlideError
from napari_he2st.core.paths import cache_folder
from napari_he2st.data.slides.fingerprint import fingerprint_of
from napari_he2st.data.slides.pixel_size import PixelSize
from napari_he2st.data.slides.source import (
    PARSE_ERRORS,
    DamagedSlideError,
    Facts,
    Source,
    TileLevel,
    laid_on_white,
    slide_reader,
)
from napari_he2st.data.slides.tiff_metadata import objective_power, pixel_sizes

MAX_PIXELS = 4_000_000_000
"""A plain image that declares more is refused, since all of it has to be decoded."""

MEMORY_BYTES = 64 * 2**20
"""Larger rasters are kept on disk, in the cache folder, and mapped."""

_TILE_PX = 512


@dataclass(frozen=True)
class Flat:
    """A plain image that is not decoded yet.

    Attributes
    ----------
    shape
        (height, width, channels); channels are grey, grey and alpha, RGB, or RGB and alpha.
    decode
        Writes the pixels into an array of ``shape``.
    facts
        What the file says of itself.
    """

    shape: tuple[int, int, int]
    decode: Callable[[NDArray[np.uint8]], None]
    facts: Facts


@slide_reader(
    "flat",
    "JPEG, PNG, plain TIFF and other images",
    order=30,
    formats={
        "PNG": "real file",
        "JPEG": "real file",
        "TIFF in strips": "generated file",
        "BMP, WebP …": "generated file",
    },
)
def read_flat(path: Path) -> Source:
    """Open a plain image; its pixels are decoded when the first tile is asked for.

    Raises
    ------
    SlideError
        It is no image.
    DamagedSlideError
        It is truncated, or declares more pixels than can be handled.
    """
    with path.open("rb") as file:
        magic = file.read(4)
    try:
        if magic[:2] in {b"II", b"MM"}:
            flat = _tiff(path)
        elif magic[:2] == b"\xff\xd8":
            flat = _jpeg(path)
        elif magic == b"\x89PNG":
            flat = _png(path)
        else:
            flat = _pillow(path)
    except SlideError:
        raise
    except UnidentifiedImageError as error:
        raise SlideError("not an image that Pillow knows") from error
    except (*PARSE_ERRORS, Image.DecompressionBombError) as error:
        raise SlideError(f"not a readable image ({error})") from error
    height, width, _ = flat.shape
    if height * width > MAX_PIXELS:
        raise DamagedSlideError(
            f"The image declares {width} × {height} pixels, more than can be decoded at once",
            where=path,
            todo="If that is true, convert it to a tiled pyramid, for instance with vips tiffsave --tile --pyramid",
        )
    return FlatSource(path, flat)


class FlatSource(Source):
    """A decoded raster in memory, or mapped from the cache folder, cut into tiles."""

    def __init__(self, path: Path, flat: Flat) -> None:
        self._path, self._flat = path, flat
        height, width, _ = flat.shape
        self.levels = (TileLevel(width, height, _TILE_PX, _TILE_PX, 1.0),)
        self.facts = flat.facts
        self._raster: NDArray[np.uint8] | None = None
        self._decoding = threading.Lock()

    def decode_tile(
        self, level: int, column: int, row: int, out: NDArray[np.uint8] | None = None
    ) -> NDArray[np.uint8] | None:
        """See :meth:`Source.decode_tile`; the first call decodes the image."""
        with self._decoding:
            if self._raster is None:
                self._raster = self._decode()
            raster = self._raster
        y, x = row * _TILE_PX, column * _TILE_PX
        return laid_on_white(raster[y : y + _TILE_PX, x : x + _TILE_PX])

    def _decode(self) -> NDArray[np.uint8]:
        if int(np.prod(self._flat.shape)) <= MEMORY_BYTES:
            raster = np.empty(self._flat.shape, dtype=np.uint8)
            self._fill(raster)
            return raster
        folder = cache_folder() / "rasters"
        folder.mkdir(exist_ok=True)
        # The fingerprint samples the file; its date tells edits apart that fall between the samples.
        target = folder / f"{fingerprint_of(self._path)}-{self._path.stat().st_mtime_ns}.npy"
        if not target.exists():
            self._check_disk(folder)
            with atomic_write(target, force=True) as aside:
                mapped = np.lib.format.open_memmap(aside, mode="w+", dtype=np.uint8, shape=self._flat.shape)
                if hasattr(os, "posix_fallocate"):  # else a disk that fills up ends the process
                    with aside.open("r+b") as file:
                        os.posix_fallocate(file.fileno(), 0, mapped.nbytes)
                self._fill(mapped)
                mapped.flush()
                del mapped  # Windows renames no file that is mapped
        os.utime(target)
        mapped = np.load(target, mmap_mode="r")
        cache.trim()
        return np.asarray(mapped)

    def _fill(self, raster: NDArray[np.uint8]) -> None:
        try:
            self._flat.decode(raster)
        except (*PARSE_ERRORS, Image.DecompressionBombError) as error:
            raise DamagedSlideError(
                f"The image cannot be decoded ({error})", where=self._path, todo="Copy or download it again"
            ) from error

    def _check_disk(self, folder: Path) -> None:
        """Refuse what the disk cannot hold."""
        needed = int(np.prod(self._flat.shape))
        if shutil.disk_usage(folder).free < needed * 1.05:
            raise SlideError(
                f"The decoded image needs {needed / 1e9:.1f} GB of disk in the cache folder",
                where=folder,
                todo="Free some space, or let HE2ST_CACHE name a folder on another disk",
            )

    def close(self) -> None:
        """Forget the raster."""
        with self._decoding:
            self._raster = None


def _jpeg(path: Path) -> Flat:
    with _mapped(path) as data:
        # libjpeg fills up what is missing with grey and says nothing; the end marker tells.
        if data.rfind(b"\xff\xd9") < 0:
            raise DamagedSlideError("The JPEG file is truncated", where=path, todo="Copy or download it again")
    with JpegImagePlugin.JpegImageFile(path) as image:
        if image.mode not in {"L", "RGB"}:
            return _pillow(path)
        colour = "RGB" if image.mode == "RGB" else "GRAYSCALE"

        def decode(out: NDArray[np.uint8]) -> None:
            with _mapped(path) as data:
                imagecodecs.jpeg8_decode(data, outcolorspace=colour, out=out if colour == "RGB" else out[:, :, 0])

        return _described(image, decode)


def _png(path: Path) -> Flat:
    with _mapped(path) as data:
        if data.rfind(b"IEND") < 0:
            raise DamagedSlideError("The PNG file is truncated", where=path, todo="Copy or download it again")
    with PngImagePlugin.PngImageFile(path) as image:
        if image.mode not in {"L", "LA", "RGB", "RGBA"} or "transparency" in image.info:
            return _pillow(path)

        def decode(out: NDArray[np.uint8]) -> None:
            with _mapped(path) as data:
                imagecodecs.png_decode(data, out=out if out.shape[2] > 1 else out[:, :, 0])

        return _described(image, decode)


def _pillow(path: Path) -> Flat:
    """Any other image, decoded in memory: palettes, CMYK, and the formats of Pillow."""

    def decode(out: NDArray[np.uint8]) -> None:
        with Image.open(path) as image, image.convert("RGBA") as converted:
            out[:] = laid_on_white(np.asarray(converted))

    with Image.open(path) as image:
        if image.mode.startswith(("I", "F")):
            raise SlideError("its pixels are not 8 bits per colour")
        flat = _described(image, decode)
    return Flat((*flat.shape[:2], 3), decode, flat.facts)


def _described(image: Any, decode: Callable[[NDArray[np.uint8]], None]) -> Flat:
    dpi = image.info.get("dpi")
    sizes = (PixelSize("image resolution tag", *(25_400 / float(v) for v in dpi)),) if dpi and all(dpi) else ()
    shape = (image.height, image.width, len(image.getbands()))
    icc = image.info.get("icc_profile") if image.mode.startswith("RGB") else None
    return Flat(shape, decode, Facts(f"plain {image.format}", image.format, sizes, icc=icc))


def _tiff(path: Path) -> Flat:
    with tifffile.TiffFile(path) as tif:
        series = max(tif.series, key=lambda s: s.keyframe.imagewidth * s.keyframe.imagelength)
        page, index = series.keyframe, series.keyframe.index
        channels = page.samplesperpixel
        if page.dtype != np.uint8 or page.photometric.name not in {"RGB", "YCBCR", "MINISBLACK"} or channels > 4:
            raise SlideError(f"its pixels are {page.dtype} {page.photometric.name}, not 8-bit RGB")
        if len(series.pages) > 1 or page.is_subifd:
            raise SlideError(f"it holds {len(series.pages)} planes ({series.axes}), not one image")
        ends = np.asarray(page.dataoffsets, dtype=np.int64) + np.asarray(page.databytecounts, dtype=np.int64)
        if ends.max(initial=0) > path.stat().st_size:
            raise DamagedSlideError("The TIFF file is truncated", where=path, todo="Copy or download it again")
        sizes, power = tuple(pixel_sizes(tif, page)), objective_power(tif, page)
        facts = Facts("plain TIFF", page.compression.name, sizes, power, icc=page.iccprofile)
        shape = (page.imagelength, page.imagewidth, channels)
        apart = page.planarconfig == 2

    def decode(out: NDArray[np.uint8]) -> None:
        with tifffile.TiffFile(path) as tif:
            pixels = tif.pages[index].asarray(out=None if apart else out.reshape(tif.pages[index].shape))
            if apart:
                out[:] = np.moveaxis(pixels, 0, -1)

    return Flat(shape, decode, facts)


@contextmanager
def _mapped(path: Path) -> Iterator[mmap.mmap]:
    """A file's bytes, without reading them all into memory."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        yield data

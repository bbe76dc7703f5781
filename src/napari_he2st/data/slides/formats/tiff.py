"""Tiled TIFF pyramids: generic, Aperio SVS and OME-TIFF, whose tiles are decoded here."""

from __future__ import annotations

import math
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image

from napari_he2st.core.errors import SlideError
from napari_he2st.data.slides.source import (
    MAX_TILE_BYTES,
    PARSE_ERRORS,
    DamagedSlideError,
    Facts,
    FileBytes,
    Source,
    TileError,
    TileLevel,
    downsample_of,
    laid_on_white,
    slide_reader,
)
from napari_he2st.data.slides.tiff_metadata import objective_power, pixel_sizes

# Vendors whose tiles overlap, are padded or do not lie in reading order: OpenSlide knows their rules.
_VENDORS = {"ndpi": "Hamamatsu NDPI", "scn": "Leica SCN", "bif": "Ventana BIF", "philips": "Philips TIFF"}
_COMPRESSIONS = {"APERIO_JP2000_RGB": "JPEG 2000", "JPEG2000": "JPEG 2000", "ADOBE_DEFLATE": "DEFLATE"}
_JPEG = 7
_APERIO_JPEG2000_YCBCR = 33003


@slide_reader(
    "tiff",
    "Tiled TIFF, Aperio SVS, OME-TIFF",
    order=10,
    formats={"tiled TIFF": "real file", "Aperio SVS": "real file", "OME-TIFF, levels in SubIFDs": "generated file"},
)
def read_tiff(path: Path) -> Source:
    """Open a tiled TIFF with 8-bit grey or RGB pixels.

    Raises
    ------
    SlideError
        It is no such file.
    DamagedSlideError
        It is, but its tiles do not fit its size or lie beyond its end.
    """
    try:
        with tifffile.TiffFile(path) as tif:
            return TiffSource(path, tif)
    except SlideError:
        raise
    except PARSE_ERRORS as error:
        raise SlideError(f"not a readable TIFF ({error})") from error


class TiffSource(Source):
    """A tiled TIFF; compressed tiles are read from the file and decoded one by one."""

    def __init__(self, path: Path, tif: Any) -> None:
        for flag, vendor in _VENDORS.items():
            if getattr(tif, f"is_{flag}"):
                raise SlideError(f"{vendor} is left to OpenSlide")
        if tif.pages.first.software.startswith("MedScan"):
            raise SlideError("Trestle is left to OpenSlide")
        self._planes = [_Planes(level) for level in _find_levels(tif)]
        full = self._planes[0].width, self._planes[0].height
        self.levels = tuple(
            TileLevel(p.width, p.height, p.tile_width, p.tile_height, downsample_of(full, (p.width, p.height)))
            for p in self._planes
        )
        page = self._planes[0].page
        self.facts = Facts(
            format="Aperio SVS" if tif.is_svs else "OME-TIFF" if tif.is_ome else "tiled TIFF",
            compression=_COMPRESSIONS.get(page.compression.name, page.compression.name),
            pixel_sizes=tuple(pixel_sizes(tif, page)),
            objective_power=objective_power(tif, page),
            icc=page.iccprofile,
            associated=_associated(tif, page),
            more={"images": len(tif.series)} if tif.is_ome and len(tif.series) > 1 else {},
        )
        self._file = FileBytes(path)
        beyond = sum(planes.beyond(self._file.size) for planes in self._planes)
        if beyond:
            self._file.close()
            total = sum(planes.offsets.size for planes in self._planes)
            raise DamagedSlideError(
                f"The file is truncated: {beyond} of its {total} tiles lie beyond its end",
                where=path,
                todo="Copy or download it again",
            )

    def decode_tile(
        self, level: int, column: int, row: int, out: NDArray[np.uint8] | None = None
    ) -> NDArray[np.uint8] | None:
        """See :meth:`Source.decode_tile`."""
        planes = self._planes[level]
        index = row * self.levels[level].columns + column
        parts = []
        for plane in range(len(planes.offsets)):
            size = int(planes.sizes[plane, index])
            if size == 0:  # a sparse file leaves empty tiles out
                return None
            data = self._file.read(int(planes.offsets[plane, index]), size)
            try:
                parts.append(planes.decode(data, out if len(planes.offsets) == 1 else None))
            except PARSE_ERRORS as error:
                message = f"Tile at column {column}, row {row} of level {level} is damaged ({error})"
                raise TileError(message, todo="Copy the file again if this happens often") from error
        return laid_on_white(parts[0] if len(parts) == 1 else np.concatenate(parts, axis=2))

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class _Planes:
    """Where the tiles of one level lie in the file, and how they are decoded.

    ``offsets`` and ``sizes`` have shape (planes, tiles): one plane where the colours of a pixel lie
    together, three where they are stored apart.
    """

    def __init__(self, level: Any) -> None:
        page = self.page = level.keyframe
        self.width, self.height = page.imagewidth, page.imagelength
        self.tile_width, self.tile_height = page.tilewidth, page.tilelength
        _check_pixels(page)
        tiles = math.ceil(self.width / self.tile_width) * math.ceil(self.height / self.tile_height)
        pages = list(level.pages)[:3]
        apart = page.samplesperpixel if page.planarconfig == 2 else 1
        self.offsets = np.concatenate([_table(p.dataoffsets, apart, tiles) for p in pages])
        self.sizes = np.concatenate([_table(p.databytecounts, apart, tiles) for p in pages])
        samples = 1 if page.planarconfig == 2 else page.samplesperpixel
        self._shape = (self.tile_height, self.tile_width, samples)
        self.decode = self._jpeg_decoder() if page.compression == _JPEG else self._any_decoder()

    def beyond(self, file_size: int) -> int:
        """How many tiles lie beyond the end of the file."""
        return int(np.count_nonzero((self.sizes > 0) & (self.offsets + self.sizes > file_size)))

    def _any_decoder(self) -> Callable[[bytes, NDArray[np.uint8] | None], NDArray[np.uint8]]:
        decode, shape = self.page.decode, self._shape

        def decode_tile(data: bytes, out: NDArray[np.uint8] | None) -> NDArray[np.uint8]:
            pixels: NDArray[np.uint8] = decode(data, 0, _fullsize=True)[0]
            return pixels.reshape(shape)

        return decode_tile

    def _jpeg_decoder(self) -> Callable[[bytes, NDArray[np.uint8] | None], NDArray[np.uint8]]:
        page, shape = self.page, self._shape
        tables = page.jpegtables
        space, out_space = tifffile.tifffile.jpeg_decode_colorspace(
            page.photometric, page.planarconfig, page.extrasamples, page.is_jfif
        )

        def decode_tile(data: bytes, out: NDArray[np.uint8] | None) -> NDArray[np.uint8]:
            # libjpeg fills up what is missing with grey and says nothing; the end marker tells.
            if data.rfind(b"\xff\xd9", len(data) - 64) < 0:
                raise ValueError("its end is missing")
            if out is None or out.shape != shape:
                out = np.empty(shape, dtype=np.uint8)
            target = out if shape[2] > 1 else out[:, :, 0]
            try:
                imagecodecs.jpeg8_decode(data, tables=tables, colorspace=space, outcolorspace=out_space, out=target)
            except ValueError:  # another size, as some writers cut tiles at the edge of the image
                target = np.empty((*_jpeg_size(data, shape[:2]), *target.shape[2:]), dtype=np.uint8)
                imagecodecs.jpeg8_decode(data, tables=tables, colorspace=space, outcolorspace=out_space, out=target)
                out[: target.shape[0], : target.shape[1]] = target.reshape(*target.shape[:2], shape[2])
            return out

        return decode_tile


def _jpeg_size(data: bytes, largest: tuple[int, ...]) -> tuple[int, int]:
    """Declared (height, width) of a JPEG tile; refused above ``largest``, before anything is allocated."""
    with Image.open(BytesIO(data)) as image:
        width, height = image.size
    if height > largest[0] or width > largest[1]:
        message = f"it declares {width} × {height} pixels"
        raise ValueError(message)
    return height, width


def _table(values: Any, apart: int, tiles: int) -> NDArray[np.int64]:
    table = np.asarray(values, dtype=np.int64)
    if table.size < apart * tiles:
        raise DamagedSlideError(
            f"The file declares {apart * tiles} tiles but lists {table.size}", todo="Copy or download it again"
        )
    return table[: apart * tiles].reshape(apart, tiles)


def _check_pixels(page: Any) -> None:
    if not page.is_tiled:
        raise SlideError("its pixels are not stored in tiles")
    if page.compression == _APERIO_JPEG2000_YCBCR:
        raise SlideError("JPEG 2000 tiles in YCbCr are left to OpenSlide")
    if page.dtype != np.uint8:
        raise SlideError(f"its pixels are {page.dtype}, not 8 bits per colour")
    if page.samplesperpixel > 4:
        raise SlideError(f"its pixels have {page.samplesperpixel} channels")
    if page.photometric.name not in {"RGB", "YCBCR", "MINISBLACK"}:
        raise SlideError(f"its pixels are {page.photometric.name}, not RGB")
    if page.tilewidth * page.tilelength * page.samplesperpixel > MAX_TILE_BYTES:
        raise DamagedSlideError(
            f"The file declares tiles of {page.tilewidth} × {page.tilelength} pixels", todo="Check where it comes from"
        )


def _associated(tif: Any, page: Any) -> tuple[str, ...]:
    """Names of the pictures beside the slide; only Aperio files name them."""
    if not tif.is_svs:
        return ()
    return tuple(s.name.lower() for s in tif.series if s.keyframe is not page and s.name and s.name != "Baseline")


def _find_levels(tif: Any) -> list[Any]:
    """The levels of the largest image of the file, largest first."""
    if not tif.series:
        raise SlideError("it holds no image")
    series = max(tif.series, key=lambda s: s.keyframe.imagewidth * s.keyframe.imagelength)
    first = series.keyframe
    if set(series.axes) - set("YXSC") or ("C" in series.axes and series.shape[series.axes.index("C")] not in {1, 3}):
        raise SlideError(f"its axes are {series.axes} {series.shape}: not one RGB image")
    levels = list(series.levels)
    if len(levels) == 1:  # some writers do not mark the smaller pages as levels of the first
        aspect = first.imagewidth / first.imagelength
        others = [s for s in tif.series if s is not series and s.keyframe.is_tiled and s.dtype == series.dtype]
        levels += [
            s
            for s in sorted(others, key=lambda s: -s.keyframe.imagewidth)
            if abs(s.keyframe.imagewidth / s.keyframe.imagelength / aspect - 1) < 0.02
            and s.keyframe.imagewidth < first.imagewidth
        ]
    return [level for level in levels if level.keyframe.is_tiled or level is levels[0]]

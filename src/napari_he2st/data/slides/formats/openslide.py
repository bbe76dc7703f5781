"""Whatever OpenSlide reads: MRXS, NDPI, SCN, BIF, VMS, DICOM and more."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from napari_he2st.core.errors import SlideError
from napari_he2st.data.slides.pixel_size import PixelSize, number
from napari_he2st.data.slides.source import (
    MAX_TILE_BYTES,
    PARSE_ERRORS,
    DamagedSlideError,
    Facts,
    Source,
    TileError,
    TileLevel,
    laid_on_white,
    slide_reader,
)

_BLOCK_PX = 1024
"""OpenSlide places tiles itself, so blocks are read; larger ones cost less per pixel but more memory."""


@slide_reader(
    "openslide",
    "MRXS, NDPI, SCN, BIF, DICOM and whatever else OpenSlide reads",
    order=20,
    formats={
        "Hamamatsu NDPI": "generated file",
        "Leica SCN": "generated file",
        "Philips TIFF": "generated file",
        "Trestle": "generated file",
        "Ventana BIF": "untested here",
        "MIRAX": "untested here",
        "Hamamatsu VMS and VMU": "untested here",
        "Sakura SVSLIDE": "untested here",
    },
)
def read_openslide(path: Path) -> Source:
    """Open a slide with OpenSlide.

    Raises
    ------
    SlideError
        OpenSlide cannot read it, or its library is missing.
    """
    try:
        import openslide
    except ImportError as error:  # a package without its binary
        raise SlideError(f"OpenSlide is not installed ({error})", todo="pip install openslide-bin") from error
    _check_tiles(path)
    try:
        return OpenSlideSource(path, openslide)
    except openslide.OpenSlideUnsupportedFormatError as error:
        raise SlideError("not a format that OpenSlide knows") from error
    except openslide.OpenSlideError as error:
        raise SlideError(str(error).replace(f"{path}", path.name)) from error


class OpenSlideSource(Source):
    """A slide read in blocks whose size is a multiple of the file's own tiles."""

    def __init__(self, path: Path, openslide: Any) -> None:
        self._path, self._openslide = path, openslide
        self._reopening = threading.Lock()
        slide = self._slide = openslide.OpenSlide(path)
        properties = slide.properties
        levels = []
        for i, (size, downsample) in enumerate(zip(slide.level_dimensions, slide.level_downsamples, strict=True)):
            tile = [int(properties.get(f"openslide.level[{i}].tile-{side}", 256)) for side in ("width", "height")]
            # NDPI states its whole levels as tiles, but is read in parts.
            if properties.get("openslide.vendor") == "dicom" and tile[0] * tile[1] * 4 > MAX_TILE_BYTES:
                raise DamagedSlideError(f"It declares tiles of {tile}", where=path, todo="Check where it comes from")
            # Whole tiles where possible, and even, so that a block can be halved.
            block = [side * (_BLOCK_PX // side) if side <= _BLOCK_PX and side % 2 == 0 else _BLOCK_PX for side in tile]
            levels.append(TileLevel(size[0], size[1], block[0], block[1], float(downsample)))
        self.levels = tuple(levels)
        vendor = properties.get("openslide.vendor", "unknown")
        self.facts = Facts(
            format=f"OpenSlide {vendor}",
            compression="decoded by OpenSlide",
            pixel_sizes=tuple(_pixel_sizes(properties, vendor)),
            objective_power=number(properties.get("openslide.objective-power")),
            identity=properties.get("openslide.quickhash-1", ""),
            icc=_profile(slide) if "openslide.icc-size" in properties else None,
            associated=tuple(slide.associated_images),
            more={"vendor": vendor},
        )

    def decode_tile(
        self, level: int, column: int, row: int, out: NDArray[np.uint8] | None = None
    ) -> NDArray[np.uint8] | None:
        """See :meth:`Source.decode_tile`."""
        shape = self.levels[level]
        x, y = column * shape.tile_width, row * shape.tile_height
        size = min(shape.tile_width, shape.width - x), min(shape.tile_height, shape.height - y)
        slide = self._slide
        try:
            image = slide.read_region((round(x * shape.downsample), round(y * shape.downsample)), level, size)
        except (self._openslide.OpenSlideError, ValueError) as error:  # ValueError: closed
            self._reopen(slide)
            raise TileError(f"A block at ({x}, {y}) of level {level} is damaged ({error})") from error
        rgba: NDArray[np.uint8] = np.asarray(image)
        return laid_on_white(rgba)

    def _reopen(self, failed: Any) -> None:
        """Replace a handle that failed: OpenSlide refuses everything after an error."""
        with self._reopening:
            if self._slide is failed and failed is not None:
                try:
                    self._slide = self._openslide.OpenSlide(self._path)
                except self._openslide.OpenSlideError:  # the file is gone; the next read says so
                    return

    def close(self) -> None:
        """Close the slide."""
        self._slide.close()


def _check_tiles(path: Path) -> None:
    """Refuse a TIFF file that declares huge tiles: OpenSlide ends the process when it finds no memory for one.

    Raises
    ------
    DamagedSlideError
        A tile has more than 256 MB.
    SlideError
        It begins as a TIFF file but is none.
    """
    with path.open("rb") as file:
        if file.read(2) not in {b"II", b"MM"}:
            return
    try:
        with tifffile.TiffFile(path) as tif:
            for page in tif.pages:
                tile = page.aspage().tags.get(322), page.aspage().tags.get(323)  # width, length
                width, height = (1 if tag is None else int(tag.value) for tag in tile)
                if width * height * 4 > MAX_TILE_BYTES:
                    raise DamagedSlideError(
                        f"The file declares tiles of {width} × {height} pixels",
                        where=path,
                        todo="Check where it comes from",
                    )
    except SlideError:
        raise
    except PARSE_ERRORS as error:
        raise SlideError(f"not a readable TIFF ({error})") from error


def _profile(slide: Any) -> bytes | None:
    """The ICC profile, which OpenSlide hands out with pixels."""
    icc: bytes | None = slide.read_region((0, 0), slide.level_count - 1, (1, 1)).info.get("icc_profile")
    return icc


def _pixel_sizes(properties: Any, vendor: str) -> list[PixelSize]:
    sides = [number(properties.get(f"openslide.mpp-{axis}")) for axis in "xy"]
    if sides[0] is None or sides[1] is None:
        return []
    # OpenSlide computes the size of a generic TIFF from its resolution tags.
    source = "TIFF resolution tag" if vendor == "generic-tiff" else "openslide.mpp-x"
    return [PixelSize(source, sides[0], sides[1])]

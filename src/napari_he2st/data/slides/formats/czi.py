"""Zeiss CZI, through pylibCZIrw (the extra ``czi``)."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray

from napari_he2st.core.errors import SlideError
from napari_he2st.data.slides.pixel_size import PixelSize, number
from napari_he2st.data.slides.source import (
    PARSE_ERRORS,
    Facts,
    OtherFormatError,
    Source,
    TileError,
    TileLevel,
    laid_on_white,
    slide_reader,
)

_BLOCK_PX = 1024
_SMALLEST_PX = 1024  # the coarsest level is at most this large


@slide_reader("czi", "Zeiss CZI (extra: czi)", order=15, formats={"Zeiss CZI": "generated file"})
def read_czi(path: Path) -> Source:
    """Open a bright-field CZI; all its scenes lie on one plane, as they do on the glass.

    Raises
    ------
    SlideError
        It is no CZI of 8-bit pixels, or pylibCZIrw is not installed.
    """
    with path.open("rb") as file:
        if file.read(10) != b"ZISRAWFILE":
            raise OtherFormatError("not a CZI file")
    try:
        from pylibCZIrw import czi
    except ImportError as error:
        raise SlideError("pylibCZIrw is not installed", todo="pip install 'napari-he2st[czi]'") from error
    try:
        return CziSource(czi.CziReader(str(path)))
    except SlideError:
        raise
    except PARSE_ERRORS as error:
        raise SlideError(f"not a readable CZI file ({error})") from error


class CziSource(Source):
    """A CZI read in blocks at powers of two, which its own pyramid makes quick."""

    def __init__(self, czi: Any) -> None:
        self._czi, self._lock = czi, threading.Lock()
        if czi.pixel_types.get(0) not in {"Bgr24", "Gray8"} or len(czi.pixel_types) != 1:
            raise SlideError(f"its pixels are {', '.join(czi.pixel_types.values())}, not 8-bit RGB")
        # The pyramid's own blocks stand over the scanned area.
        x, y, width, height = czi.total_bounding_rectangle_no_pyramid
        if width < 1 or height < 1:
            raise SlideError("it holds no image")
        self._corner = x, y
        levels: list[TileLevel] = []
        downsample = 1
        while not levels or max(levels[-1].width, levels[-1].height) > _SMALLEST_PX:
            size = -(-width // downsample), -(-height // downsample)
            levels.append(TileLevel(*size, _BLOCK_PX, _BLOCK_PX, float(downsample)))
            downsample *= 2
        self.levels = tuple(levels)
        root = _xml(czi.raw_metadata)
        self.facts = Facts(
            format="Zeiss CZI",
            compression="decoded by libCZI",
            pixel_sizes=tuple(_pixel_sizes(root)),
            objective_power=number(root.findtext(".//Objectives/Objective/NominalMagnification")),
        )

    def decode_tile(
        self, level: int, column: int, row: int, out: NDArray[np.uint8] | None = None
    ) -> NDArray[np.uint8] | None:
        """See :meth:`Source.decode_tile`."""
        shape = self.levels[level]
        x, y = column * shape.tile_width, row * shape.tile_height
        width, height = min(shape.tile_width, shape.width - x), min(shape.tile_height, shape.height - y)
        step = int(shape.downsample)
        roi = self._corner[0] + x * step, self._corner[1] + y * step, width * step, height * step
        try:
            with self._lock:
                read = self._czi.read(roi=roi, zoom=1 / step, background_pixel=(1.0, 1.0, 1.0))
        except PARSE_ERRORS as error:
            message = f"Block at column {column}, row {row} of level {level} is damaged ({error})"
            raise TileError(message, todo="Copy the file again") from error
        pixels = np.atleast_3d(read)[:height, :width, ::-1]  # blue comes first
        return np.ascontiguousarray(laid_on_white(pixels))

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._czi.close()


def _xml(text: str) -> ElementTree.Element:
    if "<!DOCTYPE" in text or "<!ENTITY" in text:  # no CZI has them; entities can grow without end
        raise SlideError("its metadata hold entities")
    try:
        return ElementTree.fromstring(text)  # noqa: S314 - entities are left out above
    except ElementTree.ParseError as error:
        raise SlideError(f"its metadata cannot be parsed ({error})") from error


def _pixel_sizes(root: ElementTree.Element) -> list[PixelSize]:
    sides = [number(root.findtext(f".//Scaling/Items/Distance[@Id='{axis}']/Value")) for axis in "XY"]
    if sides[0] is None or sides[1] is None:
        return []
    return [PixelSize("CZI scaling", sides[0] * 1e6, sides[1] * 1e6)]

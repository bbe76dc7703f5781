"""What a slide format has to supply: levels made of tiles, and what the file says of itself."""

from __future__ import annotations

import os
import struct
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_he2st.core.errors import SlideError
from napari_he2st.core.registry import Registry
from napari_he2st.data.slides.pixel_size import PixelSize

PARSE_ERRORS = (
    ArithmeticError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    OSError,
    RuntimeError,
    SyntaxError,
    SystemError,
    TypeError,
    ValueError,
    struct.error,
)
"""What the libraries that parse files raise on damaged ones."""

MAX_TILE_BYTES = 256 * 2**20
"""A file that declares larger tiles is refused before anything is allocated."""


class TileError(SlideError):
    """One tile cannot be decoded; the rest of the slide can."""


@dataclass(frozen=True)
class TileLevel:
    """One resolution level of a slide, made of equal tiles; the last column and row may stand over.

    Attributes
    ----------
    width, height
        Size in pixels of this level.
    tile_width, tile_height
        Size of one tile.
    downsample
        Level-0 pixels per pixel of this level.
    """

    width: int
    height: int
    tile_width: int
    tile_height: int
    downsample: float

    @property
    def columns(self) -> int:
        """How many tiles lie side by side."""
        return -(-self.width // self.tile_width)

    @property
    def rows(self) -> int:
        """How many tiles lie one above the other."""
        return -(-self.height // self.tile_height)


@dataclass(frozen=True)
class Facts:
    """What a file says of itself, without anything about the patient.

    Attributes
    ----------
    format
        Such as ``"Aperio SVS"``.
    compression
        Of the tiles, such as ``"JPEG"``.
    pixel_sizes
        All statements of the pixel size, the most trustworthy first.
    objective_power
        Magnification of the objective; never turned into a pixel size.
    identity
        Text that tells slides apart whose main file alone does not, such as OpenSlide's own hash.
    icc
        ICC profile of the pixels, or None.
    associated
        Names of the other pictures in the file, such as ``"label"`` and ``"macro"``; never shown, since they
        can tell the patient.
    more
        Further JSON-able facts for :meth:`napari_he2st.data.slides.Slide.info`.
    """

    format: str
    compression: str
    pixel_sizes: tuple[PixelSize, ...] = ()
    objective_power: float | None = None
    identity: str = ""
    icc: bytes | None = None
    associated: tuple[str, ...] = ()
    more: dict[str, Any] = field(default_factory=dict)


class Source(ABC):
    """An open file of one format. All methods may be called from any thread.

    Attributes
    ----------
    levels
        From the full resolution to the coarsest.
    facts
        What the file says of itself.
    """

    levels: tuple[TileLevel, ...]
    facts: Facts

    @abstractmethod
    def decode_tile(
        self, level: int, column: int, row: int, out: NDArray[np.uint8] | None = None
    ) -> NDArray[np.uint8] | None:
        """Pixels of one tile, uint8 (h, w, 3), or None where the file has none (white).

        Parameters
        ----------
        level, column, row
            Which tile.
        out
            Buffer (tile_height, tile_width, 3) that may be used and returned; it saves allocating.

        Raises
        ------
        TileError
            The tile is damaged.
        """

    def close(self) -> None:  # noqa: B027 - most formats hold nothing open
        """Release the file."""


SLIDE_READERS: Registry[Any] = Registry("slide reader", "napari_he2st.data.slides.formats", "napari_he2st.slides")

slide_reader = SLIDE_READERS.register
"""Register a function ``(path) -> Source``; it raises :class:`SlideError` with a reason when it cannot.

Facts: ``order`` says when it is asked, lowest first (50 if left out). ``folders``, a function of a folder's
path, says whether the folder is a slide of this format; only then the reader is asked for it. ``urls=True``:
the reader takes addresses such as ``https://…`` as text. ``formats`` says by format how it was tried:
``"real file"``, ``"generated file"`` or ``"untested here"``. :class:`DamagedSlideError` ends the search.
"""


class OtherFormatError(SlideError):
    """The file plainly is of another format, which need not be told."""


class DamagedSlideError(SlideError):
    """The format is known but the file is damaged, so asking other readers is of no use."""


def downsample_of(full: tuple[int, int], size: tuple[int, int]) -> float:
    """Level-0 pixels per pixel of a level of ``size``, given the ``full`` size (both width, height).

    Sizes are rounded when a pyramid is written; a whole number is meant wherever it explains the sizes.
    """
    ratios = full[0] / size[0], full[1] / size[1]
    whole = max(1, round(sum(ratios) / 2))
    if all(abs(n - m * whole) < whole for n, m in zip(full, size, strict=True)):
        return float(whole)
    return sum(ratios) / 2


def laid_on_white(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """RGB of grey, grey and alpha, RGB, or RGB and alpha, uint8 (h, w, 1 to 4); what is transparent becomes white."""
    if pixels.shape[2] in {2, 4}:
        alpha = pixels[:, :, -1:]
        pixels = pixels[:, :, :-1]
        if alpha.min() < 255:
            weight = alpha.astype(np.uint16)
            pixels = ((pixels * weight + 255 * (255 - weight) + 127) // 255).astype(np.uint8)
    return np.repeat(pixels, 3, axis=2) if pixels.shape[2] == 1 else pixels


class FileBytes:
    """Random reading of a file from any thread."""

    def __init__(self, path: Path) -> None:
        self._path, self._file = path, path.open("rb", buffering=0)
        self.size = os.fstat(self._file.fileno()).st_size

    def read(self, offset: int, size: int) -> bytes:
        """The ``size`` bytes from ``offset``.

        Raises
        ------
        TileError
            The file ends before, or it cannot be read.
        """
        try:
            data = _pread(self._file, size, offset)
        except (OSError, ValueError) as error:  # ValueError: closed
            raise TileError(f"Cannot read the slide ({error})", where=self._path) from error
        if len(data) != size:
            raise TileError("The file ends too early", where=self._path, todo="Copy it again")
        return data

    def close(self) -> None:
        """Close the file."""
        self._file.close()


if hasattr(os, "pread"):

    def _pread(file: Any, size: int, offset: int) -> bytes:
        return os.pread(file.fileno(), size, offset)

else:  # Windows has no positional read
    import threading

    _seek_lock = threading.Lock()

    def _pread(file: Any, size: int, offset: int) -> bytes:
        with _seek_lock:
            file.seek(offset)
            return bytes(file.read(size))

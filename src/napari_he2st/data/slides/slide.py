"""An open slide."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from napari_he2st.core.errors import SlideError
from napari_he2st.data.slides.colour import Recolour, to_srgb
from napari_he2st.data.slides.drawing import Drawing, DrawnLevel
from napari_he2st.data.slides.fingerprint import fingerprint_of
from napari_he2st.data.slides.opening import describe, located, open_source, pixel_size_of, slide_name
from napari_he2st.data.slides.pixel_size import PixelSize, check_mpp, missing_mpp
from napari_he2st.data.slides.pyramid import Pyramid
from napari_he2st.data.slides.resample import SAME, plan_cut
from napari_he2st.data.slides.source import Source, TileError
from napari_he2st.data.slides.stream import TileBatch, stream

if TYPE_CHECKING:
    import dask.array

CACHE_BYTES = 96 * 2**20
"""Decoded tiles kept for drawing, per slide."""

SHRUNK_BYTES = 32 * 2**20
"""Tiles kept of levels that the file lacks, per slide."""

MAX_REGION_PX = 16_000
"""Width and height that :meth:`Slide.read` returns at most."""


@dataclass(frozen=True)
class Level:
    """A resolution level that a slide's file holds.

    Attributes
    ----------
    width, height
        Size in pixels of this level.
    downsample
        Level-0 pixels per pixel of this level.
    """

    width: int
    height: int
    downsample: float


class Slide:
    """A slide, whatever its format; made by :meth:`open`. All methods may be called from any thread.

    Attributes
    ----------
    path
        Its file or folder; text where it is an address.
    name
        What it is called: its file's name without the suffix, unless :meth:`open` was told another.
    mpp
        Micrometres per level-0 pixel.
    mpp_source
        Where ``mpp`` comes from: ``"given"``, ``"stated on …"``, or ``"metadata: …"``.
    levels
        The levels of the file, from the full resolution to the coarsest.
    """

    def __init__(
        self,
        path: Path | str,
        source: Source,
        mpp: float,
        mpp_source: str,
        recolour: tuple[Recolour, ...] = (),
        of: Slide | None = None,
        name: str | None = None,
    ) -> None:
        self.name = name or slide_name(path)
        self.path, self.mpp, self.mpp_source = path, mpp, mpp_source
        self._source, self._recolour, self._of = source, recolour, of
        self._pyramid: Pyramid = Pyramid(source, SHRUNK_BYTES) if of is None else of._pyramid
        self._drawing: Drawing = Drawing(self._pyramid, CACHE_BYTES) if of is None else of._drawing
        self.levels = [Level(v.width, v.height, v.downsample) for v in source.levels]
        self._closed = False

    @classmethod
    def open(cls, path: str | Path, *, mpp: float | None = None, icc: bool = True, name: str | None = None) -> Slide:
        """Open a slide.

        Parameters
        ----------
        path
            Its file, its folder (OME-Zarr), or its address (``https://…``, ``s3://…``).
        mpp
            Micrometres per level-0 pixel; overrides what the file states and what was stated before.
        icc
            Convert colours to sRGB where the file has an ICC profile.
        name
            What it is called, such as the section that it shows; by default its file's name.

        Raises
        ------
        SlideError
            There is no such file, no reader can open it, it is damaged, or ``mpp`` is not above zero.
        MissingMppError
            The file does not state its pixel size and ``mpp`` is not given.
        """
        where = located(path)
        source = open_source(where)
        try:
            size, origin = pixel_size_of(where, source, mpp)
            if size is None or origin is None:
                raise missing_mpp(str(where), source.facts.objective_power)
        except SlideError:
            source.close()
            raise
        slide = cls(where, source, size, origin, name=name)
        if icc and slide._profile is not None:
            slide._recolour = (slide._profile,)
        return slide

    def recoloured(self, recolour: Recolour) -> Slide:
        """The slide in other colours, such as those of another stain.

        It shares the file and the decoded tiles with this one, its :attr:`original`, and closes with it.
        """
        changes = (*self._recolour, recolour)
        return Slide(self.path, self._source, self.mpp, self.mpp_source, changes, self.original, self.name)

    def by_profile(self, on: bool) -> Slide:
        """The slide with its colours converted by its ICC profile, or as stored; shares the file as :meth:`recoloured`.

        Of a slide that was recoloured otherwise, that is undone.
        """
        way = self._profile if on else None
        changes = () if way is None else (way,)
        return Slide(self.path, self._source, self.mpp, self.mpp_source, changes, self.original, self.name)

    @property
    def profiled(self) -> bool | None:
        """Whether colours are converted by the file's ICC profile; None where it has none that changes them."""
        way = self._profile
        return None if way is None else way in self._recolour

    @cached_property
    def _profile(self) -> Recolour | None:
        return self.original._profile if self._of is not None else to_srgb(self._source.facts.icc)

    @property
    def colours(self) -> str:
        """What is done to the colours of the file: ``"as stored"``, or the keys of all changes."""
        return " + ".join(recolour.key for recolour in self._recolour) or "as stored"

    def __enter__(self) -> Slide:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Slide({self.name!r}, {self.size[0]} × {self.size[1]} px, {self.mpp:.4g} µm/px, {self.format})"

    def close(self) -> None:
        """Release the file; the slide cannot be read any more."""
        self._closed = True
        if self._of is None:
            self._drawing.close()
            self._source.close()

    @property
    def original(self) -> Slide:
        """The slide whose file this one shares, where it is recoloured; else itself."""
        return self._of or self

    @property
    def format(self) -> str:
        """Name of the format."""
        return self._source.facts.format

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) in level-0 pixels."""
        return self.levels[0].width, self.levels[0].height

    @property
    def stated_pixel_sizes(self) -> tuple[PixelSize, ...]:
        """All that the file says of its pixel size, usable or not."""
        return self._source.facts.pixel_sizes

    @property
    def decoded(self) -> int:
        """How many tiles of the file have been decoded so far."""
        return self._pyramid.decoded

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the content, see :func:`napari_he2st.data.slides.fingerprint.fingerprint_of`."""
        return fingerprint_of(self.path, self._source.facts.identity)

    def info(self) -> dict[str, Any]:
        """What is known of the slide, JSON-able: see :func:`napari_he2st.data.slides.probe`."""
        return describe(self.path, self._source, self.mpp, self.mpp_source)

    def read(self, x: float, y: float, width: int, height: int, *, mpp: float) -> NDArray[np.uint8]:
        """Read a region.

        Parameters
        ----------
        x, y
            Upper left corner in level-0 pixels; may lie outside the slide.
        width, height
            Size in pixels of the result.
        mpp
            Micrometres per pixel of the result.

        Returns
        -------
            uint8, shape (height, width, 3), RGB, white outside the slide.

        Raises
        ------
        TileError
            A part of it is damaged.
        SlideError
            A size or ``mpp`` is not above zero, a size is above 16,000, or the slide is closed.
        """
        pixels, ok = self._read(x, y, (width, height), check_mpp(mpp))
        if not ok:
            raise TileError("A part of this region cannot be decoded", where=self.path, todo="Copy the file again")
        return pixels

    def read_tiles(
        self,
        centres: ArrayLike,
        px: int,
        mpp: float,
        *,
        batch_size: int = 64,
        threads: int = 2,
        exact: bool = True,
    ) -> Iterator[TileBatch]:
        """Read square tiles around ``centres``, batch by batch, in their order.

        Each compressed tile of the file is decoded once if the centres are in raster order. Memory stays
        bounded. The batches of several calls with the same centres and ``batch_size`` belong together.

        Parameters
        ----------
        centres
            Level-0 pixels (x, y), shape (n, 2).
        px
            Width of a tile in its own pixels.
        mpp
            Micrometres per pixel of a tile. A level or a whole factor that fits within 1 % is taken as it is.
        batch_size
            Tiles per batch; only the last batch is smaller.
        threads
            How many threads decode.
        exact
            Resize from the very positions at factors that are not whole; otherwise from whole pixels of the
            level, which is faster.

        Yields
        ------
            Batches; a tile with a damaged part has ``ok`` False, and the run goes on.

        Raises
        ------
        SlideError
            An argument is out of range, or the slide is closed.
        """
        points = np.asarray(centres, dtype=np.float64).reshape(-1, 2)
        if not np.isfinite(points).all():
            raise SlideError("Tile centres have to be finite numbers", where=self.name)
        for what, value in (("Tile width", px), ("Batch size", batch_size), ("Number of threads", threads)):
            if value < 1:
                raise SlideError(f"{what} has to be at least 1, not {value}", where=self.name)
        self._check_open()
        return self._stream(points, (px, px), check_mpp(mpp), SAME, exact, batch_size, threads)

    def drawn(self, *, ahead: bool = True) -> list[DrawnLevel]:
        """All levels as arrays for a viewer, which reads parts of them by indexing.

        Coarser levels than the file has are added until one is at most 1024 pixels wide and high. Damaged
        tiles are grey. Recently decoded tiles are kept, up to a fixed number of bytes.

        Parameters
        ----------
        ahead
            After each part that is read, make its surroundings and the next levels ready in a thread.
        """
        return [
            DrawnLevel(self._drawing, number, self.colours, self._in_colours, self._check_open, ahead=ahead)
            for number in range(len(self._pyramid.levels))
        ]

    def pyramid(self) -> list[dask.array.Array]:
        """The levels of :meth:`drawn` as dask arrays (height, width, 3), uint8, decoded when computed."""
        from dask import array

        arrays = []
        for number, drawn in enumerate(self.drawn(ahead=False)):
            arrays.append(
                array.from_array(
                    drawn,
                    chunks=drawn.chunks,
                    name=f"slide-{self.fingerprint}-{self.colours}-{number}-{id(self)}",
                    asarray=False,
                    fancy=False,
                    inline_array=True,
                    meta=np.empty((0, 0, 0), dtype=np.uint8),
                )
            )
        return arrays

    def thumbnail(self, max_px: int = 1024) -> NDArray[np.uint8]:
        """The whole slide, at most ``max_px`` wide and high: uint8, shape (h, w, 3); damaged tiles are grey."""
        if max_px < 1:
            raise SlideError(f"A thumbnail has to be at least 1 pixel wide, not {max_px}", where=self.name)
        shrink = max(1.0, max(self.size) / max_px)
        size = max(1, round(self.size[0] / shrink)), max(1, round(self.size[1] / shrink))
        return self._read(0, 0, size, self.mpp * shrink)[0]

    def _check_open(self) -> None:
        if self._closed or self.original._closed:
            raise SlideError("The slide is closed", where=self.path, todo="Open it again")

    def _level_for(self, mpp: float) -> int:
        """The coarsest level whose pixels are no larger than ``mpp``, within 1 %.

        Levels that the file lacks come in at a factor of 2, where their tiles are shrunk while they are still in
        the processor's cache, and from 4: in between, other whole factors stay means over whole areas.
        """
        levels = self._pyramid.levels
        fitting = [i for i, v in enumerate(levels) if v.downsample * self.mpp <= mpp * (1 + SAME)] or [0]
        stored = min(fitting[-1], self._pyramid.n_stored - 1)
        factor = mpp / (levels[stored].downsample * self.mpp)
        near = factor < 4 * (1 - SAME) and abs(factor - 2) > 2 * SAME
        return stored if near else fitting[-1]

    def _stream(
        self,
        centres: NDArray[np.float64],
        size: tuple[int, int],
        mpp: float,
        same: float,
        exact: bool,
        batch_size: int,
        threads: int,
    ) -> Iterator[TileBatch]:
        level = self._level_for(mpp)
        downsample = self._pyramid.levels[level].downsample
        cut = plan_cut(centres / downsample, size, mpp / (self.mpp * downsample), exact=exact, same=same)
        return stream(self._pyramid, level, cut, batch_size=batch_size, threads=threads, recolour=self._in_colours)

    def _in_colours(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        for recolour in self._recolour:
            pixels = recolour(pixels)
        return pixels

    def _read(self, x: float, y: float, size: tuple[int, int], mpp: float) -> tuple[NDArray[np.uint8], bool]:
        """One region, and whether it is whole: a stream of a single patch."""
        if not 1 <= min(size) <= max(size) <= MAX_REGION_PX or not np.isfinite([x, y]).all():
            raise SlideError(
                f"A region of {size[0]} × {size[1]} pixels at ({x}, {y}) cannot be read",
                where=self.name,
                todo=f"Read parts of 1 to {MAX_REGION_PX} pixels",
            )
        self._check_open()
        centre = np.array([[x, y]]) + np.array(size) * mpp / self.mpp / 2
        same = min(SAME, 0.5 / max(size))  # the far edge must not be off by more than half a pixel
        batch = next(self._stream(centre, size, mpp, same, True, 1, 1))
        return batch.tiles[0], bool(batch.ok[0])

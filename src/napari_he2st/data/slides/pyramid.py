"""All levels of a slide: those in its file, and coarser ones made of them until an overview is small."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Hashable
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from napari_he2st.data.slides.source import Source, TileError, TileLevel

OVERVIEW_PX = 1024
"""The coarsest level is no larger than this."""

DAMAGED_GREY = 128
"""Shown where a tile cannot be decoded."""


class Tile(NamedTuple):
    """Pixels of a tile (None: the file has none, so white), and whether all of them could be decoded."""

    pixels: NDArray[np.uint8] | None
    intact: bool


class TileCache:
    """The last decoded tiles, up to a number of bytes; safe in threads."""

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes, self.bytes = max_bytes, 0
        self._tiles: OrderedDict[Hashable, Tile] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Hashable) -> Tile | None:
        """The tile, or None if it is not kept."""
        with self._lock:
            if key in self._tiles:
                self._tiles.move_to_end(key)
            return self._tiles.get(key)

    def put(self, key: Hashable, tile: Tile) -> None:
        """Keep a tile and forget the least recently used ones above the limit."""
        with self._lock:
            if key in self._tiles:
                return
            self._tiles[key] = tile
            self.bytes += _nbytes(tile)
            while self.bytes > self.max_bytes and len(self._tiles) > 1:
                self.bytes -= _nbytes(self._tiles.popitem(last=False)[1])


class Pyramid:
    """Tiles of every level of a source.

    Attributes
    ----------
    levels
        Those of the file, then virtual ones, each half the size of the one before.
    n_stored
        How many levels the file has.
    """

    def __init__(self, source: Source, cache_bytes: int) -> None:
        self._source, self._cache = source, TileCache(cache_bytes)
        self.n_stored = len(source.levels)
        levels = list(source.levels)
        while max(levels[-1].width, levels[-1].height) > OVERVIEW_PX:
            levels.append(_half(levels[-1]))
        self.levels = tuple(levels)
        self.decoded = 0
        self._counting = threading.Lock()
        self._local = threading.local()

    def decode(self, level: int, column: int, row: int, out: NDArray[np.uint8] | None = None) -> Tile:
        """One tile, made anew (into ``out`` where possible); virtual ones made of many tiles are kept."""
        if level == self.n_stored:
            return self._halved(level, column, row, out)
        if level > self.n_stored:
            return self._kept(level, column, row)
        with self._counting:
            self.decoded += 1
        try:
            return Tile(self._source.decode_tile(level, column, row, out), True)
        except TileError:
            return Tile(np.full(self._shape(level), DAMAGED_GREY, dtype=np.uint8), False)

    def _kept(self, level: int, column: int, row: int) -> Tile:
        """One tile of a virtual level, from the cache if it was made lately."""
        key = level, column, row
        tile = self._cache.get(key)
        if tile is None:
            tile = self._halved(*key)
            self._cache.put(key, tile)
        return tile

    def _shape(self, level: int) -> tuple[int, int, int]:
        return self.levels[level].tile_height, self.levels[level].tile_width, 3

    def _scratch(self, level: int) -> NDArray[np.uint8] | None:
        """Memory of the calling thread for a tile that is shrunk at once."""
        if level >= self.n_stored:
            return None
        shape = self._shape(level)
        buffer: NDArray[np.uint8] | None = getattr(self._local, "buffer", None)
        if buffer is None or buffer.shape != shape:
            buffer = self._local.buffer = tile_buffer(*shape[:2])
        return buffer

    def _halved(self, level: int, column: int, row: int, out: NDArray[np.uint8] | None = None) -> Tile:
        """A tile of a virtual level: means over 2 × 2 pixels of up to four tiles below."""
        below, height, width = self.levels[level - 1], *self._shape(level)[:2]
        full = 2 * (column + 1) * width <= below.width and 2 * (row + 1) * height <= below.height
        if out is None:
            out = np.empty(self._shape(level), dtype=np.uint8)
        if not full:
            out.fill(255)
        intact, empty = True, True
        for j in range(2 * row, min(2 * row + 2, below.rows)):
            for i in range(2 * column, min(2 * column + 2, below.columns)):
                pixels, whole = self.decode(level - 1, i, j, self._scratch(level - 1))
                intact &= whole
                y, x = (j % 2) * height // 2, (i % 2) * width // 2
                if pixels is None:
                    out[y : y + height // 2, x : x + width // 2] = 255
                    continue
                empty = False
                valid = pixels[: below.height - j * height, : below.width - i * width]
                halve(valid, out[y : y + (valid.shape[0] + 1) // 2, x : x + (valid.shape[1] + 1) // 2])
        return Tile(None if empty else out, intact)


def tile_buffer(height: int, width: int) -> NDArray[np.uint8]:
    """Memory for a decoded tile, 16 bytes off the boundaries of 32 bytes.

    On these boundaries libjpeg-turbo writes past the processor's cache, which makes decoding into a buffer
    that is read again at once half as fast again.
    """
    memory = np.empty(height * width * 3 + 48, dtype=np.uint8)
    start = (16 - memory.ctypes.data) % 32
    return memory[start : start + height * width * 3].reshape(height, width, 3)


def halve(pixels: NDArray[np.uint8], out: NDArray[np.uint8] | None = None) -> NDArray[np.uint8]:
    """Means over 2 × 2 pixels, into ``out`` if given; an odd last row or column is doubled first."""
    odd_y, odd_x = pixels.shape[0] % 2, pixels.shape[1] % 2
    if odd_y or odd_x:
        pixels = cv2.copyMakeBorder(pixels, 0, odd_y, 0, odd_x, cv2.BORDER_REPLICATE)
    size = pixels.shape[1] // 2, pixels.shape[0] // 2
    return np.asarray(cv2.resize(pixels, size, dst=out, interpolation=cv2.INTER_AREA))


def _half(level: TileLevel) -> TileLevel:
    return TileLevel(
        -(-level.width // 2), -(-level.height // 2), level.tile_width, level.tile_height, 2 * level.downsample
    )


def _nbytes(tile: Tile) -> int:
    return 512 if tile.pixels is None else tile.pixels.nbytes  # an entry costs something even when empty

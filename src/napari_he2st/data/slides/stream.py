"""Reading many patches so that every compressed tile is decoded once.

Patches are taken in the given order, in windows of a few batches. A tile that a patch needs is decoded into
a buffer that stays in the processor's cache, and each overlap is copied straight to its place in every open
patch it touches: those of the current window and of the windows ahead, as many as memory allows. In raster
order a tile is therefore decoded once, whatever the width, as long as one row of patches fits the limit.
"""

from __future__ import annotations

import math
import threading
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from napari_he2st.data.slides.pyramid import Pyramid, tile_buffer
from napari_he2st.data.slides.resample import Cut

OPEN_BYTES = 128 * 2**20
"""Limit of the patches that are being filled, in level pixels; two windows are open in any case."""

WINDOW_BYTES = 12 * 2**20
"""Windows are about this large: small enough to recycle memory, large enough to keep threads busy."""


_WHITE = np.uint8(255)


@dataclass(frozen=True)
class TileBatch:
    """Consecutive tiles of :meth:`napari_he2st.data.slides.Slide.read_tiles`.

    Attributes
    ----------
    start
        Number of the first tile in the order of the centres.
    tiles
        uint8, shape (n, px, px, 3), RGB; white outside the slide.
    ok
        bool, shape (n,): whether all pixels of a tile could be decoded.
    """

    start: int
    tiles: NDArray[np.uint8]
    ok: NDArray[np.bool_]


Recoloured = Callable[[NDArray[np.uint8]], NDArray[np.uint8]]
"""Gives the colours of finished patches; returns its argument where nothing is to be done."""


def stream(
    pyramid: Pyramid, level: int, cut: Cut, *, batch_size: int, threads: int, recolour: Recoloured
) -> Iterator[TileBatch]:
    """Read patches batch by batch; the next window is decoded while the caller works on this one.

    Parameters
    ----------
    pyramid, level
        Where the pixels come from.
    cut
        Which windows of the level, and what becomes of them.
    batch_size
        Patches per batch; only the last one is smaller.
    threads
        How many threads decode and resize.
    recolour
        Applied to the finished patches.
    """
    with ThreadPoolExecutor(threads, thread_name_prefix="read-tiles") as pool:
        reader = _Reader(pyramid, level, cut, batch_size, threads, recolour)
        running = reader.start(pool, 0)
        try:
            for window in range(reader.n_windows):
                _finish(running)
                tiles, ok = reader.take(pool, window)
                running = reader.start(pool, window + 1)
                first = window * reader.step
                for start in range(0, len(tiles), batch_size):
                    stop = start + batch_size
                    yield TileBatch(first + start, tiles[start:stop], ok[start:stop])
        finally:  # also when the caller stops early
            for future in running:
                future.cancel()


class _Reader:
    """The open patches of one stream."""

    def __init__(
        self, pyramid: Pyramid, level: int, cut: Cut, batch_size: int, threads: int, recolour: Recoloured
    ) -> None:
        self._pyramid, self._level, self._cut, self._threads = pyramid, level, cut, threads
        self._recolour = recolour
        self._shape = pyramid.levels[level]
        n = len(cut.origins)
        patch_bytes = cut.window[0] * cut.window[1] * 3
        self.step = batch_size * max(1, WINDOW_BYTES // (batch_size * patch_bytes))
        self.n_windows = -(-n // self.step)
        self._ahead = max(2, OPEN_BYTES // (self.step * patch_bytes))
        self._opened = 0
        self._pending: dict[int, list[int]] = {}  # tile -> open patches that wait for it
        self._needed: list[list[int]] = []  # tiles of each window, until its decoding begins
        self._pixels: dict[int, NDArray[np.uint8]] = {}  # window -> level pixels of its patches
        self._ok = np.ones(n, dtype=bool)
        size = np.array([self._shape.width, self._shape.height])
        self._outside = ((cut.origins < 0) | (cut.origins + np.array(cut.window) > size)).any(axis=1)
        self._local = threading.local()
        self._spare: dict[int, list[NDArray[np.uint8]]] = {}  # size -> memory of arrays that are gone

    def start(self, pool: ThreadPoolExecutor, window: int) -> list[Future[None]]:
        """Begin to decode all tiles that a window still waits for."""
        if window >= self.n_windows:
            return []
        while self._opened < min(window + self._ahead, self.n_windows):
            self._open(self._opened)
            self._opened += 1
        work = [(tile, self._pending.pop(tile)) for tile in self._needed[window] if tile in self._pending]
        self._needed[window] = []
        for touched in {window, *(patch // self.step for _, patches in work for patch in patches)}:
            if touched not in self._pixels:
                self._pixels[touched] = self._blank(touched)
        parts = 1 if self._threads == 1 else 4 * self._threads
        share = max(1, -(-len(work) // parts))
        return [pool.submit(self._decode, work[i : i + share]) for i in range(0, len(work), share)]

    def take(self, pool: ThreadPoolExecutor, window: int) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """The finished patches of a window, resized, and whether they are whole."""
        pixels, first = self._pixels.pop(window), window * self.step
        ok = self._ok[first : first + len(pixels)]
        resize, (width, height) = self._cut.resize, self._cut.size
        out = pixels if resize is None else self._memory((len(pixels), height, width, 3))

        def complete(start: int, stop: int) -> None:
            if resize is not None:
                for i in range(start, min(stop, len(pixels))):
                    resize(pixels[i], first + i, out[i])
            done = out[start:stop]
            coloured = self._recolour(done)
            if coloured is not done:
                done[:] = coloured

        share = -(-len(pixels) // self._threads)
        _finish([pool.submit(complete, i, i + share) for i in range(0, len(pixels), share)])
        return out, ok

    def _open(self, window: int) -> None:
        """Note which tiles the patches of a window wait for."""
        first = window * self.step
        origins = self._cut.origins[first : first + self.step]
        shape = self._shape
        low = np.maximum(origins, 0)
        high = np.minimum(origins + np.array(self._cut.window), (shape.width, shape.height))
        from_tile = low // (shape.tile_width, shape.tile_height)
        to_tile = -(-high // (shape.tile_width, shape.tile_height))
        to_tile = np.where(high > low, to_tile, from_tile)  # none for a patch outside the slide
        needed: dict[int, None] = {}
        columns, pending = shape.columns, self._pending
        bounds = np.concatenate([from_tile, to_tile], axis=1).tolist()
        for patch, (column0, row0, column1, row1) in enumerate(bounds, first):
            for row in range(row0, row1):
                for tile in range(row * columns + column0, row * columns + column1):
                    pending.setdefault(tile, []).append(patch)
                    needed[tile] = None
        self._needed.append(list(needed))

    def _blank(self, window: int) -> NDArray[np.uint8]:
        first = window * self.step
        outside = self._outside[first : first + self.step]
        width, height = self._cut.window
        pixels = self._memory((len(outside), height, width, 3))
        pixels[outside] = 255
        return pixels

    def _memory(self, shape: tuple[int, ...]) -> NDArray[np.uint8]:
        """An array in memory of an earlier one that nobody refers to any more: new memory costs as much as copying."""
        size = self.step * shape[1] * shape[2] * shape[3]
        spare = self._spare.setdefault(size, [])
        memory = spare.pop() if spare else np.empty(size, dtype=np.uint8)
        array = np.frombuffer(memory.data, dtype=np.uint8, count=math.prod(shape)).reshape(shape)
        weakref.finalize(array.base, spare.append, memory).atexit = False
        return array

    def _decode(self, work: list[tuple[int, list[int]]]) -> None:
        """Decode tiles and copy each to the patches that wait for it."""
        shape = self._shape
        buffer = getattr(self._local, "buffer", None)
        if buffer is None:
            buffer = self._local.buffer = tile_buffer(shape.tile_height, shape.tile_width)
        overlaps = self._overlaps(work)
        windows = self._pixels
        for tile, patches in work:
            row, column = divmod(tile, shape.columns)
            pixels, intact = self._pyramid.decode(self._level, column, row, buffer)
            for window, number, x, y, x_end, y_end, left, top, right, bottom in islice(overlaps, len(patches)):
                part = _WHITE if pixels is None else pixels[top:bottom, left:right]
                windows[window][number, y:y_end, x:x_end] = part
            if not intact:
                self._ok[patches] = False

    def _overlaps(self, work: list[tuple[int, list[int]]]) -> Iterator[tuple[int, ...]]:
        """Of each tile and each of its patches: window, number in it, corners in the patch, corners in the tile."""
        shape = self._shape
        tile = np.repeat([tile for tile, _ in work], [len(patches) for _, patches in work])
        patch = np.concatenate([patches for _, patches in work])
        size = np.array([shape.tile_width, shape.tile_height])
        corner = np.stack([tile % shape.columns, tile // shape.columns], axis=1) * size
        origin = self._cut.origins[patch]
        low = np.maximum(corner, origin)
        high = np.minimum(np.minimum(corner + size, (shape.width, shape.height)), origin + self._cut.window)
        place = np.stack([patch // self.step, patch % self.step], axis=1)
        corners = np.concatenate([place, low - origin, high - origin, low - corner, high - corner], axis=1)
        return zip(*corners.T.tolist(), strict=True)  # makes no object for each


def _finish(futures: list[Future[None]]) -> None:
    for future in futures:
        future.result()

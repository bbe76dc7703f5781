"""Levels of a slide to draw: tiles are kept in their final colours, and those needed next are made ahead."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_he2st.data.slides.pyramid import Pyramid, Tile, TileCache
from napari_he2st.data.slides.source import TileLevel

Recoloured = Callable[[NDArray[np.uint8]], NDArray[np.uint8]]
"""Gives the final colours of pixels; returns its argument where nothing is to be done."""

_THREADS = 2
"""One may be busy ahead of the view while the other makes what is on screen."""

_AHEAD = 0.5
"""How far around the view tiles are made ahead, as a share of its width and height."""

_BLOCK_PX = 512
"""Whole tiles of about this width are read at once: fewer readings, and each still quick."""

Box = tuple[int, int, int, int]
"""Left, top, right, bottom, in pixels or tiles of a level; right and bottom excluded."""


class Drawing:
    """Makes and keeps the tiles of one slide that are drawn; safe in threads.

    Parameters
    ----------
    pyramid
        Where the pixels come from.
    cache_bytes
        Tiles are kept up to this size.
    """

    def __init__(self, pyramid: Pyramid, cache_bytes: int) -> None:
        self.pyramid, self.cache = pyramid, TileCache(cache_bytes)
        self._pool: ThreadPoolExecutor | None = None
        self._starting = threading.Lock()
        self._latest = 0  # number of the latest view; what is done ahead for an earlier one stops
        self._last: tuple[int, float, float] | None = None  # its level and middle

    def close(self) -> None:
        """Stop working ahead; returns when nothing reads the file any more."""
        with self._starting:
            self._latest += 1
            if self._pool is not None:
                self._pool.shutdown(cancel_futures=True)
                self._pool = None

    def region(self, level: int, box: Box, colours: str, recolour: Recoloured) -> NDArray[np.uint8]:
        """Pixels of a level, uint8, shape (height, width, 3): damaged tiles are grey, missing ones white."""
        shape = self.pyramid.levels[level]
        left, top, right, bottom = box
        out = np.full((bottom - top, right - left, 3), 255, dtype=np.uint8)
        tiles = self._tiles(level, box)
        missing = [place for place in tiles if self.cache.get((colours, level, *place)) is None]
        if len(missing) > 1:  # one is made below
            list(self._workers().map(lambda place: self._tile(level, place, colours, recolour), missing))
        for column, row in tiles:
            pixels = self._tile(level, (column, row), colours, recolour).pixels
            if pixels is None:
                continue
            y, x = row * shape.tile_height, column * shape.tile_width
            part = pixels[max(top - y, 0) : bottom - y, max(left - x, 0) : right - x]
            y, x = max(y, top) - top, max(x, left) - left
            out[y : y + part.shape[0], x : x + part.shape[1]] = part
        return out

    def look_ahead(self, level: int, box: Box, colours: str, recolour: Recoloured) -> None:
        """Begin to make what a view of ``box`` is likely to show next; forgets what was begun for another view.

        These are the surroundings, those first towards which the view moves, then the middle at twice the
        magnification and the wider surroundings at half of it.
        """
        left, top, right, bottom = box
        middle = (left + right) / 2, (top + bottom) / 2
        towards = middle
        if self._last is not None and self._last[0] == level:
            towards = 2 * middle[0] - self._last[1], 2 * middle[1] - self._last[2]
        self._last = level, *middle
        levels = self.pyramid.levels
        shape = levels[level]
        around = self._tiles(level, _grown(box, 1 + 2 * _AHEAD))

        def distance(place: tuple[int, int]) -> float:
            x, y = (place[0] + 0.5) * shape.tile_width, (place[1] + 0.5) * shape.tile_height
            return abs(x - towards[0]) + abs(y - towards[1])

        wanted = [(level, place) for place in sorted(around, key=distance)]
        for other, share in ((level - 1, 0.5), (level + 1, 2.0)):
            # Levels made of many tiles each would take too long.
            if 0 <= other <= min(self.pyramid.n_stored, len(levels) - 1):
                factor = shape.downsample / levels[other].downsample
                there = _grown(box, share)
                scaled = (
                    int(there[0] * factor),
                    int(there[1] * factor),
                    int(there[2] * factor),
                    int(there[3] * factor),
                )
                wanted += [(other, place) for place in self._tiles(other, scaled)]
        with self._starting:
            self._latest += 1
            number = self._latest
        todo = [(at, place) for at, place in wanted if self.cache.get((colours, at, *place)) is None]
        if todo:
            self._workers().submit(self._make_ahead, number, todo, colours, recolour)

    def _make_ahead(
        self, number: int, tiles: list[tuple[int, tuple[int, int]]], colours: str, recolour: Recoloured
    ) -> None:
        for level, place in tiles:
            if number != self._latest:
                return
            self._tile(level, place, colours, recolour)

    def _workers(self) -> ThreadPoolExecutor:
        with self._starting:
            if self._pool is None:
                self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="draw-tiles")
            return self._pool

    def _tiles(self, level: int, box: Box) -> list[tuple[int, int]]:
        """(column, row) of the tiles that a box touches."""
        shape = self.pyramid.levels[level]
        columns = range(max(box[0], 0) // shape.tile_width, -(-min(box[2], shape.width) // shape.tile_width))
        rows = range(max(box[1], 0) // shape.tile_height, -(-min(box[3], shape.height) // shape.tile_height))
        return [(column, row) for row, column in itertools.product(rows, columns)]

    def _tile(self, level: int, place: tuple[int, int], colours: str, recolour: Recoloured) -> Tile:
        key = colours, level, *place
        tile = self.cache.get(key)
        if tile is None:
            tile = self.pyramid.decode(level, *place)
            if tile.pixels is not None:
                tile = Tile(recolour(tile.pixels), tile.intact)
            self.cache.put(key, tile)
        return tile


class DrawnLevel:
    """One level as an array (height, width, 3), uint8, of which parts are read by indexing, as napari does.

    Parameters
    ----------
    drawing
        Makes the tiles.
    level
        Its number.
    colours, recolour
        Name of the final colours, and what makes them.
    check
        Called before each reading; raises where the slide is closed.
    ahead
        Whether reading a part makes its surroundings ahead.
    """

    ndim, dtype = 3, np.dtype(np.uint8)

    def __init__(
        self,
        drawing: Drawing,
        level: int,
        colours: str,
        recolour: Recoloured,
        check: Callable[[], None],
        *,
        ahead: bool,
    ) -> None:
        self._drawing, self._level, self._check, self._ahead = drawing, level, check, ahead
        self._colours, self._recolour = colours, recolour
        shape = drawing.pyramid.levels[level]
        self.shape = (shape.height, shape.width, 3)
        self.size = shape.height * shape.width * 3
        self.chunks = (*block_of(shape), 3)  # napari reads whole ones

    def __getitem__(self, key: Any) -> NDArray[np.uint8]:
        """Pixels: integers, slices with a positive step, and ``...`` are understood."""
        self._check()
        key = key if isinstance(key, tuple) else (key,)
        if ... in key:
            at = key.index(...)
            key = (*key[:at], *(slice(None),) * (4 - len(key)), *key[at + 1 :])
        (top, bottom, rows), (left, right, columns) = (
            _span(one, side) for one, side in zip((*key, slice(None), slice(None)), self.shape[:2], strict=False)
        )
        box = left, top, right, bottom
        pixels = self._drawing.region(self._level, box, self._colours, self._recolour)
        if self._ahead:
            self._drawing.look_ahead(self._level, box, self._colours, self._recolour)
        part: NDArray[np.uint8] = pixels[(rows, columns, *key[2:])]
        return part

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return np.asarray(self[...], dtype=dtype)


def block_of(level: TileLevel) -> tuple[int, int]:
    """(height, width) of the blocks of whole tiles in which a level is best read."""
    height, width = (side * max(1, _BLOCK_PX // side) for side in (level.tile_height, level.tile_width))
    return height, width


def _span(key: Any, side: int) -> tuple[int, int, Any]:
    """First and last pixel (excluded) that an index touches, and what to take of these."""
    picked = range(side)[key]
    if isinstance(picked, int):
        return picked, picked + 1, 0
    if not picked:
        return 0, 0, slice(None)
    if picked.step < 0:
        message = "slides are read forwards"
        raise IndexError(message)
    return picked[0], picked[-1] + 1, slice(None, None, picked.step)


def _grown(box: Box, share: float) -> Box:
    """The box about the same middle, its sides ``share`` times as long."""
    x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    half = (box[2] - box[0]) * share / 2, (box[3] - box[1]) * share / 2
    return int(x - half[0]), int(y - half[1]), int(x + half[0]) + 1, int(y + half[1]) + 1

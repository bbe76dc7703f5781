"""The only unit conversions: level-0 pixels (x, y), micrometres, and napari's world (y, x).

Everywhere else coordinates are level-0 pixels, x then y. napari layers live in world micrometres,
y then x; the border is crossed only by :func:`world_from_level0` and :func:`level0_from_world`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray


def um_from_px(length_px: ArrayLike, mpp: float) -> NDArray[np.float64]:
    """Length in micrometres of a length in level-0 pixels."""
    return np.asarray(length_px, dtype=np.float64) * mpp


def px_from_um(length_um: ArrayLike, mpp: float) -> NDArray[np.float64]:
    """Length in level-0 pixels of a length in micrometres."""
    return np.asarray(length_um, dtype=np.float64) / mpp


def world_from_level0(xy: ArrayLike, mpp: float) -> NDArray[np.float64]:
    """World micrometres (y, x), shape (n, 2), of level-0 pixel positions (x, y)."""
    return np.asarray(xy, dtype=np.float64)[..., ::-1] * mpp


def level0_from_world(yx_um: ArrayLike, mpp: float) -> NDArray[np.float64]:
    """Level-0 pixel positions (x, y), shape (n, 2), of world micrometres (y, x)."""
    return np.asarray(yx_um, dtype=np.float64)[..., ::-1] / mpp


def tile_origins(centres: ArrayLike, px: int, tile_mpp: float, slide_mpp: float) -> NDArray[np.float64]:
    """Level-0 position (x, y) of the upper left corner of tiles around ``centres``.

    Parameters
    ----------
    centres
        Level-0 pixels (x, y), shape (n, 2).
    px
        Width of a tile in its own pixels.
    tile_mpp, slide_mpp
        Micrometres per pixel of the tile and of level 0.
    """
    half = 0.5 * px * tile_mpp / slide_mpp
    return np.asarray(centres, dtype=np.float64) - half


def bounds_of(xy: ArrayLike, margin_px: float = 0.0) -> tuple[float, float, float, float]:
    """Bounding box ``(x, y, width, height)`` of positions in level-0 pixels, grown by a margin."""
    points = np.asarray(xy, dtype=np.float64).reshape(-1, 2)
    low, high = points.min(axis=0) - margin_px, points.max(axis=0) + margin_px
    return float(low[0]), float(low[1]), float(high[0] - low[0]), float(high[1] - low[1])


def inside_box(xy: ArrayLike, box: tuple[float, float, float, float]) -> NDArray[np.bool_]:
    """Which positions (x, y) lie in a box ``(x, y, width, height)`` of level-0 pixels."""
    points = np.asarray(xy, dtype=np.float64)
    x, y, width, height = box
    return (
        (points[:, 0] >= x) & (points[:, 0] < x + width) & (points[:, 1] >= y) & (points[:, 1] < y + height)
    )  # half open, so that neighbouring boxes share no position


def inside_polygon(xy: ArrayLike, polygon: ArrayLike) -> NDArray[np.bool_]:
    """Which positions (x, y) lie in a polygon (m, 2), by the even-odd rule; both in level-0 pixels."""
    points, ring = np.asarray(xy, dtype=np.float64), np.asarray(polygon, dtype=np.float64)
    inside = np.zeros(len(points), dtype=bool)
    previous = ring[-1]
    for vertex in ring:
        crosses = (vertex[1] > points[:, 1]) != (previous[1] > points[:, 1])
        with np.errstate(divide="ignore", invalid="ignore"):
            at_x = (previous[0] - vertex[0]) * (points[:, 1] - vertex[1]) / (previous[1] - vertex[1]) + vertex[0]
        inside ^= crosses & (points[:, 0] < at_x)
        previous = vertex
    return inside


def polygon_pixels(
    corners: NDArray[np.float64], owner: NDArray[np.intp], shape: tuple[int, int]
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Pixels of an image whose centres lie in polygons, by the even-odd rule.

    Parameters
    ----------
    corners
        (x, y) of one polygon after the other, the first corner of each repeated at its end, (m, 2); in pixels of the
        image, the centre of whose first pixel is at (0.5, 0.5).
    owner
        Number of the polygon that each corner belongs to, ascending, (m,).
    shape
        Rows and columns of the image.

    Returns
    -------
    pixels, owner
        Flat index of each pixel, and the polygon that it lies in; polygons follow each other.
    """
    height, width = shape
    edge = owner[1:] == owner[:-1]
    (x0, y0), (x1, y1) = corners[:-1][edge].T, corners[1:][edge].T
    # An edge crosses the middles of these rows.
    first, end = (np.clip(np.ceil(y - 0.5), 0, height).astype(np.intp) for y in np.sort([y0, y1], axis=0))
    row, which = _ranges(first, end)
    x = x0[which] + (row + 0.5 - y0[which]) * (x1 - x0)[which] / (y1 - y0)[which]
    of = owner[:-1][edge][which]
    order = np.lexsort((x, row, of))
    # Each second crossing of a row begins an inside, which the next one ends.
    begin, end = (np.clip(np.ceil(x[order][i::2] - 0.5), 0, width).astype(np.intp) for i in (0, 1))
    column, which = _ranges(begin, end)
    inside = order[::2][which]
    return row[inside] * width + column, of[inside]


def _ranges(first: NDArray[np.intp], end: NDArray[np.intp]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Whole numbers from each ``first`` to before its ``end``, and the place of the pair that each comes from."""
    n = np.maximum(end - first, 0)
    which = np.repeat(np.arange(len(n)), n)
    return first[which] + np.arange(len(which)) - np.repeat(np.cumsum(n) - n, n), which


def signed_area(polygon: ArrayLike) -> float:
    """Area of a polygon (m, 2) by the shoelace formula; its sign tells which way around it goes."""
    ring = np.asarray(polygon, dtype=np.float64) - np.asarray(polygon, dtype=np.float64)[0]  # precise far from 0
    x, y = ring[:, 0], ring[:, 1]
    return float(x @ np.roll(y, -1) - y @ np.roll(x, -1)) / 2

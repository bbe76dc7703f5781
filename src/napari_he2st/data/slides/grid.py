"""Regular grids of spots on a slide, anchored at its upper left corner."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from napari_he2st.core.errors import SlideError
from napari_he2st.core.geometry import bounds_of, inside_polygon, px_from_um
from napari_he2st.core.types import Grid, Lattice, Region
from napari_he2st.data.slides.slide import Slide
from napari_he2st.data.slides.tissue import TissueMask

MAX_SPOTS = 50_000_000
"""A finer grid is refused before anything is allocated."""

VISIUM_SPOT_SHARE = 0.55
"""Spots of 55 µm at a pitch of 100 µm."""


def square_grid(
    slide: Slide,
    pitch_um: float,
    *,
    mask: TissueMask | None = None,
    region: Region | None = None,
    spot_um: float | None = None,
) -> Grid:
    """Lay a square grid over a slide, in raster order.

    Parameters
    ----------
    slide
        The slide.
    pitch_um
        Distance between neighbouring spots, micrometres.
    mask
        Keep only spots whose centre lies on tissue.
    region
        Keep only spots whose centre lies inside; the grid stays where it is without a region.
    spot_um
        Diameter of a spot, micrometres; as large as the pitch if left out.

    Raises
    ------
    SlideError
        The pitch or the spots are not above zero, or there would be too many spots.
    """
    pitch, spot_um = _check(slide, pitch_um, pitch_um if spot_um is None else spot_um)
    columns, rows = (max(1, round(side / pitch)) for side in slide.size)
    x, y = (min(pitch, side) / 2 for side in slide.size)  # a slide below one pitch has its spot in the middle
    box = _box(slide, region)
    row = _range(box[1], box[3], y, pitch, rows)
    column = _range(box[0], box[2], x, pitch, columns)
    _check_count(slide, len(row) * len(column))
    index = np.stack(np.meshgrid(row, column, indexing="ij"), axis=-1).reshape(-1, 2)
    xy = np.stack([x + index[:, 1] * pitch, y + index[:, 0] * pitch], axis=1)
    return _grid(slide, xy, index, (rows, columns), "square", pitch_um, spot_um, mask, region)


def hexagonal_grid(
    slide: Slide,
    pitch_um: float,
    *,
    mask: TissueMask | None = None,
    region: Region | None = None,
    spot_um: float | None = None,
) -> Grid:
    """Lay a hexagonal grid over a slide, in raster order, numbered as Visium's.

    Odd rows are shifted by half a pitch. Columns count half pitches: even rows hold the even columns, odd rows
    the odd ones, so neighbours in a row differ by 2.

    Parameters
    ----------
    slide, pitch_um, mask, region
        See :func:`square_grid`.
    spot_um
        Diameter of a spot, micrometres; 55 % of the pitch, as on Visium slides, if left out.

    Raises
    ------
    SlideError
        See :func:`square_grid`.
    """
    pitch, spot_um = _check(slide, pitch_um, VISIUM_SPOT_SHARE * pitch_um if spot_um is None else spot_um)
    half, step = pitch / 2, pitch * math.sqrt(3) / 2
    width, height = slide.size
    rows = max(1, round(height / step))
    columns = 2 * max(1, round(width / pitch))
    x, y = min(pitch, width) / 2, min(step, height) / 2
    box = _box(slide, region)
    row = _range(box[1], box[3], y, step, rows)
    column = _range(box[0], box[2], x, half, columns)
    _check_count(slide, len(row) * len(column) // 2)
    index = np.concatenate(
        [np.stack([np.full(len(some), r), some], axis=1) for r in row for some in [column[column % 2 == r % 2]]]
        or [np.empty((0, 2), dtype=np.intp)]
    )
    xy = np.stack([x + index[:, 1] * half, y + index[:, 0] * step], axis=1)
    on_slide = (xy[:, 0] < width) & (xy[:, 1] < height)  # the shift may push the last spot of a row over the edge
    return _grid(slide, xy[on_slide], index[on_slide], (rows, columns), "hexagonal", pitch_um, spot_um, mask, region)


def _check(slide: Slide, pitch_um: float, spot_um: float) -> tuple[float, float]:
    """Pitch in level-0 pixels and the spot diameter, checked."""
    for what, value in (("pitch", pitch_um), ("spot diameter", spot_um)):
        if not math.isfinite(value) or value <= 0:
            raise SlideError(f"The {what} of a grid has to be above zero, not {value} µm", where=slide.name)
    return float(px_from_um(pitch_um, slide.mpp)), spot_um


def _check_count(slide: Slide, count: int) -> None:
    if count > MAX_SPOTS:
        raise SlideError(
            f"The grid would have {count:,} positions", where=slide.name, todo="Use a larger pitch or a region"
        )


def _box(slide: Slide, region: Region | None) -> tuple[float, float, float, float]:
    """(left, top, right, bottom) that may hold spots."""
    if region is None:
        return 0.0, 0.0, float(slide.size[0]), float(slide.size[1])
    x, y, width, height = bounds_of(region.polygon)
    return x, y, x + width, y + height


def _range(low: float, high: float, start: float, step: float, count: int) -> NDArray[np.intp]:
    """Numbers i below ``count`` for which ``start + i * step`` lies from ``low`` to ``high``."""
    first = max(0, math.ceil((low - start) / step))
    last = min(count - 1, math.floor((high - start) / step))
    return np.arange(first, last + 1, dtype=np.intp)


def _grid(
    slide: Slide,
    xy: NDArray[np.float64],
    index: NDArray[np.intp],
    shape: tuple[int, int],
    lattice: Lattice,
    pitch_um: float,
    spot_um: float,
    mask: TissueMask | None,
    region: Region | None,
) -> Grid:
    keep = np.ones(len(xy), dtype=bool)
    if region is not None:
        keep &= inside_polygon(xy, region.polygon)
    if mask is not None:
        keep &= mask.contains(xy)
    xy, index = xy[keep], index[keep]
    tissue = {} if mask is None else mask.facts
    return Grid(xy, pitch_um, lattice, spot_um, slide.mpp, index, shape, np.ones(len(xy), dtype=bool), tissue=tissue)

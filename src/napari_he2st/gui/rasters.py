"""Spots as pixels: where each spot of a grid goes in an image, so that a gene map is one texture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from napari_he2st.core.geometry import polygon_pixels, px_from_um, world_from_level0
from napari_he2st.core.types import Grid, Nuclei
from napari_he2st.core.wkt import corners_of

MAX_RASTER_PX = 4096
"""Widest index map of an irregular grid."""

_STAMP_PX = 3
"""Width in pixels of an irregular spot where the map is not at its limit."""

_PIXELS_PER_SPOT = 8
"""Pixels of an index map per spot, beyond a million: they decide what a gene change costs."""

_LEAST_CELLS_PX = 2048**2
"""Pixels of the map of cells that are drawn in their own shape, where these are few."""

_OUTLINE_UM = 0.5
"""Smallest pixel of a map of outlines, unless the slide's own is larger."""


@dataclass(frozen=True)
class Raster:
    """An image that holds one value per spot.

    Attributes
    ----------
    shape
        Rows and columns of the image.
    scale_um, translate_um
        Size of a pixel (y, x) and world position (y, x) of the centre of pixel (0, 0), micrometres.
    source
        Spot that each pixel shows, intp, shape (rows × columns,); the number of spots where it shows none.
    pixels
        Flat index of the one pixel of each spot, intp, shape (spots,); None where a spot has several.
    """

    shape: tuple[int, int]
    scale_um: tuple[float, float]
    translate_um: tuple[float, float]
    source: NDArray[np.intp]
    pixels: NDArray[np.intp] | None = None

    def empty(self) -> NDArray[np.float32]:
        """An image of NaN: nothing is known anywhere."""
        return np.full(self.shape, np.nan, dtype=np.float32)

    def paint(self, image: NDArray, values: NDArray, rows: NDArray[np.intp] | None = None) -> None:
        """Write the values of all spots into an image in place; elsewhere it becomes NaN, or 0 if of integers.

        With ``rows``, only these spots have to be written.
        """
        flat = image.reshape(-1)
        if rows is not None and self.pixels is not None:
            flat[self.pixels[rows]] = values[rows]
            return
        padded = np.zeros(len(values) + 1, dtype=image.dtype)
        padded[:-1] = values
        if padded.dtype.kind == "f":
            padded[-1] = np.nan
        np.take(padded, self.source, out=flat, mode="clip")


def raster_of(grid: Grid) -> Raster:
    """One pixel per spot on a square lattice; small stamps on an index map for any other."""
    pitch_px = float(px_from_um(grid.pitch_um, grid.mpp))
    if not len(grid):
        return Raster((1, 1), (grid.pitch_um, grid.pitch_um), (0.0, 0.0), np.zeros(1, np.intp))
    if grid.lattice == "square" and _is_regular(grid, pitch_px):
        cells = grid.index - grid.index.min(axis=0)
        shape = tuple((cells.max(axis=0) + 1).tolist())
        origin = np.median(grid.xy - cells[:, ::-1] * pitch_px, axis=0)
        pixels = cells[:, 0] * shape[1] + cells[:, 1]
        source = np.full(shape[0] * shape[1], len(grid), dtype=np.intp)
        source[pixels] = np.arange(len(grid))
        pitch = (grid.pitch_um, grid.pitch_um)
        return Raster(shape, pitch, _pair(world_from_level0(origin, grid.mpp)), source, pixels)
    return _stamped(grid)


def raster_of_nuclei(nuclei: Nuclei, grid: Grid) -> Raster:
    """The nuclei that are the spots of a grid, each in its own shape and at least one pixel large."""
    if not len(grid):
        return raster_of(grid)
    rim = 2 * grid.spot_um / nuclei.mpp
    centres = grid.xy * (grid.mpp / nuclei.mpp)
    height, width = nuclei.labels.shape
    left, top = np.maximum(centres.min(axis=0) - rim, 0).astype(np.intp)
    right, bottom = np.minimum(centres.max(axis=0) + rim, (width, height)).astype(np.intp)
    step = max(1, int(np.ceil(((right - left) * (bottom - top) / _most_pixels(grid)) ** 0.5)))
    cut = nuclei.labels[top:bottom:step, left:right:step]
    place = np.full(nuclei.largest + 1, len(grid), dtype=np.intp)
    place[grid.index[:, 0]] = np.arange(len(grid))
    source = place[cut]
    _mark_centres(source, (centres - (left, top)) / step)
    scale = step * nuclei.mpp
    first = (nuclei.mpp - grid.mpp) / 2  # from the middle of the slide's first pixel to that of the label image's
    origin = (float(top * nuclei.mpp + first), float(left * nuclei.mpp + first))
    return Raster((cut.shape[0], cut.shape[1]), (scale, scale), origin, source.ravel())


def raster_of_outlines(outlines: Sequence[str], grid: Grid) -> Raster:
    """The cells that are the spots of a grid, each in the shape of its outline and at least one pixel large.

    Parameters
    ----------
    outlines
        As well-known text, in level-0 pixels.
    grid
        Their centres.
    """
    if not len(grid):
        return raster_of(grid)
    corners, owner = corners_of(outlines)
    both = np.concatenate([corners, grid.xy])
    low, high = both.min(axis=0), both.max(axis=0)
    finest = float(px_from_um(max(_OUTLINE_UM, grid.mpp), grid.mpp))
    cell_px = max(finest, float(np.prod(high - low) / _most_pixels(grid)) ** 0.5)
    low = np.floor(low / cell_px) * cell_px  # so that outlines of pixels of this size become these pixels
    width, height = (np.floor((high - low) / cell_px).astype(np.intp) + 1).tolist()
    source = np.full((height, width), len(grid), dtype=np.intp)
    pixels, cell = polygon_pixels((corners - low) / cell_px, owner, (height, width))
    source.reshape(-1)[pixels] = cell
    _mark_centres(source, (grid.xy - low) / cell_px)
    scale = cell_px * grid.mpp
    # Pixels of the slide are drawn from half a pixel before 0.
    origin = _pair(world_from_level0(low + cell_px / 2 - 0.5, grid.mpp))
    return Raster((height, width), (scale, scale), origin, source.ravel())


def _most_pixels(grid: Grid) -> int:
    return min(MAX_RASTER_PX**2, max(_LEAST_CELLS_PX, _PIXELS_PER_SPOT * len(grid)))


def _mark_centres(source: NDArray[np.intp], centres: NDArray[np.float64]) -> None:
    """Give cells that are smaller than a pixel the one at their centre (x, y), if it is free."""
    column, row = centres.astype(np.intp).T
    free = source[row, column] == len(centres)
    source[row[free], column[free]] = np.flatnonzero(free)


def outline_of(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The border of what a mask holds, some thousandths of the image wide, so that it shows at any zoom."""
    from scipy.ndimage import uniform_filter

    width = 2 * round(max(mask.shape) / 500) + 3
    inside = uniform_filter(mask.astype(np.float32), width) > 1 - 0.5 / width**2
    return mask & ~inside


def _is_regular(grid: Grid, pitch_px: float) -> bool:
    """Whether the spots lie where their lattice index says, to a tenth of the pitch."""
    offsets = grid.xy - grid.index[:, ::-1] * pitch_px
    return float(np.ptp(offsets, axis=0).max()) < 0.1 * pitch_px


def _stamped(grid: Grid) -> Raster:
    low, high = grid.xy.min(axis=0), grid.xy.max(axis=0)
    spot_px = float(px_from_um(grid.spot_um, grid.mpp))
    width, height = high - low + 2 * spot_px
    most = min(MAX_RASTER_PX**2, max(1024**2, _PIXELS_PER_SPOT * len(grid)))
    cell_px = max(spot_px / _STAMP_PX, max(width, height) / MAX_RASTER_PX, (width * height / most) ** 0.5)
    radius = int(np.ceil(spot_px / 2 / cell_px))
    cells = np.rint((grid.xy - low) / cell_px).astype(np.intp) + radius
    columns, rows = (cells.max(axis=0) + radius + 1).tolist()
    source = np.full(rows * columns, len(grid), dtype=np.intp)
    steps = np.arange(-radius, radius + 1)
    dy, dx = (a.ravel() for a in np.meshgrid(steps, steps, indexing="ij"))
    distance = dy**2 + dx**2
    spots = np.arange(len(grid))
    # From the rim to the centre, so that where stamps overlap a spot keeps its middle.
    for i in np.argsort(-distance, kind="stable"):
        if distance[i] <= (spot_px / 2 / cell_px) ** 2 + 0.25:
            source[(cells[:, 1] + dy[i]) * columns + (cells[:, 0] + dx[i])] = spots
    origin = low - radius * cell_px
    scale = float(cell_px * grid.mpp)
    return Raster((rows, columns), (scale, scale), _pair(world_from_level0(origin, grid.mpp)), source)


def _pair(yx: NDArray[np.float64]) -> tuple[float, float]:
    return float(yx[0]), float(yx[1])

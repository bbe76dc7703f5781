"""Spots as pixels: where each spot of a grid goes in an image, so that a gene map is one texture."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from napari_he2st.core.geometry import px_from_um, world_from_level0
from napari_he2st.core.types import Grid

MAX_RASTER_PX = 4096
"""Widest index map of an irregular grid."""

_STAMP_PX = 3
"""Width in pixels of an irregular spot where the map is not at its limit."""


@dataclass(frozen=True)
class Raster:
    """An image that holds one value per spot.

    Attributes
    ----------
    shape
        Rows and columns of the image.
    scale_um, translate_um
        Size of a pixel (y, x) and world position (y, x) of the centre of pixel (0, 0), micrometres.
    pixels
        Flat pixel indices of each spot, intp, shape (spots, pixels per spot); an index equal to the image's
        size marks a pixel outside of it.
    """

    shape: tuple[int, int]
    scale_um: tuple[float, float]
    translate_um: tuple[float, float]
    pixels: NDArray[np.intp]

    def empty(self) -> NDArray[np.float32]:
        """An image of NaN: nothing is known anywhere."""
        return np.full(self.shape, np.nan, dtype=np.float32)

    def paint(self, image: NDArray, values: NDArray, rows: NDArray[np.intp] | slice = slice(None)) -> None:
        """Write the values of all spots, or of some ``rows``, into an image in place."""
        flat = image.reshape(-1)
        pixels = self.pixels[rows]
        for column in range(pixels.shape[1]):
            target = pixels[:, column]
            inside = target < flat.size
            flat[target[inside]] = values[inside]


def raster_of(grid: Grid) -> Raster:
    """One pixel per spot on a square lattice; small stamps on an index map for any other."""
    pitch_px = float(px_from_um(grid.pitch_um, grid.mpp))
    if grid.lattice == "square" and _is_regular(grid, pitch_px):
        low = grid.index.min(axis=0) if len(grid) else np.zeros(2, np.intp)
        cells = grid.index - low
        shape = tuple((cells.max(axis=0) + 1).tolist()) if len(grid) else (1, 1)
        origin = np.median(grid.xy - cells[:, ::-1] * pitch_px, axis=0) if len(grid) else np.zeros(2)
        pixels = (cells[:, 0] * shape[1] + cells[:, 1])[:, None]
        pitch = (grid.pitch_um, grid.pitch_um)
        return Raster(shape, pitch, _pair(world_from_level0(origin, grid.mpp)), pixels)
    return _stamped(grid)


def outline_of(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The border of what a mask holds, some thousandths of the image wide, so that it shows at any zoom."""
    from scipy.ndimage import uniform_filter

    width = 2 * round(max(mask.shape) / 500) + 3
    inside = uniform_filter(mask.astype(np.float32), width) > 1 - 0.5 / width**2
    return mask & ~inside


def _is_regular(grid: Grid, pitch_px: float) -> bool:
    """Whether the spots lie where their lattice index says, to a tenth of the pitch."""
    offsets = grid.xy - grid.index[:, ::-1] * pitch_px
    return len(grid) == 0 or float(np.ptp(offsets, axis=0).max()) < 0.1 * pitch_px


def _stamped(grid: Grid) -> Raster:
    low, high = grid.xy.min(axis=0), grid.xy.max(axis=0)
    spot_px = float(px_from_um(grid.spot_um, grid.mpp))
    cell_px = max(spot_px / _STAMP_PX, float((high - low).max() + 2 * spot_px) / MAX_RASTER_PX)
    radius = int(np.ceil(spot_px / 2 / cell_px))
    cells = np.rint((grid.xy - low) / cell_px).astype(np.intp) + radius
    columns, rows = (cells.max(axis=0) + radius + 1).tolist()
    steps = np.arange(-radius, radius + 1)
    dy, dx = (a.ravel() for a in np.meshgrid(steps, steps, indexing="ij"))
    distance = dy**2 + dx**2
    order = np.argsort(-distance)  # centres are painted last, so that where spots overlap each keeps its own
    order = order[distance[order] <= (spot_px / 2 / cell_px) ** 2 + 0.25]
    pixels = (cells[:, 1, None] + dy[order]) * columns + (cells[:, 0, None] + dx[order])
    origin = low - radius * cell_px
    scale = float(cell_px * grid.mpp)
    return Raster((rows, columns), (scale, scale), _pair(world_from_level0(origin, grid.mpp)), pixels)


def _pair(yx: NDArray[np.float64]) -> tuple[float, float]:
    return float(yx[0]), float(yx[1])

"""A smooth map between spots: every pixel is a mean of the spots around it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.spatial import KDTree

from napari_he2st.core.geometry import px_from_um, world_from_level0
from napari_he2st.core.types import Grid
from napari_he2st.gui.rasters import Raster

_PIXELS_PER_PITCH = 5
_MOST_PIXELS = 1_000_000
_NEAR = 6
"""Spots that a pixel takes its value from."""

_REACH = 0.75
"""Pitches from the nearest spot at which the map ends."""

_SIGMA = 0.5
"""Width of the Gaussian that weights the spots, in pitches."""


@dataclass(frozen=True)
class SmoothRaster(Raster):
    """A raster whose pixels mix the spots around them; where a spot is unknown the others count.

    Attributes
    ----------
    weights
        Share of each spot in each pixel inside, CSR, shape (pixels inside, spots).
    inside
        Flat index of these pixels.
    """

    weights: csr_array | None = None
    inside: NDArray[np.intp] | None = None

    def paint(self, image: NDArray, values: NDArray, rows: NDArray[np.intp] | None = None) -> None:
        """Write the mixed values into an image of floats; one of integers gets those of the nearest spots."""
        if self.weights is None or image.dtype.kind != "f":
            super().paint(image, values, rows)
            return
        known = np.isfinite(values)
        flat = image.reshape(-1)
        if known.all():
            flat[self.inside] = self.weights @ values
            return
        share = self.weights @ known.astype(np.float32)
        mixed = self.weights @ np.where(known, values, 0).astype(np.float32)
        nearest_known = np.append(known, False)[self.source[self.inside]]
        flat[self.inside] = np.where(nearest_known, mixed / np.maximum(share, 1e-12), np.nan)


def smooth_raster(grid: Grid) -> SmoothRaster:
    """Pixels of a fifth of the pitch around the spots of any lattice."""
    pitch_px = float(px_from_um(grid.pitch_um, grid.mpp))
    low = grid.xy.min(axis=0) - _REACH * pitch_px
    size = np.ptp(grid.xy, axis=0) + 2 * _REACH * pitch_px
    cell_px = max(pitch_px / _PIXELS_PER_PITCH, float(np.sqrt(size.prod() / _MOST_PIXELS)))
    columns, rows = (np.ceil(size / cell_px).astype(int) + 1).tolist()
    y, x = np.divmod(np.arange(rows * columns), columns)
    centres = low + np.stack([x, y], axis=1) * cell_px
    near = min(_NEAR, len(grid))
    distance, spot = KDTree(grid.xy).query(centres, k=near)
    distance, spot = distance.reshape(-1, near) / pitch_px, spot.reshape(-1, near)
    within = distance[:, 0] <= _REACH
    source = np.where(within, spot[:, 0], len(grid)).astype(np.intp)
    inside = np.flatnonzero(within)
    weights = np.exp(-0.5 * (distance[inside] / _SIGMA) ** 2).astype(np.float32)
    weights /= weights.sum(axis=1, keepdims=True)
    starts = np.arange(0, weights.size + 1, near)
    mix = csr_array((weights.ravel(), spot[inside].ravel(), starts), shape=(len(inside), len(grid)))
    top, left = world_from_level0(low, grid.mpp).tolist()
    scale = float(cell_px * grid.mpp)
    return SmoothRaster((rows, columns), (scale, scale), (top, left), source, None, mix, inside)

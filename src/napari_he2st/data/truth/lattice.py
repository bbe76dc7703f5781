"""Pixel size from a spot lattice whose spacing is known from the array's design."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from napari_he2st.core.errors import TruthError

VISIUM_PITCH_UM = 100.0
"""Centre-to-centre distance of Visium spots (10x Genomics, all slide generations)."""

VISIUM_SPOT_UM = 55.0
"""Diameter of a Visium spot. ``spot_diameter_fullres`` corresponds to about 65 µm, so it is no scale."""

LEGACY_PITCH_UM, LEGACY_SPOT_UM = 200.0, 100.0
"""Spatial Transcriptomics arrays of 1,007 spots (Ståhl et al., Science 353:78, 2016)."""

FARTHEST_PX = 1e9
"""No image is larger than this; positions beyond it are damaged."""

STAGGERED_UNIT_UM, STAGGERED_PITCH_UM = 100.0, 100.0 * 2**0.5
"""Arrays of about 2,000 spots, every other position of a grid of 100 µm: neighbours lie 141 µm apart."""


@dataclass(frozen=True)
class LatticeFit:
    """How array positions map to pixels.

    Attributes
    ----------
    px_per_um
        Pixels per micrometre, the geometric mean over the two axes.
    anisotropy
        Ratio of the larger to the smaller scale; 1 where the assumed geometry of the array is right.
    """

    px_per_um: float
    anisotropy: float


def hexagonal_um(row: NDArray, column: NDArray, pitch_um: float = VISIUM_PITCH_UM) -> NDArray[np.float64]:
    """Plane positions (x, y) in micrometres of Visium array rows and columns, shape (n, 2).

    Neighbours in a row are two columns apart, and rows lie √3/2 of the pitch apart.
    """
    return np.stack([np.asarray(column) * pitch_um / 2, np.asarray(row) * pitch_um * np.sqrt(3) / 2], axis=1)


def is_hexagonal(row: NDArray, column: NDArray) -> bool:
    """Whether array positions are numbered as on Visium slides, where row + column is always even."""
    return bool(len(row)) and not np.any((np.asarray(row).astype(int) + np.asarray(column).astype(int)) % 2)


def fit_lattice(xy_um: NDArray, xy_px: NDArray) -> LatticeFit | None:
    """Fit pixels as an affine image of the array's plane; None where the spots span no area.

    Raises
    ------
    TruthError
        Pixel positions do not follow the array positions.
    """
    if len(xy_px) and np.abs(xy_px).max() > FARTHEST_PX:
        raise TruthError(f"A position is {np.abs(xy_px).max():.3g} pixels away", todo="Check the position file")
    centred_um, centred_px = xy_um - xy_um.mean(axis=0), xy_px - xy_px.mean(axis=0)
    if len(xy_um) < 3 or not np.isfinite(centred_um).all() or np.linalg.matrix_rank(centred_um) < 2:
        return None
    matrix = np.linalg.lstsq(centred_um, centred_px, rcond=None)[0]
    large, small = np.linalg.svd(matrix, compute_uv=False)
    left = np.sqrt(np.mean(np.sum((centred_px - centred_um @ matrix) ** 2, axis=1)))
    spread = np.sqrt(np.mean(np.sum(centred_px**2, axis=1)))
    if left > 0.1 * spread or small == 0:
        raise TruthError(
            "Pixel positions of the spots do not follow their array positions",
            todo="Check that rows, columns, x and y are not mixed up in the position file",
        )
    return LatticeFit(float(np.sqrt(large * small)), float(large / small))

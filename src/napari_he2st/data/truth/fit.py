"""Whether measured spots fit their image: where they lie, and where they would fit better.

Two numbers are compared over the eight flips and transposes of the image and over small shifts: the share of
the spots on tissue, and the contrast between the tissue under the spots and that in a ring around them. The
share tells that a section was mirrored onto glass; the contrast tells apart flips that leave the spots on tissue.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from napari_he2st.core import keys
from napari_he2st.core.errors import TruthError
from napari_he2st.core.schema import facts_of
from napari_he2st.core.types import Transform
from napari_he2st.core.wkt import corners_of, to_wkt

if TYPE_CHECKING:
    from anndata import AnnData

    from napari_he2st.data.slides.tissue import TissueMask

ENOUGH = 0.8
"""Below this share of spots on tissue, measured expression and image probably do not fit."""

GAIN = 0.05
"""A correction has to bring so much larger a share of the spots onto tissue …"""

CONTRAST_GAIN = 0.1
"""… or raise the contrast so much without losing any. On sections that fit, both stay below 0.04."""

REACH_UM = 600.0
"""Shifts up to this distance are tried, or up to six pitches where that is farther."""

Warp = Callable[[NDArray[np.float64]], NDArray[np.float64]]
"""A map of positions (n, 2) that is not affine."""

_SIDE_PX = 512  # of the raster in which shifts are tried
_SCALE_UM = (50.0, 200.0)  # of the footprint: cells and bins lie closer, and their ring would be too thin


@dataclass(frozen=True)
class Correction:
    """A change of the spot positions under which they fit better.

    Attributes
    ----------
    transform
        From the present positions to the proposed ones, level-0 pixels (x, y).
    said
        What it does, in words.
    on_tissue
        Share of the spots on tissue afterwards.
    """

    transform: Transform
    said: str
    on_tissue: float


@dataclass(frozen=True)
class Fit:
    """How well measured spots fit the image.

    Attributes
    ----------
    on_tissue
        Share of the spots whose centre lies on tissue.
    n
        Number of spots.
    outside
        Share of the spots beyond the edges of the image.
    contrast
        Share on tissue minus the share of tissue in a ring around the spots; near 1 where the spots fill the
        tissue, near 0 where they are few or the tissue goes on beyond the array.
    correction
        What would fit clearly better, or None.
    message
        A warning for the user, or None where all is well.
    """

    on_tissue: float
    n: int
    outside: float = 0.0
    contrast: float = 0.0
    correction: Correction | None = None
    message: str | None = None


def check_fit(adata: AnnData, mask: TissueMask, *, warnings: Sequence[str] = ()) -> Fit:
    """Count the spots on tissue, and look whether they would fit better flipped, transposed or shifted.

    Parameters
    ----------
    adata
        Measured expression in our schema.
    mask
        Tissue of the slide that the spots refer to.
    warnings
        What did not fit together when the section was read; becomes part of the message.

    Raises
    ------
    TruthError
        There are no spots.
    """
    if adata.n_obs == 0:
        raise TruthError("There are no spots to check against the tissue")
    xy = np.asarray(adata.obsm[keys.SPATIAL], dtype=np.float64)
    facts = facts_of(adata)
    share, outside = float(np.mean(mask.contains(xy))), _outside(xy, mask)
    said = list(warnings)
    if mask.fraction < 0.001:
        said.append("The image shows no tissue, so the fit cannot be judged. Is it blank, or the wrong image?")
        return Fit(share, adata.n_obs, outside, message=" ".join(said))
    contrast, correction = _search(xy, mask, float(facts["pitch_um"]) / float(facts["mpp"]), float(facts["mpp"]))
    if share < ENOUGH or correction is not None:
        beyond = f", {outside:.0%} lie outside the image" if outside >= 0.005 else ""
        said.append(f"{'Only ' if share < ENOUGH else ''}{share:.0%} of {adata.n_obs:,} spots lie on tissue{beyond}.")
        if correction is not None:
            said.append(f"The fit is better with {correction.said}: {correction.on_tissue:.0%}.")
        else:
            said.append("It may be another image, or one of another size.")
        said.append("Check the picture of the fit before comparing.")
    return Fit(share, adata.n_obs, outside, contrast, correction, " ".join(said) or None)


def correct(adata: AnnData, correction: Correction) -> None:
    """Move the spots as a correction proposes; see :func:`move`."""
    move(adata, correction.transform, correction.said)


def move(adata: AnnData, transform: Transform | Warp, said: str) -> None:
    """Move the spots: ``obsm["spatial"]`` changes, and outlines of cells with it; the vendor's positions stay.

    ``uns["he2st"]["transform"]`` goes on leading from the vendor's positions to the new ones, as long as all
    moves were affine; ``uns["he2st"]["corrections"]`` lists in words what was done.

    Parameters
    ----------
    adata
        Expression in our schema; changed in place.
    transform
        From the present positions to the new ones, level-0 pixels (x, y).
    said
        What it does, in words.
    """
    facts = adata.uns[keys.UNS]
    adata.obsm[keys.SPATIAL] = np.asarray(transform(adata.obsm[keys.SPATIAL]), dtype=np.float64)
    if keys.POLYGON in adata.obs:
        corners, owner = corners_of(map(str, adata.obs[keys.POLYGON]))
        moved = np.asarray(transform(corners), dtype=np.float64)
        ends = np.searchsorted(owner, np.arange(1, adata.n_obs))
        adata.obs[keys.POLYGON] = [to_wkt(ring[:-1]) for ring in np.split(moved, ends)]
    facts["corrections"] = [*map(str, facts.get("corrections", [])), said]
    before = facts.pop("transform", None if len(facts["corrections"]) > 1 else np.eye(3))
    if isinstance(transform, Transform) and before is not None:
        facts["transform"] = transform.matrix @ np.asarray(before, dtype=np.float64)


def _outside(xy: NDArray[np.float64], mask: TissueMask) -> float:
    height, width = (side * mask.downsample for side in mask.mask.shape)
    return float(np.mean((xy < 0).any(axis=1) | (xy[:, 0] >= width) | (xy[:, 1] >= height)))


_FLIPS = {
    (False, False, False): "",
    (False, True, False): "x mirrored",
    (False, False, True): "y mirrored",
    (False, True, True): "a half turn",
    (True, False, False): "x and y exchanged",
    (True, True, False): "a quarter turn",
    (True, False, True): "a quarter turn back",
    (True, True, True): "x and y exchanged and both mirrored",
}


def _flip(transpose: bool, mirror_x: bool, mirror_y: bool, width: float, height: float) -> Transform:
    """A symmetry of the image's rectangle; transposing exchanges the coordinates first."""
    matrix = np.eye(3)
    if transpose:
        matrix = matrix[[1, 0, 2]]
    for row, mirrored, side in ((0, mirror_x, width), (1, mirror_y, height)):
        if mirrored:
            matrix[row] = -matrix[row]
            matrix[row, 2] = side
    return Transform(matrix)


def _search(xy: NDArray[np.float64], mask: TissueMask, pitch_px: float, mpp: float) -> tuple[float, Correction | None]:
    """Contrast at the present positions, and the simplest clearly better ones."""
    height, width = (side * mask.downsample for side in mask.mask.shape)
    scale_px = float(np.clip(pitch_px, _SCALE_UM[0] / mpp, _SCALE_UM[1] / mpp))
    step = max(scale_px / 6, mask.downsample, max(width, height) / _SIDE_PX)
    reach = int(np.ceil(max(6 * scale_px, REACH_UM / mpp) / step))
    size = (max(1, round(width / step)), max(1, round(height / step)))
    tissue = cv2.resize(mask.mask.astype(np.float32), size, interpolation=cv2.INTER_AREA)
    board = _Board(tissue, reach, step, scale_px / step)

    best: tuple[float, Transform, str] | None = None
    present = board.scores(xy)
    here_share, here_contrast = (float(score[reach, reach]) for score in present)
    for flip, name in _FLIPS.items():
        turned = _flip(*flip, width, height)
        share, contrast = present if not name else board.scores(turned(xy))
        # The simplest change wins unless a further one is clearly better: a flip alone before a flip with a shift.
        for at in ((reach, reach), np.unravel_index(int(np.argmax(share + contrast)), share.shape)):
            gain, contrast_gain = float(share[at]) - here_share, float(contrast[at]) - here_contrast
            better = gain >= GAIN or (contrast_gain >= CONTRAST_GAIN and gain >= -0.01)
            total = float(share[at] + contrast[at])
            if better and share[at] >= ENOUGH and (best is None or total > best[0] + GAIN):
                shift = (float(at[1]) - reach) * step, (float(at[0]) - reach) * step
                best = total, Transform(Transform.scale(1.0, shift).matrix @ turned.matrix), _said(name, shift)
    if best is None:
        return here_contrast, None
    _, transform, said = best
    return here_contrast, Correction(transform, said, float(np.mean(mask.contains(transform(xy)))))


def _said(flip: str, shift_px: tuple[float, float]) -> str:
    moved = f"a shift of ({shift_px[0]:+.0f}, {shift_px[1]:+.0f}) px" if any(shift_px) else ""
    return " and ".join(part for part in (flip, moved) if part)


class _Board:
    """Tissue on a coarse raster with a margin, on which shifts are compared by Fourier transform."""

    def __init__(self, tissue: NDArray[np.float32], reach: int, step: float, scale: float) -> None:
        from scipy.fft import rfft2

        self._reach, self._step, self._scale = reach, step, scale
        padded = np.pad(tissue, reach)
        self._shape, self._tissue = padded.shape, rfft2(padded)
        self._image = rfft2(np.pad(np.ones_like(tissue), reach))

    def scores(self, xy: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Share of spots on tissue and contrast for each shift (y, x) up to the reach; the middle is no shift."""
        column, row = np.floor(xy / self._step).astype(np.intp).T + self._reach
        inside = (column >= 0) & (row >= 0) & (column < self._shape[1]) & (row < self._shape[0])
        spots = np.zeros(self._shape)
        np.add.at(spots, (row[inside], column[inside]), 1.0)
        near = cv2.morphologyEx((spots > 0).astype(np.uint8), cv2.MORPH_CLOSE, _disc(1.2 * self._scale))
        near = cv2.dilate(near, _disc(self._scale))  # spots at the edge may reach beyond the tissue
        ring = (cv2.dilate(near, _disc(1.5 * self._scale)) - near).astype(np.float64)
        share = self._correlate(spots, self._tissue) / len(xy)
        seen = self._correlate(ring, self._image)  # what lies beyond the image is not known to be glass
        enough = seen > 0.3 * max(ring.sum(), 1.0)
        around = self._correlate(ring, self._tissue) / np.maximum(seen, 1.0)
        return share, np.where(enough, share - around, 0.0)

    def _correlate(self, pattern: NDArray[np.float64], transformed: NDArray[np.complex128]) -> NDArray[np.float64]:
        from scipy.fft import irfft2, rfft2

        product = irfft2(np.conj(rfft2(pattern)) * transformed, s=self._shape)
        around = np.arange(-self._reach, self._reach + 1)
        return np.asarray(product[np.ix_(around, around)], dtype=np.float64)  # negative shifts count from the end


def _disc(radius: float) -> NDArray[np.uint8]:
    size = 2 * max(1, round(radius)) + 1
    return np.asarray(cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (size, size)), dtype=np.uint8)

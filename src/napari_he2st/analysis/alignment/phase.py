"""Rigid registration of two images by phase correlation over a search of angles."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from napari_he2st.analysis.alignment import alignment_method
from napari_he2st.core.errors import He2stError
from napari_he2st.core.types import Transform

Image = NDArray[np.float64]

_SEARCH_PX = 192
_TIE = 0.01


@alignment_method("phase", "Rotation and shift of the tissue's outline and darkness, by phase correlation")
def phase(moving: Image, fixed: Image, *, mpp: float, max_angle_deg: float = 180.0, mirror: bool = False) -> Transform:
    """Find rotation and shift, searching angles coarse to fine.

    Of turns by which the images agree almost equally well, as those of a symmetric outline do, the smallest is taken.

    Parameters
    ----------
    moving, fixed
        RGB in 0 … 1, (height, width, 3), of the same pixel size.
    mpp
        Micrometres per pixel.
    max_angle_deg
        Largest rotation that is looked for.
    mirror
        Whether the section may have been turned over.

    Returns
    -------
    Transform
        From pixels of ``moving`` to pixels of ``fixed``; ``info`` has ``angle_deg``, ``correlation`` and ``mirrored``.

    Raises
    ------
    He2stError
        One of the images holds no tissue.
    """
    side = max(*moving.shape[:2], *fixed.shape[:2])
    shrink = min(1.0, _SEARCH_PX / side)
    a, b = (_darkness(image, shrink) for image in (moving, fixed))
    size = 2 * max(*a.shape, *b.shape)
    target, target_centre = _placed(b, np.eye(3), size)
    transform = np.conj(np.fft.rfft2(target - target.mean()))

    def attempt(angle: float, flip: bool) -> tuple[float, NDArray[np.float64]]:
        turned = _turn(angle, flip)
        image, matrix = _placed(a, turned, size)
        spectrum = np.fft.rfft2(image - image.mean())
        surface = np.fft.irfft2(spectrum * transform, s=(size, size))
        peak = np.unravel_index(surface.argmax(), surface.shape)
        shift = np.array([((p + size // 2) % size) - size // 2 for p in peak])[::-1]
        norm = np.linalg.norm(image - image.mean()) * np.linalg.norm(target - target.mean())
        back = np.eye(3)
        back[:2, 2] = -shift
        return float(surface.max() / max(norm, 1e-12)), back @ matrix

    flips = (False, True) if mirror else (False,)

    def rated(angle: float, flip: bool) -> tuple[float, float, bool]:
        return attempt(angle, flip)[0] - _TIE * abs(angle) / 180, angle, flip

    best = max(rated(angle, flip) for flip in flips for angle in _angles(0, max_angle_deg, 6.0))
    for step in (2.0, 0.5):
        best = max(rated(angle, best[2]) for angle in _angles(best[1], 4 * step, step))
    correlation, matrix = attempt(best[1], best[2])
    scale = np.diag([shrink, shrink, 1.0])
    whole = np.linalg.inv(scale) @ np.linalg.inv(target_centre) @ matrix @ scale
    return Transform(whole, {"angle_deg": best[1], "correlation": correlation, "mirrored": best[2], "mpp": mpp})


def _angles(middle: float, reach: float, step: float) -> list[float]:
    n = int(reach / step)
    return [middle + step * i for i in range(-n, n + 1)]


def _darkness(image: Image, shrink: float) -> Image:
    import cv2

    size = (max(round(image.shape[1] * shrink), 8), max(round(image.shape[0] * shrink), 8))
    small = cv2.resize(image.astype(np.float32), size, interpolation=cv2.INTER_AREA)
    dark = (1 - small.min(axis=2)).astype(np.float64)
    background = np.median(np.concatenate([dark[0], dark[-1], dark[:, 0], dark[:, -1]]))
    dark = np.maximum(dark - background - 0.02, 0)
    if dark.max() <= 0:
        raise He2stError("There is no tissue in the image", todo="Choose another overview, or align by expression")
    return np.asarray(np.minimum(dark / np.percentile(dark[dark > 0], 95), 1))


def _turn(angle_deg: float, flip: bool) -> NDArray[np.float64]:
    angle = np.deg2rad(angle_deg)
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1.0]])
    mirror = np.diag([-1.0 if flip else 1.0, 1.0, 1.0])
    return np.asarray(turn @ mirror)


def _placed(image: Image, turn: NDArray[np.float64], size: int) -> tuple[Image, NDArray[np.float64]]:
    """The image turned about its middle in the middle of a square, and the map of its pixels to that."""
    import cv2

    middle, corner = np.eye(3), np.eye(3)
    middle[:2, 2] = -(np.array(image.shape[::-1]) - 1) / 2
    corner[:2, 2] = (size - 1) / 2
    matrix = corner @ turn @ middle
    return cv2.warpAffine(image, matrix[:2], (size, size)).astype(np.float64), matrix

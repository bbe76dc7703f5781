"""Similarity registration of two images by points that look alike in both."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from napari_he2st.analysis.alignment import alignment_method
from napari_he2st.core.errors import He2stError
from napari_he2st.core.types import Transform

Image = NDArray[np.float64]


@alignment_method("features", "Rotation, scale and shift by matching SIFT features: sections of much the same texture")
def features(moving: Image, fixed: Image, *, mpp: float, tolerance_um: float = 100.0, least: int = 8) -> Transform:
    """Match features and fit a similarity by RANSAC.

    Parameters
    ----------
    moving, fixed
        RGB in 0 … 1, (height, width, 3), of the same pixel size.
    mpp
        Micrometres per pixel.
    tolerance_um
        How far apart matched points may end up.
    least
        Fewest matches that have to agree.

    Returns
    -------
    Transform
        From pixels of ``moving`` to pixels of ``fixed``; ``info`` has ``matches`` and ``residual_um``.

    Raises
    ------
    He2stError
        Too few matches agree.
    """
    import cv2

    finder = cv2.SIFT_create(nfeatures=4000)
    found = [
        finder.detectAndCompute(cv2.cvtColor((image * 255).astype(np.uint8), cv2.COLOR_RGB2GRAY), None)
        for image in (moving, fixed)
    ]
    pairs = []
    if all(descriptors is not None and len(descriptors) > 1 for _, descriptors in found):
        nearest = cv2.BFMatcher().knnMatch(found[0][1], found[1][1], k=2)
        pairs = [m for m, other in nearest if m.distance < 0.8 * other.distance]
    matrix, agree = None, np.zeros(0, dtype=bool)
    if len(pairs) >= 3:
        source = np.array([found[0][0][m.queryIdx].pt for m in pairs])
        target = np.array([found[1][0][m.trainIdx].pt for m in pairs])
        matrix, mask = cv2.estimateAffinePartial2D(source, target, ransacReprojThreshold=tolerance_um / mpp)
        agree = np.zeros(len(pairs), dtype=bool) if mask is None else mask.ravel().astype(bool)
    if matrix is None or agree.sum() < least:
        message = f"Only {int(agree.sum())} features of the two images agree; {least} are needed"
        raise He2stError(message, todo="Use phase correlation, or place landmarks by hand")
    whole = Transform(np.vstack([matrix, [0, 0, 1]]).astype(np.float64))
    residual = np.linalg.norm(whole(source[agree]) - target[agree], axis=1).mean() * mpp
    return Transform(whole.matrix, {"matches": int(agree.sum()), "residual_um": float(residual)})

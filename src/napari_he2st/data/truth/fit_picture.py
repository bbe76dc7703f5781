"""The fit of a section at one look: its spots over a small picture of the slide, as they are and as they could be."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from napari_he2st.core import keys
from napari_he2st.core.atomic import atomic_write

if TYPE_CHECKING:
    from anndata import AnnData

    from napari_he2st.data.slides.tissue import TissueMask
    from napari_he2st.data.truth.fit import Fit

_ON, _OFF, _EDGE = (0, 114, 178), (213, 94, 0), (0, 158, 115)  # blue, vermilion, green: safe for the colour-blind
_MOST_SPOTS = 20_000
_GAP_PX = 8


def fit_picture(
    adata: AnnData, mask: TissueMask, fit: Fit, overview: NDArray[np.uint8], *, side_px: int = 360
) -> NDArray[np.uint8]:
    """Spots on tissue in blue, beside it in vermilion, the outline of the tissue in green.

    Parameters
    ----------
    adata, mask, fit
        The section, the tissue of its slide, and what :func:`~napari_he2st.data.truth.fit.check_fit` says.
    overview
        Picture of the whole slide, RGB, uint8.
    side_px
        Longest side of a panel.

    Returns
    -------
        RGB, uint8, shape (h, w, 3): one panel, and beside it a second one with the proposed correction, if any.
    """
    xy = np.asarray(adata.obsm[keys.SPATIAL], dtype=np.float64)
    if len(xy) > _MOST_SPOTS:
        xy = xy[np.linspace(0, len(xy) - 1, _MOST_SPOTS).astype(np.intp)]
    panels = [_panel(xy, mask, overview, side_px)]
    if fit.correction is not None:
        gap = np.full((panels[0].shape[0], _GAP_PX, 3), 255, dtype=np.uint8)
        panels += [gap, _panel(fit.correction.transform(xy), mask, overview, side_px)]
    return np.concatenate(panels, axis=1)


def write_picture(picture: NDArray[np.uint8], path: Path, *, force: bool = False) -> None:
    """Write a picture to a PNG file.

    Raises
    ------
    OutputError
        The file exists and is not to be replaced, or cannot be written.
    """
    from PIL import Image

    with atomic_write(path, force=force) as aside:
        Image.fromarray(picture).save(aside, format="PNG")


def _panel(xy: NDArray[np.float64], mask: TissueMask, overview: NDArray[np.uint8], side_px: int) -> NDArray[np.uint8]:
    """One picture with a margin, so that spots beyond the edges of the image are seen too."""
    height, width = mask.mask.shape
    scale = side_px / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    picture = cv2.resize(overview, size, interpolation=cv2.INTER_AREA)
    outline = cv2.resize(mask.mask.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST)
    contours, _ = cv2.findContours(outline, cv2.RETR_LIST, cv2.CHAIN_APPROX_SIMPLE)
    cv2.drawContours(picture, contours, -1, _EDGE, 1, cv2.LINE_AA)
    margin = side_px // 10
    canvas = cv2.copyMakeBorder(picture, margin, margin, margin, margin, cv2.BORDER_CONSTANT, value=(225, 225, 225))
    at = np.clip(xy / mask.downsample * scale + margin, -side_px, 3 * side_px)
    radius = 2 if len(xy) < 1500 else 1
    for (x, y), on in zip(np.rint(at).astype(int), mask.contains(xy), strict=True):
        cv2.circle(canvas, (int(x), int(y)), radius, _ON if on else _OFF, -1, cv2.LINE_AA)
    return np.asarray(canvas, dtype=np.uint8)

"""What looks like tissue but is no use to a predictor: pen marks and parts that are out of focus."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from napari_he2st.data.slides.density import optical_density
from napari_he2st.data.slides.slide import Slide

_INK_OD = 0.35  # fainter colours tell nothing
_WIDEN = 2  # overview pixels around ink that carry its halo

FOCUS_STEP_UM = 128.0
"""Focus is measured this often in both directions."""

_FOCUS_PX, _FOCUS_MPP = 64, 1.0
_BLURRED = 0.4  # of the sharpest quarter's focus


def pen_marks(overview: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Which pixels of an overview (h, w, 3) are ink: bool, shape (h, w).

    Haematoxylin and eosin absorb green most. Green and blue ink absorb red far more than green; red ink absorbs
    green and nearly as much blue, but no red; black ink absorbs all three strongly. Pools of blood can look like
    red ink.
    """
    red, green, blue = cv2.split(optical_density(cv2.GaussianBlur(overview, (3, 3), 0)))
    strongest, weakest = np.maximum(np.maximum(red, green), blue), np.minimum(np.minimum(red, green), blue)
    cold = (red > 1.3 * green) & (red > _INK_OD)
    warm = (blue > 0.65 * green) & (red < 0.3 * green) & (green > 2 * _INK_OD)
    black = (weakest > 1.05) & (weakest > 0.55 * strongest)
    ink = cv2.morphologyEx((cold | warm | black).astype(np.uint8), cv2.MORPH_OPEN, np.ones((2, 2), np.uint8))
    return np.asarray(cv2.dilate(ink, np.ones((2 * _WIDEN + 1,) * 2, np.uint8)), dtype=bool)


def blurred(slide: Slide, mask: NDArray[np.bool_], downsample: float) -> NDArray[np.bool_]:
    """Which pixels of a tissue mask are out of focus: bool, of the same shape.

    Parameters
    ----------
    slide
        The slide.
    mask
        Its tissue.
    downsample
        Level-0 pixels per pixel of the mask.

    Notes
    -----
    Focus is the strength of the Laplacian against that of the contrast in small tiles of 1 µm per pixel (or the
    slide's own, if larger); a tile is blurred if it has less than 0.4 of the slide's upper quartile. A slide that
    is out of focus everywhere is therefore not noticed.
    """
    step = max(1, round(FOCUS_STEP_UM / (downsample * slide.mpp)))
    rows, columns = (-(-side // step) for side in mask.shape)
    share = cv2.resize(mask.astype(np.float32), (columns, rows), interpolation=cv2.INTER_AREA)
    cells = np.argwhere(share > 0.25)
    if len(cells) < 4:
        return np.zeros_like(mask)
    centres = (cells[:, ::-1] + 0.5) * step * downsample
    tiles = slide.read_tiles(centres, _FOCUS_PX, max(_FOCUS_MPP, slide.mpp), batch_size=64)
    focus = np.array([_focus(tile) for batch in tiles for tile in batch.tiles])
    found = np.zeros((rows, columns), dtype=np.uint8)
    found[tuple(cells[focus < _BLURRED * np.percentile(focus, 75)].T)] = 1
    height, width = mask.shape
    whole = cv2.resize(found, (columns * step, rows * step), interpolation=cv2.INTER_NEAREST)
    return np.asarray(whole[:height, :width], dtype=bool) & mask


def _focus(tile: NDArray[np.uint8]) -> float:
    green = tile[:, :, 1].astype(np.float32)
    return float(cv2.Laplacian(green, cv2.CV_32F).std() / (green.std() + 2.0))

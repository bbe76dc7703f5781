"""Small pictures of places on a slide."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from napari_he2st.data.slides import Slide

PICTURE_PX = 48
"""Width of a picture unless told otherwise."""


def pictures(slide: Slide, xy: NDArray[np.float64], width_um: float, *, px: int = PICTURE_PX) -> NDArray[np.uint8]:
    """Pictures around positions (n, 2) in level-0 pixels, uint8 (n, px, px, 3); white where they cannot be read.

    Each shows ``width_um``, or less where that would take more pixels than the slide has.
    """
    if not len(xy):
        return np.zeros((0, px, px, 3), dtype=np.uint8)
    mpp = max(width_um / px, slide.mpp)
    return np.concatenate([batch.tiles for batch in slide.read_tiles(xy, px, mpp)])

"""How large nuclei are in pixels, which tells the pixel size of a slide that does not state it."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from napari_he2st.data.slides.density import HAEMATOXYLIN, optical_density
from napari_he2st.data.slides.slide import Slide

NUCLEUS_UM = 6.5
"""Area-weighted median diameter of compact dark objects in H&E sections.

On sections whose pixel size is known it was 5.6 to 6.0 µm (five of HER2+ breast) and 7.4 to 7.5 µm (two of glioma).
"""

_CROPS, _CROP_PX, _OVERVIEW_PX = 8, 800, 1024
_MIN_NUCLEI = 100
_RESOLVED_PX = 5.0  # smaller objects are noise, or nuclei that are not resolved


def nucleus_px(slide: Slide) -> float | None:
    """Typical diameter of nuclei in level-0 pixels; None where too few are resolved.

    In the crops with most haematoxylin, its density is cut at Otsu's threshold; of the objects that are nearly
    convex, the diameter is taken below which half of their area lies. Clumps and stroma are not convex.
    """
    diameters = np.concatenate([_diameters(crop) for crop in _crops(slide)] or [np.zeros(0)])
    if len(diameters) < _MIN_NUCLEI:
        return None
    diameters.sort()
    area = np.cumsum(diameters**2)
    typical = float(diameters[np.searchsorted(area, area[-1] / 2)])
    return typical if typical >= _RESOLVED_PX else None


def _crops(slide: Slide) -> list[NDArray[np.uint8]]:
    """Windows of full resolution with most haematoxylin, apart from each other."""
    overview = slide.thumbnail(_OVERVIEW_PX)
    step = max(slide.size) / max(overview.shape[:2])
    size = max(3, round(_CROP_PX / step))
    density = cv2.blur(np.clip(_haematoxylin(overview), 0, 1), (size, size))
    crops = []
    for _ in range(_CROPS):
        y, x = np.unravel_index(int(np.argmax(density)), density.shape)
        if density[y, x] <= 0:
            break
        density[max(0, y - size) : y + size, max(0, x - size) : x + size] = 0
        corner = int((x + 0.5) * step) - _CROP_PX // 2, int((y + 0.5) * step) - _CROP_PX // 2
        crops.append(slide.read(*corner, _CROP_PX, _CROP_PX, mpp=slide.mpp))
    return crops


def _haematoxylin(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Density of haematoxylin (Ruifrok & Johnston, Anal Quant Cytol Histol 23:291, 2001)."""
    return np.asarray(optical_density(pixels) @ HAEMATOXYLIN, dtype=np.float32)


def _diameters(crop: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Diameters of the nearly convex dark objects of a crop, pixels."""
    density = cv2.GaussianBlur(_haematoxylin(crop), (0, 0), 1)
    scaled = np.clip(density / max(float(np.percentile(density, 99.5)), 1e-3) * 255, 0, 255).astype(np.uint8)
    _, dark = cv2.threshold(scaled, 0, 1, cv2.THRESH_OTSU)
    outlines, _ = cv2.findContours(cv2.medianBlur(dark, 3), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    areas = np.array([(cv2.contourArea(o), cv2.contourArea(cv2.convexHull(o))) for o in outlines]).reshape(-1, 2)
    kept = (areas[:, 0] >= 20) & (areas[:, 0] > 0.88 * areas[:, 1])
    return np.asarray(2 * np.sqrt(areas[kept, 0] / np.pi))

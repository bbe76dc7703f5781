"""From light to the amount of dye: optical density."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

LIGHT = 255.0
"""Grey value of glass."""

_RUIFROK = np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11], [0.27, 0.57, 0.78]])  # haematoxylin, eosin, DAB

HAEMATOXYLIN = np.linalg.inv(_RUIFROK / np.linalg.norm(_RUIFROK, axis=1, keepdims=True))[:, 0].astype(np.float32)
"""Optical density of RGB times this is the density of haematoxylin beside eosin and DAB (Ruifrok & Johnston, 2001)."""

_DENSITY: NDArray[np.float32] = -np.log((np.arange(256, dtype=np.float32) + 1) / (LIGHT + 1))[None]


def optical_density(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """−ln of the light that passes through RGB pixels (h, w, 3): float32, of the same shape."""
    return np.asarray(cv2.LUT(pixels, _DENSITY))

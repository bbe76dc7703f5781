"""Bringing patches of a level to the wanted pixel size."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

SAME = 0.01
"""Factors that differ by less are treated as equal: scanners state pixel sizes no better than that."""

Resize = Callable[[NDArray[np.uint8], int, NDArray[np.uint8]], None]
"""``(window, patch number, out)``: fills ``out`` from the window of that patch."""


@dataclass(frozen=True)
class Cut:
    """Which window of a level each patch needs, and how it becomes the patch.

    Attributes
    ----------
    size
        (width, height) of a patch.
    window
        (width, height) of the level pixels it needs.
    origins
        Level pixel (x, y) of the upper left corner of each window, int64, shape (n, 2).
    resize
        None where the window already is the patch.
    """

    size: tuple[int, int]
    window: tuple[int, int]
    origins: NDArray[np.int64]
    resize: Resize | None


def plan_cut(
    centres: NDArray[np.float64], size: tuple[int, int], factor: float, *, exact: bool, same: float = SAME
) -> Cut:
    """Plan patches of ``size`` whose pixels are ``factor`` level pixels wide, around ``centres`` of a level.

    At a factor of 1 the pixels are taken as they are, at other whole factors the mean over each pixel's area;
    in both cases windows begin at the nearest level pixel. Else, ``exact`` filters as torch's and Pillow's
    antialiased bilinear resizing do, at sub-pixel positions; otherwise windows begin at the nearest level
    pixel and are blurred and interpolated, three to four times faster.

    Parameters
    ----------
    centres
        Level pixels (x, y), shape (n, 2).
    size
        (width, height) of a patch.
    factor
        Level pixels per patch pixel.
    exact
        Which filter to use at factors that are not whole.
    same
        Relative difference up to which a factor counts as whole.
    """
    whole = max(1, round(factor))
    if abs(factor - whole) <= same * whole:
        window = size[0] * whole, size[1] * whole
        return Cut(size, window, _nearest(centres, window), None if whole == 1 else _mean)
    if exact or factor < 1:
        return _antialiased(centres, size, factor)
    return _blurred(centres, size, factor)


def _nearest(centres: NDArray[np.float64], window: tuple[int, int]) -> NDArray[np.int64]:
    return np.floor(centres - np.asarray(window) / 2 + 0.5).astype(np.int64)


def _mean(window: NDArray[np.uint8], number: int, out: NDArray[np.uint8]) -> None:
    cv2.resize(window, (out.shape[1], out.shape[0]), dst=out, interpolation=cv2.INTER_AREA)


def _antialiased(centres: NDArray[np.float64], size: tuple[int, int], factor: float) -> Cut:
    field = np.asarray(size) * factor
    margin = max(1.0, factor)  # how far the triangle filter reaches
    corners = centres - field / 2
    origins = np.floor(corners - margin).astype(np.int64)
    offsets = corners - origins
    window = (math.ceil(field[0] + 2 * margin) + 1, math.ceil(field[1] + 2 * margin) + 1)

    def resize(pixels: NDArray[np.uint8], number: int, out: NDArray[np.uint8]) -> None:
        x, y = offsets[number]
        box = (x, y, x + field[0], y + field[1])
        out[:] = np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BILINEAR, box=box))

    return Cut(size, window, origins, resize)


def _blurred(centres: NDArray[np.float64], size: tuple[int, int], factor: float) -> Cut:
    whole = int(factor)  # this much by means, the rest (1 to 2) by blur and interpolation
    window = round(size[0] * factor / whole) * whole, round(size[1] * factor / whole) * whole
    reduced = window[0] // whole, window[1] // whole
    # A pixel passes detail like a Gaussian of 0.58 pixels; the blur makes up the difference.
    sigma = 0.58 * math.sqrt((factor / whole) ** 2 - 1)

    def resize(pixels: NDArray[np.uint8], number: int, out: NDArray[np.uint8]) -> None:
        if whole > 1:
            pixels = cv2.resize(pixels, reduced, interpolation=cv2.INTER_AREA)
        blurred = cv2.GaussianBlur(pixels, (3, 3), sigma, borderType=cv2.BORDER_REPLICATE)
        cv2.resize(blurred, size, dst=out, interpolation=cv2.INTER_LINEAR)

    return Cut(size, window, _nearest(centres, window), resize)

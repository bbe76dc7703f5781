"""Where the tissue is: texture and stain of an overview."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from napari_he2st.core.errors import SlideError
from napari_he2st.data.slides.artefacts import blurred, pen_marks
from napari_he2st.data.slides.slide import Slide

OVERVIEW_MPP = 8.0
"""Micrometres per pixel of the overview: cells blur into texture, and an overview stays small."""

_MAX_PX = 2048
_WINDOW_UM = 72.0  # neighbourhood in which texture is measured
_TEXTURE_RANGE = (3.0, 8.0)  # grey levels between which the threshold may lie
_BRIGHT = 200  # glass is brighter than this in green
_BLACK = 30  # nothing stained is darker in all channels at this resolution: a cut-out background


_OPTIONS = ("threshold", "min_area_um2", "close_um", "drop_pen", "drop_blur")


@dataclass(frozen=True, eq=False)
class TissueMask:
    """Which part of a slide is tissue.

    Attributes
    ----------
    mask
        bool, shape (h, w), covering the whole slide.
    downsample
        Level-0 pixels per mask pixel.
    fraction
        Share of the slide that is tissue.
    method
        How it was found.
    params
        Every parameter and threshold that leads to this mask again.
    """

    mask: NDArray[np.bool_]
    downsample: float
    fraction: float
    method: str
    params: dict[str, Any] = field(default_factory=dict)

    def contains(self, xy: ArrayLike) -> NDArray[np.bool_]:
        """Which positions in level-0 pixels (x, y), shape (n, 2), lie on tissue; none outside the slide."""
        points = np.asarray(xy, dtype=np.float64).reshape(-1, 2)
        column, row = np.floor(points / self.downsample).T
        height, width = self.mask.shape
        inside = (column >= 0) & (row >= 0) & (column < width) & (row < height)  # False for NaN
        found = np.zeros(len(points), dtype=bool)
        found[inside] = self.mask[row[inside].astype(np.intp), column[inside].astype(np.intp)]
        return found

    @property
    def options(self) -> dict[str, Any]:
        """What :func:`tissue_mask` has to be told to find it again."""
        return {name: self.params[name] for name in _OPTIONS if name in self.params}

    @property
    def facts(self) -> dict[str, Any]:
        """What to remember of it: method, parameters, and the share of the slide."""
        return {"method": self.method, **self.params, "fraction": self.fraction}

    @property
    def warning(self) -> str | None:
        """What to tell the user when the mask looks wrong, or None."""
        if self.fraction < 0.01:
            return f"Only {self.fraction:.1%} of the slide was found to be tissue: check the mask or draw a region"
        if self.fraction > 0.95:
            return f"{self.fraction:.1%} of the slide was found to be tissue: the background may be included"
        return None


def tissue_mask(
    slide: Slide,
    *,
    threshold: float | None = None,
    min_area_um2: float = 50_000.0,
    close_um: float = 60.0,
    drop_pen: bool = False,
    drop_blur: bool = False,
) -> TissueMask:
    """Find tissue on an overview of 8 µm per pixel (coarser for large slides).

    Tissue has texture at this scale, glass has none even where it is tinted by stain or badly lit; so the
    threshold is Otsu's on the logarithm of the local standard deviation of green. Dense smooth tissue is
    added where both saturation (HSV) and optical density are beyond Otsu's thresholds. Then: median filter,
    closing, small holes filled, small pieces and pieces without stain (dust, pen) removed.

    Parameters
    ----------
    slide
        The slide.
    threshold
        Local standard deviation in grey levels above which it is tissue; None chooses it, within 3 to 8.
    min_area_um2
        Smaller pieces are dropped and smaller holes filled, square micrometres.
    close_um
        Gaps up to about this width are closed, micrometres.
    drop_pen
        Leave out pen marks, and see through them when looking for tissue.
    drop_blur
        Leave out what is out of focus against the rest of the slide.

    Raises
    ------
    SlideError
        A parameter is below zero.
    """
    if min_area_um2 < 0 or close_um < 0 or (threshold is not None and threshold < 0):
        raise SlideError("Parameters of the tissue mask have to be zero or above", where=slide.name)
    longest = max(slide.size)
    overview = slide.thumbnail(max(1, min(_MAX_PX, round(longest * slide.mpp / OVERVIEW_MPP))))
    downsample = longest / max(overview.shape[:2])
    um = downsample * slide.mpp  # per overview pixel

    dropped: dict[str, float] = {}
    black = overview.max(axis=2) < _BLACK
    if drop_pen:
        ink = pen_marks(np.where(black[..., None], np.uint8(255), overview))
        overview[ink] = 255
        dropped["pen_fraction"] = float(ink.mean())
    overview[black] = 255
    window = _odd(_WINDOW_UM / um)
    texture = _local_spread(np.minimum(overview[:, :, 1], _glass_level(overview[:, :, 1])), window)
    if threshold is None:
        threshold = float(np.clip(_otsu_log(texture), *_TEXTURE_RANGE))
    stained, cuts = _stained(overview)
    tissue = ((texture > threshold) & ~black).astype(np.uint8)
    # A window that half lies on tissue already shows texture: take off what it adds around the edge.
    tissue = cv2.erode(tissue, _disc(window / 4), borderType=cv2.BORDER_REPLICATE)
    tissue |= stained
    tissue = cv2.medianBlur(tissue, 5)
    tissue = cv2.morphologyEx(tissue, cv2.MORPH_CLOSE, _disc(close_um / um / 2))
    tissue = _drop_small(tissue, stained, min_area_um2 / um**2)
    mask = tissue.astype(bool)
    if drop_pen:
        mask &= ~ink
    if drop_blur:
        unsharp = blurred(slide, mask, downsample)
        mask &= ~unsharp
        dropped["blur_fraction"] = float(unsharp.mean())
    params = {"threshold": threshold, "min_area_um2": min_area_um2, "close_um": close_um}
    params |= {"drop_pen": drop_pen, "drop_blur": drop_blur, "mpp": um, **cuts, **dropped}
    return TissueMask(mask, downsample, float(mask.mean()), "texture and stain", params)


def _local_spread(channel: NDArray[np.uint8], window: int) -> NDArray[np.float32]:
    """Standard deviation in a square window, float32."""
    values = channel.astype(np.float32)
    mean = cv2.blur(values, (window, window))
    square = cv2.sqrBoxFilter(values, cv2.CV_32F, (window, window))
    return np.asarray(np.sqrt(np.maximum(square - mean * mean, 0)), dtype=np.float32)


def _glass_level(green: NDArray[np.uint8]) -> int:
    """The commonest bright value below white: areas that were not scanned are white, and no tissue is brighter."""
    counts = np.bincount(green.ravel(), minlength=256)
    return _BRIGHT + int(np.argmax(counts[_BRIGHT:254]))


def _otsu_log(texture: NDArray[np.float32]) -> float:
    """Otsu's threshold of log(1 + texture), in grey levels."""
    scaled = np.minimum(np.log1p(texture) * 50, 255).astype(np.uint8)
    return float(np.expm1(cv2.threshold(scaled, 0, 1, cv2.THRESH_OTSU)[0] / 50))


def _stained(overview: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], dict[str, float]]:
    """Pixels beyond Otsu's thresholds of both saturation and darkness, uint8, and these thresholds."""
    saturation = cv2.medianBlur(cv2.cvtColor(overview, cv2.COLOR_RGB2HSV)[:, :, 1], 5)
    darkness = 255 - cv2.medianBlur(overview[:, :, 1], 5)  # eosin and haematoxylin both absorb green
    saturation_cut, saturated = cv2.threshold(saturation, 0, 1, cv2.THRESH_OTSU)
    darkness_cut, dark = cv2.threshold(darkness, 0, 1, cv2.THRESH_OTSU)
    return saturated & dark, {"saturation": float(saturation_cut), "darkness": float(darkness_cut)}


def _drop_small(tissue: NDArray[np.uint8], stained: NDArray[np.uint8], area_px: float) -> NDArray[np.uint8]:
    """Fill holes and drop pieces below ``area_px``; drop pieces with hardly any stain."""
    _, holes, stats, _ = cv2.connectedComponentsWithStats(1 - tissue, connectivity=4)
    small = stats[:, cv2.CC_STAT_AREA] < area_px
    small[0] = False  # label 0 is the tissue itself
    tissue = tissue | small[holes]
    _, pieces, stats, _ = cv2.connectedComponentsWithStats(tissue, connectivity=8)
    area = stats[:, cv2.CC_STAT_AREA]
    share = np.bincount(pieces.ravel(), weights=stained.ravel(), minlength=len(area)) / np.maximum(area, 1)
    keep = (area >= area_px) & (share > 0.05)
    keep[0] = False  # label 0 is the background
    return np.asarray(keep[pieces], dtype=np.uint8)


def _odd(size: float) -> int:
    return max(3, 2 * round((size - 1) / 2) + 1)


def _disc(radius: float) -> NDArray[np.uint8]:
    size = 2 * max(1, round(radius)) + 1
    return np.asarray(cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (size, size)), dtype=np.uint8)

"""Stain normalisation: the colours of one slide as if another laboratory had stained it.

Both methods are fitted once per slide, on a fixed sample of its tissue, so that every patch of a slide changes
in the same way; glass stays as it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from napari_he2st.core import keys
from napari_he2st.core.errors import SlideError
from napari_he2st.data.slides.density import LIGHT, optical_density
from napari_he2st.data.slides.grid import square_grid
from napari_he2st.data.slides.slide import Slide
from napari_he2st.data.slides.tissue import tissue_mask

Method = Literal["macenko", "reinhard"]

METHODS: tuple[Method, ...] = ("macenko", "reinhard")

_GLASS_OD = 0.15  # optical density below which a pixel is glass (Macenko's beta)
_ANGLE_PERCENT = 1.0  # Macenko's alpha: stain vectors are robust extremes
_SAMPLE_TILES, _SAMPLE_PX, _SAMPLE_MPP = 48, 160, 1.0


@dataclass(frozen=True)
class Stains:
    """How a slide is stained, after Macenko et al. (ISBI 2009).

    Attributes
    ----------
    vectors
        Optical density of haematoxylin and eosin in RGB, float64, shape (3, 2), unit columns.
    strongest
        Robust maximum of each stain's density, float64, shape (2,).
    """

    vectors: NDArray[np.float64]
    strongest: NDArray[np.float64]


MACENKO_TARGET = Stains(np.array([[0.5626, 0.2159], [0.7201, 0.8012], [0.4062, 0.5581]]), np.array([1.9705, 1.0308]))
"""The usual reference of Macenko's method: stain vectors and maxima of its published code."""

REINHARD_TARGET = np.array([[147.97, 143.58, 107.97], [50.73, 4.67, 8.67]])
"""Mean and standard deviation of L, a, b (8-bit CIELAB) of the HER2+ breast section that ships with the package."""

_GLASS_GREY = int((LIGHT + 1) * np.exp(-_GLASS_OD)) - 1  # glass is brighter in all channels


def _keep_glass(pixels: NDArray[np.uint8], changed: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Give glass its old colour back, in place: both (h, w, 3)."""
    red, green, blue = cv2.split(pixels)
    glass = cv2.compare(cv2.min(cv2.min(red, green), blue), _GLASS_GREY, cv2.CMP_GT)
    return np.asarray(cv2.copyTo(pixels, glass, changed))


def _flat(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Any number of patches as one picture."""
    return np.ascontiguousarray(pixels).reshape(-1, pixels.shape[-2], 3)


def fit_stains(pixels: NDArray[np.uint8]) -> Stains:
    """Find the stain vectors of tissue pixels, uint8, shape (n, 3).

    The two extreme directions, in the plane of most variance, among pixels that are not glass.

    Raises
    ------
    SlideError
        There are too few stained pixels.
    """
    density = optical_density(pixels[None])[0].astype(np.float64)
    density = density[(density > _GLASS_OD).all(axis=1)]
    if len(density) < 100:
        raise SlideError("There is too little stained tissue to find its stains", todo="Check the tissue mask")
    _, axes = np.linalg.eigh(np.cov(density.T))
    plane = axes[:, 1:]
    plane = plane * np.where(plane.sum(axis=0) < 0, -1, 1)  # towards more light absorbed
    angle = np.arctan2(*(density @ plane).T)
    extreme = np.percentile(angle, (_ANGLE_PERCENT, 100 - _ANGLE_PERCENT))
    vectors = plane @ np.stack([np.sin(extreme), np.cos(extreme)])
    vectors = vectors[:, np.argsort(-vectors[0])]  # haematoxylin absorbs more red
    return Stains(vectors, np.percentile(density @ np.linalg.pinv(vectors).T, 99, axis=0))


def fit_colours(pixels: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Mean and standard deviation of L, a, b (8-bit CIELAB) of tissue pixels (n, 3): float64, shape (2, 3)."""
    tissue = pixels[pixels.min(axis=1) <= _GLASS_GREY]
    if len(tissue) < 100:
        raise SlideError("There is too little stained tissue to find its colours", todo="Check the tissue mask")
    lab = cv2.cvtColor(tissue[None], cv2.COLOR_RGB2LAB)[0].astype(np.float64)
    return np.stack([lab.mean(axis=0), np.maximum(lab.std(axis=0), 1e-3)])


class Macenko:
    """Densities of both stains, found with the slide's own vectors, shown with those of the target.

    Parameters
    ----------
    source
        Stains of the slide.
    target
        Stains that it should have.
    towards
        Said of the target in the key.
    """

    def __init__(self, source: Stains, target: Stains = MACENKO_TARGET, *, towards: str = "") -> None:
        self.key = f"macenko{towards}"
        scale = target.strongest / np.maximum(source.strongest, 1e-3)
        # One matrix does it all: unmix, rescale, mix.
        self._matrix = -(target.vectors * scale @ np.linalg.pinv(source.vectors)).astype(np.float32)

    def __call__(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """New colours of RGB pixels, uint8, shape (…, 3)."""
        if not pixels.size:
            return pixels
        flat = _flat(pixels)
        light = cv2.exp(cv2.transform(optical_density(flat), self._matrix))
        return _keep_glass(flat, cv2.convertScaleAbs(light, alpha=LIGHT + 1, beta=-1)).reshape(pixels.shape)


class Reinhard:
    """Mean and spread of the colours (Reinhard et al., IEEE CG&A 21:34, 2001), here in CIELAB.

    Parameters
    ----------
    source
        Mean and standard deviation of the slide's tissue, shape (2, 3).
    target
        Those that it should have.
    towards
        Said of the target in the key.
    """

    def __init__(
        self, source: NDArray[np.float64], target: NDArray[np.float64] = REINHARD_TARGET, *, towards: str = ""
    ) -> None:
        self.key = f"reinhard{towards}"
        values = np.arange(256)[:, None]
        moved = (values - source[0]) * (target[1] / source[1]) + target[0]
        self._table = np.clip(moved + 0.5, 0, 255).astype(np.uint8)  # per channel, for each of its 256 values

    def __call__(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """New colours of RGB pixels, uint8, shape (…, 3)."""
        if not pixels.size:
            return pixels
        flat = _flat(pixels)
        lab = cv2.LUT(cv2.cvtColor(flat, cv2.COLOR_RGB2LAB), self._table[None])
        return _keep_glass(flat, cv2.cvtColor(lab, cv2.COLOR_LAB2RGB)).reshape(pixels.shape)


def normalised(slide: Slide, method: str | None, *, reference: Slide | None = None) -> Slide:
    """The slide with its stain normalised; the slide itself where there is no method.

    Parameters
    ----------
    slide
        The slide.
    method
        ``"macenko"``, ``"reinhard"``, or none: None, an empty text or :data:`~napari_he2st.core.keys.AS_STORED`.
    reference
        Slide whose stain it should have; by default the method's own target.

    Raises
    ------
    SlideError
        The method is unknown, or there is too little tissue.
    """
    if method in (None, "", keys.AS_STORED):
        return slide
    towards = "" if reference is None else f" to {reference.fingerprint[:12]}"
    if method == "macenko":
        stains = MACENKO_TARGET if reference is None else fit_stains(sample(reference))
        return slide.recoloured(Macenko(fit_stains(sample(slide)), stains, towards=towards))
    if method == "reinhard":
        colours = REINHARD_TARGET if reference is None else fit_colours(sample(reference))
        return slide.recoloured(Reinhard(fit_colours(sample(slide)), colours, towards=towards))
    raise SlideError(f"There is no stain normalisation named {method!r}", todo=f"Choose {' or '.join(METHODS)}")


def sample(slide: Slide) -> NDArray[np.uint8]:
    """Pixels of a slide's tissue, uint8, shape (n, 3): a fixed sample, spread evenly, at 1 µm per pixel.

    Raises
    ------
    SlideError
        No tissue was found.
    """
    mask = tissue_mask(slide)
    width, height = slide.size
    area_um2 = max(mask.fraction, 1e-6) * width * height * slide.mpp**2
    grid = square_grid(slide, float(np.sqrt(area_um2 / _SAMPLE_TILES)), mask=mask)
    if not len(grid):
        raise SlideError("No tissue was found on the slide", where=slide.name, todo="Check the tissue mask")
    mpp = max(_SAMPLE_MPP, slide.mpp)
    tiles = [batch.tiles[batch.ok] for batch in slide.read_tiles(grid.xy, _SAMPLE_PX, mpp, batch_size=16)]
    return np.concatenate(tiles).reshape(-1, 3)[::4]

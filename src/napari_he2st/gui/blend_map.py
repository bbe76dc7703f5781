"""Up to four genes of one result in one layer, each in a colour of its own that adds to the others."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from napari.layers import Image, Points
from numpy.typing import NDArray

from napari_he2st.core.geometry import world_from_level0
from napari_he2st.engine.session_items import Result
from napari_he2st.gui.gene_map import METADATA, UNITS, GeneMap, name_in_picture, robust_limits
from napari_he2st.gui.rasters import Raster


class Ink(NamedTuple):
    """A colour that is added, and its name."""

    name: str
    rgb: tuple[int, int, int]


INKS = (
    Ink("blue", (40, 110, 255)),
    Ink("yellow", (255, 215, 0)),
    Ink("red", (255, 0, 80)),
    Ink("green", (0, 205, 105)),
)
"""Colours of the first to the fourth gene: blue and yellow, which add to white, can be told by everyone and are not
those of H&E."""


class Part(NamedTuple):
    """One gene of a blend: what it is, its ink, and the values at which that is absent and full."""

    label: str
    ink: Ink
    low: float
    high: float


class BlendMap:
    """Several genes of a result as one picture: where none is high it is transparent.

    Parameters
    ----------
    gene_map
        The map of the result that it lies on: the same spots are drawn.

    Attributes
    ----------
    layer
        Points, or an Image of colours, as that of the map.
    parts
        What is shown.
    raster
        Where the spots are in that image, or None.
    """

    def __init__(self, gene_map: GeneMap) -> None:
        self.result: Result = gene_map.result
        self.raster: Raster | None = gene_map.raster
        self.parts: list[Part] = []
        self._values: list[NDArray[np.float32]] = []
        colours = np.zeros((len(self.result.grid), 4), dtype=np.float32)
        self.layer: Image | Points = self._points(colours) if self.raster is None else self._image(self.raster)
        name_in_picture(self.layer)

    def _points(self, colours: NDArray[np.float32]) -> Points:
        grid = self.result.grid
        return Points(
            world_from_level0(grid.xy, grid.mpp),
            face_color=colours,
            size=grid.spot_um,
            border_width=0,
            units=UNITS,
            metadata={METADATA: {"blend": self.result.name}},
        )

    def _image(self, raster: Raster) -> Image:
        return Image(
            np.zeros((*raster.shape, 4), dtype=np.uint8),
            rgb=True,
            interpolation2d="nearest",
            scale=raster.scale_um,
            translate=raster.translate_um,
            units=UNITS,
            metadata={METADATA: {"blend": self.result.name}},
        )

    def show(self, labels: list[str]) -> None:
        """Show these genes, at most four; each between percentiles of its own."""
        labels = labels[: len(INKS)]
        self._values = [self.result.column(label) for label in labels]
        self.parts = [
            Part(label, ink, *robust_limits(values))
            for label, ink, values in zip(labels, INKS, self._values, strict=False)
        ]
        self._draw()

    def set_limits(self, number: int, low: float, high: float) -> None:
        """Choose the values at which a gene's ink is absent and full."""
        if low < high:
            self.parts[number] = self.parts[number]._replace(low=low, high=high)
            self._draw()

    def refresh(self) -> None:
        """Draw again, as while a run fills the result."""
        self.show([part.label for part in self.parts])

    def _draw(self) -> None:
        colours = blend(self._values, self.parts)
        if self.raster is None:
            self.layer.face_color = colours / np.float32(255)
        else:
            padded = np.concatenate([colours, np.zeros((1, 4), np.uint8)])
            pixels = padded.view(np.uint32)[:, 0].take(self.raster.source, mode="clip")
            self.layer.data = pixels.view(np.uint8).reshape(*self.raster.shape, 4)
        shown = " + ".join(f"{part.label} ({part.ink.name})" for part in self.parts)
        self.layer.name = f"{shown} — {self.result.kind}"


def blend(values: list[NDArray[np.float32]], parts: list[Part]) -> NDArray[np.uint8]:
    """Colours of spots, RGBA, shape (spots, 4): inks add up, the highest gene decides how opaque a spot is.

    A spot is transparent where no gene of it is known.
    """
    n = len(values[0]) if values else 0
    light, most = np.zeros((n, 3), dtype=np.float32), np.zeros(n, dtype=np.float32)
    for gene, part in zip(values, parts, strict=True):
        level = np.nan_to_num(np.clip((gene - part.low) / (part.high - part.low), 0, 1))
        light += level[:, None] * np.asarray(part.ink.rgb, dtype=np.float32)
        np.maximum(most, level, out=most)
    colours = np.empty((n, 4), dtype=np.uint8)
    # What is not opaque must not be dark as well: the light is that of the highest gene at its full strength.
    colours[:, :3] = np.minimum(light / np.maximum(most, 1e-6)[:, None], 255)
    colours[:, 3] = 255 * most
    return colours

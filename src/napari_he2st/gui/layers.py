"""The border to napari: mirrors a session in layers. Only here level-0 pixels become world micrometres.

One layer per slide and one per result, not one per gene: a gene is what a result's layer shows at the moment.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal
from weakref import ref

import numpy as np
from napari.layers import Image, Labels, Points, Shapes
from numpy.typing import NDArray

from napari_he2st.core.geometry import level0_from_world, px_from_um, world_from_level0
from napari_he2st.core.types import Domains, Grid, Region
from napari_he2st.engine.session import Result, Session, SlideItem
from napari_he2st.gui.rasters import Raster, raster_of

if TYPE_CHECKING:
    from napari.layers import Layer
    from napari.viewer import Viewer

    from napari_he2st.data.slides import Slide

UNITS = ("um", "um")
METADATA = "napari_he2st"
"""Key of a layer's metadata under which we say what it shows."""

MAX_POINTS = 20_000
"""More spots than this are drawn as one image: a gene change of Points takes too long above."""

COLORMAPS = ("viridis", "cividis", "magma", "inferno", "gray", "turbo")
"""Choices for gene maps; the first two read best on the pink of H&E and for colour-blind users."""

DOMAIN_COLOURS = (
    "#0072B2", "#E69F00", "#009E73", "#CC79A7", "#F0E442", "#56B4E9", "#D55E00", "#332288",
    "#999933", "#882255", "#44AA99", "#DDCC77", "#AA4499", "#117733", "#88CCEE", "#661100",
)  # fmt: skip
"""Okabe and Ito's colours, then Tol's muted ones; repeated beyond 16 domains."""

Limits = Literal["robust", "full", "locked"]


def slide_layer_data(slide: Slide, name: str | None = None) -> tuple[Any, dict[str, Any], str]:
    """A slide as napari's layer data tuple: the pyramid in micrometres."""
    return (
        slide.pyramid(),
        {
            "name": name or slide.name,
            "rgb": True,
            "multiscale": True,
            "scale": (slide.mpp, slide.mpp),
            "units": UNITS,
            "metadata": {METADATA: {"slide": slide}},
        },
        "image",
    )


class SlideLayers:
    """Mirrors a session in the layers of one viewer.

    Parameters
    ----------
    viewer
        Held weakly.
    session
        What is mirrored; its signals keep the layers up to date.
    """

    def __init__(self, viewer: Viewer, session: Session) -> None: ...

    # slides
    def slide_layer(self, slide: str) -> Image | None: ...
    def show_mask(self, slide: str, visible: bool = True) -> None: ...
    def show_tiles(self, grid: Grid | None) -> None: ...
    def current_view(self, slide: str) -> Region: ...
    def draw_regions(self, slide: str) -> Shapes: ...
    def drawn_regions(self, slide: str) -> list[Region]: ...

    # results
    def result_layer(self, result: str) -> Image | Points | None: ...
    def show_gene(self, result: str, gene: str) -> None: ...
    def show_values(self, result: str, values: NDArray, label: str) -> None: ...
    def limits(self, result: str) -> tuple[float, float]: ...
    def set_limits(self, result: str, mode: Limits, low: float | None = None, high: float | None = None) -> None: ...
    def set_colormap(self, result: str, name: str) -> None: ...
    def set_overlay_visible(self, visible: bool) -> None: ...

    # domains
    def domains_layer(self, result: str) -> Labels | Points | None: ...

"""The layer in which the user draws regions of one slide, in step with the session."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from napari.layers import Shapes
from numpy.typing import NDArray

from napari_he2st.core.geometry import level0_from_world, world_from_level0
from napari_he2st.core.types import Region
from napari_he2st.gui.colours import UNCLASSED, colour_regions
from napari_he2st.gui.gene_map import UNITS

if TYPE_CHECKING:
    from napari_he2st.engine.session import Session

_LINES = ("line", "path")
_EDGE_UM = 20.0
"""Wide enough to be seen when the whole section is on screen."""
_FEATURES = ("name", "class", "colour")


class RegionLayer:
    """Closed shapes that become the regions of a slide, with name and class among the layer's features.

    Parameters
    ----------
    session
        Told of what is drawn.
    slide
        Name of its slide.
    """

    def __init__(self, session: Session, slide: str) -> None:
        self._session, self._slide = session, slide
        self._mpp = session.slides[slide].slide.mpp
        self.layer = Shapes(
            name=f"Regions of {slide}",
            ndim=2,
            face_color="transparent",
            edge_color=UNCLASSED,
            edge_width=_EDGE_UM,
            features={name: np.empty(0, dtype=object) for name in _FEATURES},
            feature_defaults=dict.fromkeys(_FEATURES, ""),
            text={"string": "{name}", "color": "black", "size": 11, "anchor": "upper_left"},
            units=UNITS,
        )
        self._following = False
        self.layer.events.data.connect(self._drawn)

    def regions(self) -> list[Region]:
        """The closed shapes, as polygons in level-0 pixels."""
        features = self.layer.features
        regions = []
        for row in self._closed():
            corners = np.asarray(self.layer.data[row])
            outline = _ellipse(corners) if self.layer.shape_type[row] == "ellipse" else corners
            name, kind, colour = (str(features[feature].iloc[row]) for feature in _FEATURES)
            regions.append(Region(level0_from_world(outline, self._mpp), name, kind, colour or None))
        return regions

    def follow(self) -> None:
        """Show the regions that the session has."""
        wanted = self._session.regions[self._slide]
        known = self.regions()
        same = len(known) == len(wanted) and all(
            a.polygon.shape == b.polygon.shape and np.allclose(a.polygon, b.polygon)
            for a, b in zip(known, wanted, strict=True)
        )
        if not same:
            self._replace(wanted)
        self._describe(wanted)

    def _drawn(self, *_: object) -> None:
        if not self._following:
            self._name_new()
            self._session.set_regions(self._slide, colour_regions(self.regions()))

    def _closed(self) -> list[int]:
        kinds = self.layer.shape_type
        return [row for row, data in enumerate(self.layer.data) if kinds[row] not in _LINES and len(data) >= 3]

    def _name_new(self) -> None:
        """Give shapes without a name, or with that of the one they were copied from, a name of their own."""
        names = self.layer.features["name"]
        taken: list[str] = []
        for row in self._closed():
            if not names.iloc[row] or names.iloc[row] in taken:
                names.iloc[row] = free_name("region", {*names, *taken})
            taken.append(names.iloc[row])
        self.layer.features["name"] = names

    def _replace(self, regions: Sequence[Region]) -> None:
        self._following = True
        try:
            self.layer.selected_data = set(self._closed())
            self.layer.remove_selected()
            self.layer.add_polygons([world_from_level0(region.polygon, self._mpp) for region in regions])
        finally:
            self._following = False

    def _describe(self, regions: Sequence[Region]) -> None:
        """Write names and classes into the features, and draw each shape in the colour of its class."""
        features = self.layer.features.copy()
        colours = [UNCLASSED] * len(features)
        for row, region in zip(self._closed(), regions, strict=True):
            features.iloc[row] = [region.name, region.kind, region.colour or ""]
            colours[row] = region.colour or UNCLASSED
        if not features.equals(self.layer.features) or list(self.layer.features["colour"]) != colours:
            self.layer.features = features
            if colours:
                self.layer.edge_color = colours
        self.layer.feature_defaults = dict.fromkeys(_FEATURES, "")


def free_name(stem: str, taken: set[str]) -> str:
    """``"stem 1"``, or the next number that is free."""
    number = 1
    while f"{stem} {number}" in taken:
        number += 1
    return f"{stem} {number}"


def _ellipse(corners: NDArray[np.float64], n: int = 64) -> NDArray[np.float64]:
    """Outline of the ellipse in a (rotated) box whose four corners go around."""
    centre = (corners[0] + corners[2]) / 2
    u, v = (corners[1] - corners[0]) / 2, (corners[3] - corners[0]) / 2
    angle = np.linspace(0, 2 * np.pi, n, endpoint=False)[:, None]
    return centre + u * np.cos(angle) + v * np.sin(angle)

"""Two layers in which a person marks landmarks: on the measured spots, and on the slide."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
from napari.layers import Points
from numpy.typing import NDArray
from psygnal import Signal

from napari_he2st.core.geometry import level0_from_world, world_from_level0
from napari_he2st.gui.gene_map import UNITS

if TYPE_CHECKING:
    from napari.viewer import Viewer

Side = Literal["spots", "slide"]
SIDES: tuple[Side, Side] = ("spots", "slide")

_COLOURS: dict[Side, str] = {"spots": "#E69F00", "slide": "#56B4E9"}  # orange moves onto blue
_SIZE_PX = 14


class LandmarkLayers:
    """Numbered points of one slide, mirrored as level-0 pixels (x, y).

    Attributes
    ----------
    changed
        Emitted when a landmark is added, moved or removed.
    """

    changed = Signal()

    def __init__(self, viewer: Viewer, slide: str, mpp: float) -> None:
        self._viewer, self.slide, self._mpp = viewer, slide, mpp
        self._layers: dict[Side, Points] = {}

    def mark(self, side: Side) -> Points:
        """The layer of one side, active and ready for the next landmark."""
        layer = self._layer(side)
        for other in self._layers.values():
            other.mode = "pan_zoom"
        self._viewer.layers.selection.active = layer
        layer.mode = "add"
        return layer

    def positions(self, side: Side) -> NDArray[np.float64]:
        """Landmarks of one side, level-0 pixels (x, y), shape (n, 2)."""
        layer = self._layers.get(side)
        return np.zeros((0, 2)) if layer is None else level0_from_world(np.asarray(layer.data), self._mpp)

    def put(self, side: Side, xy: NDArray[np.float64]) -> None:
        """Replace the landmarks of one side."""
        self._layer(side).data = world_from_level0(xy, self._mpp)

    def remove(self) -> None:
        """Take both layers off the viewer."""
        for layer in self._layers.values():
            if layer in self._viewer.layers:
                self._viewer.layers.remove(layer)
        self._layers.clear()

    def _layer(self, side: Side) -> Points:
        if side not in self._layers:
            layer = Points(
                ndim=2,
                name=f"Landmarks on the {side}",
                features={"number": np.zeros(0, dtype=int)},
                text={"string": "{number}", "color": _COLOURS[side], "size": 12, "translation": [0, 0]},
                face_color="transparent",
                border_color=_COLOURS[side],
                border_width=0.15,
                size=_SIZE_PX * 4 * self._mpp,
                units=UNITS,
            )
            layer.events.data.connect(lambda *_: self._number(layer))
            self._layers[side] = layer
        if self._layers[side] not in self._viewer.layers:
            self._viewer.add_layer(self._layers[side])
        return self._layers[side]

    def _number(self, layer: Points) -> None:
        layer.features = {"number": np.arange(1, len(layer.data) + 1)}
        self.changed.emit()

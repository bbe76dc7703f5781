"""Rings around the spots that are chosen, such as by a lasso in a plot."""

from __future__ import annotations

from typing import TYPE_CHECKING
from weakref import ref

import numpy as np
from napari.layers import Points

from napari_he2st.core.geometry import world_from_level0
from napari_he2st.gui.gene_map import UNITS

if TYPE_CHECKING:
    from napari.viewer import Viewer

    from napari_he2st.engine.session import Session

NAME = "Chosen spots"
"""Name of the layer."""


class ChosenSpots:
    """Mirrors the spots that are chosen in a session as one layer; there is none while nothing is chosen.

    Parameters
    ----------
    viewer
        Held weakly.
    session
        What is mirrored.
    """

    def __init__(self, viewer: Viewer, session: Session) -> None:
        self._viewer, self._session = ref(viewer), session
        self._layer: Points | None = None
        session.spots_chosen.connect(self._show)
        session.result_moved.connect(self._show)

    def _show(self, *_: object) -> None:
        viewer, result, spots = self._viewer(), self._session.current_result, self._session.spots
        if viewer is None:
            return
        if self._layer is not None and self._layer not in viewer.layers:
            self._layer = None
        if result is None or spots is None:
            if self._layer is not None:
                self._layer.visible = False
            return
        grid = result.grid
        at = world_from_level0(grid.xy[np.flatnonzero(spots)], grid.mpp)
        if self._layer is None:
            active = viewer.layers.selection.active
            self._layer = Points(
                at, face_color="transparent", border_color="yellow", border_width=0.12, units=UNITS, name=NAME
            )
            viewer.add_layer(self._layer)
            viewer.layers.selection.active = active or self._layer
        else:
            self._layer.data = at
        self._layer.size = 1.2 * grid.spot_um
        self._layer.visible = True

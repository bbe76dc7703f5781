"""Picking a spot with a click on the picture."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Points

from napari_he2st.core.geometry import level0_from_world, world_from_level0
from napari_he2st.gui.gene_map import UNITS

if TYPE_CHECKING:
    from napari.viewer import Viewer

    from napari_he2st.core.types import Grid

RING = "picked spot"
"""Name of the layer that marks it."""


class SpotPicker:
    """Calls back with the grid row of the spot that is clicked, and puts a ring around it.

    Parameters
    ----------
    viewer
        Where the clicks come from.
    grid
        The spots.
    on_pick
        Called with a row; clicks beside all spots are ignored, and so is dragging.
    """

    def __init__(self, viewer: Viewer, grid: Grid, on_pick: Callable[[int], None]) -> None:
        self._viewer, self._grid, self._on_pick = viewer, grid, on_pick
        self._ring: Points | None = None
        viewer.mouse_drag_callbacks.append(self._pressed)

    def close(self) -> None:
        """Listen no more, and take the ring away."""
        if self._pressed in self._viewer.mouse_drag_callbacks:
            self._viewer.mouse_drag_callbacks.remove(self._pressed)
        self.clear()

    def clear(self) -> None:
        """Take the ring away."""
        if self._ring is not None and self._ring in self._viewer.layers:
            self._viewer.layers.remove(self._ring)
        self._ring = None

    def pick(self, row: int) -> None:
        """Mark a spot and call back."""
        at = world_from_level0(self._grid.xy[[row]], self._grid.mpp)
        if self._ring is None or self._ring not in self._viewer.layers:
            active = self._viewer.layers.selection.active
            self._ring = Points(
                at,
                size=1.3 * self._grid.spot_um,
                face_color="transparent",
                border_color="yellow",
                border_width=0.12,
                units=UNITS,
                name=RING,
            )
            self._viewer.add_layer(self._ring)
            self._viewer.layers.selection.active = active or self._ring
        else:
            self._ring.data = at
        self._on_pick(row)

    def row_at(self, world: Any) -> int | None:
        """The spot at a world position (y, x) in micrometres, or None if the nearest is further than the pitch."""
        xy = level0_from_world(np.asarray(world)[-2:], self._grid.mpp)
        distance_um = np.linalg.norm(self._grid.xy - xy, axis=1) * self._grid.mpp
        row = int(distance_um.argmin())
        return row if distance_um[row] <= max(self._grid.pitch_um, self._grid.spot_um) / 2**0.5 else None

    def _pressed(self, _: Viewer, event: Any) -> Iterator[None]:
        moved = False
        yield
        while event.type == "mouse_move":
            moved = True
            yield
        row = None if moved else self.row_at(event.position)
        if row is not None:
            self.pick(row)

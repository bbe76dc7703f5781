"""A common spot that is picked on the picture, in the scatter or in one panel: it is marked in all of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from napari_he2st.core.geometry import world_from_level0
from napari_he2st.gui.picking import SpotPicker

if TYPE_CHECKING:
    from napari_he2st.engine.compare import Comparison
    from napari_he2st.gui.layers import SlideLayers


class LinkedSpot(SpotPicker):
    """Picks spots of a comparison; rings stand in every panel while these are side by side.

    Parameters
    ----------
    layers
        The layers of the viewer.
    comparison
        Whose spots are picked.
    on_pick
        Called with the row of a common spot.
    """

    def __init__(self, layers: SlideLayers, comparison: Comparison, on_pick: Callable[[int], None]) -> None:
        super().__init__(layers.viewer, comparison.grid, on_pick)
        self._layers, self.comparison = layers, comparison
        self.row: int | None = None

    def pick(self, row: int) -> None:
        """Mark a spot and call back."""
        self.row = row
        view = self._layers.side_by_side
        if view.comparison is self.comparison:
            view.mark(row)
            self._on_pick(row)
        else:
            super().pick(row)

    def hide_ring(self) -> None:
        """Take the ring off the picture; the spot stays picked."""
        if self._ring is not None and self._ring in self._viewer.layers:
            self._viewer.layers.remove(self._ring)
        self._ring = None

    def locate(self, row: int) -> None:
        """Mark a spot, and move the view to it."""
        y_um, x_um = world_from_level0(self._grid.xy[row], self._grid.mpp)
        self._layers.navigator.go_to(float(y_um), float(x_um))
        self.pick(row)

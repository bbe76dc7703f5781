"""Moving over a slide: magnification as on a microscope, jumps, quarter turns."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from weakref import ref

if TYPE_CHECKING:
    from napari.viewer import Viewer

POWERS = (5, 10, 20, 40)
"""Magnifications with a key of their own: Alt+1 to Alt+4."""

ROTATE_KEY = "Alt-R"

_UM_PER_PX_AT_1X = 10.0  # a screen pixel shows 0.5 µm at 20×, as in scans

# Quarter turns clockwise: whether the axes change places, and where they point.
_TURNS = (
    (False, ("down", "right")),
    (True, ("down", "left")),
    (False, ("up", "left")),
    (True, ("up", "right")),
)


class Navigator:
    """Drives the camera of one viewer, whose world is in micrometres.

    Parameters
    ----------
    viewer
        Held weakly; its keys are bound.
    """

    def __init__(self, viewer: Viewer) -> None:
        self._viewer = ref(viewer)
        self.quarter_turns = 0
        for number, power in enumerate(POWERS, start=1):
            viewer.bind_key(f"Alt-{number}", self._key(power), overwrite=True)
        navigator = ref(self)

        def turn(viewer: Viewer) -> None:
            """Rotate the view by a quarter turn."""
            if (found := navigator()) is not None:
                found.turn()

        viewer.bind_key(ROTATE_KEY, turn, overwrite=True)

    def _key(self, power: float) -> Callable[[Viewer], None]:
        navigator = ref(self)

        def show(viewer: Viewer) -> None:
            if (found := navigator()) is not None:
                found.magnify(power)

        show.__doc__ = f"Show the slide at {power:g}×."
        return show

    @property
    def _camera(self) -> Any:
        viewer = self._viewer()
        if viewer is None:
            message = "the viewer is closed"
            raise RuntimeError(message)
        return viewer.scene.camera

    @property
    def magnification(self) -> float:
        """Power of the objective through which a microscope would show the slide at this scale."""
        return float(_UM_PER_PX_AT_1X * self._camera.zoom)

    def magnify(self, power: float) -> None:
        """Show the middle of the view as through an objective of this power."""
        self._camera.zoom = power / _UM_PER_PX_AT_1X

    def go_to(self, y_um: float, x_um: float) -> None:
        """Move the middle of the view to a world position, micrometres."""
        swapped, _ = _TURNS[self.quarter_turns]
        place = (x_um, y_um) if swapped else (y_um, x_um)
        self._camera.center = (*self._camera.center[:-2], *place)

    @property
    def _place(self) -> tuple[float, float]:
        """Middle of the view, world micrometres (y, x), whatever its rotation."""
        swapped, _ = _TURNS[self.quarter_turns]
        down, across = self._camera.center[-2:]
        return (across, down) if swapped else (down, across)

    def turn(self) -> None:
        """Rotate the view by a quarter turn, clockwise; positions and scale stay what they are."""
        viewer = self._viewer()
        if viewer is None:
            return
        place, zoom = self._place, viewer.scene.camera.zoom
        self.quarter_turns = (self.quarter_turns + 1) % 4
        swapped, orientation = _TURNS[self.quarter_turns]
        order = list(viewer.dims.order)
        order[-2:] = sorted(order[-2:], reverse=swapped)
        viewer.dims.order = tuple(order)
        viewer.scene.camera.orientation2d = orientation
        viewer.scene.camera.zoom = zoom  # napari fits the view when axes change places
        self.go_to(*place)

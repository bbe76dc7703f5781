"""A ruler: two clicks, a line, and its length in micrometres."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any
from weakref import ref

import numpy as np
from napari.layers import Shapes
from numpy.typing import NDArray

from napari_he2st.gui.gene_map import UNITS

if TYPE_CHECKING:
    from napari.viewer import Viewer

Measured = Callable[[NDArray[np.float64], NDArray[np.float64]], None]
"""Called with both ends, world micrometres (y, x)."""

_CLICK_PX = 4  # a press that moves further is a pan


class Ruler:
    """Measures between two clicked points of one viewer; the last line stays until the next one.

    Parameters
    ----------
    viewer
        Held weakly.
    """

    def __init__(self, viewer: Viewer) -> None:
        self._viewer = ref(viewer)
        self._layer: Shapes | None = None
        self._start: NDArray[np.float64] | None = None
        self._then: Measured | None = None
        self.measuring = False

    def start(self, then: Measured | None = None) -> None:
        """Wait for two clicks; ``then`` is told where they were."""
        self._start, self._then = None, then
        viewer = self._viewer()
        if viewer is not None and not self.measuring:
            self.measuring = True
            viewer.mouse_drag_callbacks.append(self._pressed)

    def stop(self) -> None:
        """Wait no longer."""
        viewer = self._viewer()
        if viewer is not None and self.measuring:
            viewer.mouse_drag_callbacks.remove(self._pressed)
        self.measuring = False

    def _pressed(self, viewer: Viewer, event: Any) -> Generator[None]:
        pressed = np.asarray(event.pos, dtype=float)
        yield
        while event.type == "mouse_move":
            yield
        if np.hypot(*(np.asarray(event.pos, dtype=float) - pressed)) <= _CLICK_PX:
            self.clicked(np.asarray(event.position[-2:], dtype=float))

    def clicked(self, yx_um: NDArray[np.float64]) -> None:
        """Take a point, world micrometres (y, x); the second one completes the line."""
        if self._start is None:
            self._start = yx_um
            return
        start, then = self._start, self._then
        self.stop()
        self._draw(start, yx_um)
        if then is not None:
            then(start, yx_um)

    def _draw(self, start: NDArray[np.float64], end: NDArray[np.float64]) -> None:
        viewer = self._viewer()
        if viewer is None:
            return
        length = float(np.hypot(*(end - start)))
        if self._layer is not None and self._layer in viewer.layers:
            viewer.layers.remove(self._layer)
        active = viewer.layers.selection.active
        self._layer = Shapes(
            [np.stack([start, end])],
            shape_type="line",
            name=f"Ruler: {length_text(length)}",
            edge_color="black",
            edge_width=2 / viewer.scene.camera.zoom,
            text={"string": [length_text(length)], "color": "black", "size": 14, "translation": [0, 0]},
            units=UNITS,
        )
        viewer.add_layer(self._layer)
        viewer.layers.selection.active = active


def length_text(um: float) -> str:
    """A length as people write it."""
    return f"{um / 1000:.2f} mm" if um >= 1000 else f"{um:.1f} µm"

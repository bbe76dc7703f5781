"""The overview of the current slide, tied to the camera of a viewer."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any
from weakref import WeakMethod

import numpy as np
from numpy.typing import NDArray
from superqt.utils import qdebounced

from napari_he2st.core.geometry import bounds_of
from napari_he2st.gui.ruler import length_text
from napari_he2st.gui.widgets.overview import Overview

if TYPE_CHECKING:
    from napari_he2st.data.slides import Slide
    from napari_he2st.gui.docks.base import Dock

THUMBNAIL_PX = 320


class ViewPanel(Overview):
    """Follows the camera, and moves it.

    Parameters
    ----------
    dock
        Whose viewer, session and layers are meant; its status line tells lengths.
    """

    def __init__(self, dock: Dock) -> None:
        super().__init__()
        self._viewer, self._session, self._layers, self._say = dock.viewer, dock.session, dock.layers, dock.say
        self.thumbnails: dict[str, NDArray[np.uint8]] = {}
        navigator = self._layers.navigator
        self.magnify.connect(navigator.magnify)
        self.turn.connect(navigator.turn)
        self.measure.connect(self._measure)
        self.map.clicked.connect(self._go)
        events = dock.viewer.scene.camera.events
        for event in (events.zoom, events.center):
            event.connect(self._moved)
        # A slot of the destroyed widget itself would not be called any more.
        self.destroyed.connect(partial(_let_go, events, WeakMethod(self._moved)))

    def show_current(self) -> None:
        """Show the current slide, and where on it the view is."""
        self.map.show_slide(self.thumbnails.get(self._session.slide or ""))
        self._follow()

    def _moved(self, event: Any = None) -> None:
        self._follow_soon()

    @qdebounced(timeout=40)
    def _follow_soon(self) -> None:
        self._follow()

    def _follow(self) -> None:
        name = self._session.slide
        if name is None or self._layers.slide_layer(name) is None:
            return
        self.show_magnification(self._layers.navigator.magnification)
        x, y, width, height = bounds_of(self._layers.current_view(name).polygon)
        across, down = self._session.slides[name].slide.size
        self.map.show_frame(x / across, y / down, (x + width) / across, (y + height) / down)

    def _go(self, x: float, y: float) -> None:
        item = self._session.current_slide
        if item is not None:
            width, height = item.slide.size
            self._layers.navigator.go_to(y * height * item.slide.mpp, x * width * item.slide.mpp)

    def _measure(self) -> None:
        def measured(start: NDArray[np.float64], end: NDArray[np.float64]) -> None:
            self._say(f"Length: {length_text(float(np.hypot(*(end - start))))}")

        self._say("Click the two ends of the length on the slide.")
        self._layers.ruler.start(measured)


def thumbnail_of(slide: Slide) -> NDArray[np.uint8]:
    """The picture of a slide for lists and maps; takes a moment."""
    return slide.thumbnail(THUMBNAIL_PX)


def _let_go(events: Any, method: WeakMethod, *_: Any) -> None:
    slot = method()
    if slot is not None:
        for event in (events.zoom, events.center):
            event.disconnect(slot)

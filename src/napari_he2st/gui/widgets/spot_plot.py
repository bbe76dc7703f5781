"""Spots in a plane by what they are like, where a lasso chooses some."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pyqtgraph as pg
from numpy.typing import NDArray
from qtpy.QtCore import QSize, Qt, Signal
from qtpy.QtWidgets import QWidget

from napari_he2st.core.geometry import inside_polygon
from napari_he2st.gui.widgets.plot import Plot

_CHOSEN = "#ffff00"  # of the rings on the slide too


class SpotPlot(Plot):
    """Points in the colours of their domains; those that are chosen have a ring.

    ``spots_chosen(mask)`` when a lasso ends, None for a click, which chooses nothing.
    """

    spots_chosen = Signal(object)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent, viewBox=_Lasso(self._drawn))
        self.setMinimumHeight(240)
        self.setToolTip("Drag around spots to choose them, click to choose none, scroll to zoom")
        self.setAccessibleName("Spots by what they are like")
        self.setAspectLocked(True)
        for side in ("left", "bottom"):
            self.hideAxis(side)
        self._layout = np.empty((0, 2))
        self._known = np.empty(0, dtype=bool)
        self._points = pg.ScatterPlotItem(size=6, pen=None)
        self._rings = pg.ScatterPlotItem(size=10, brush=None, pen=pg.mkPen(_CHOSEN, width=1.5))
        for item in (self._points, self._rings):
            self.addItem(item)
        self.paint_theme()

    @property
    def n(self) -> int:
        """How many points are drawn."""
        return len(self._points.data)

    @property
    def places(self) -> NDArray[np.float64]:
        """Where each spot lies, (n, 2)."""
        return self._layout

    @property
    def n_chosen(self) -> int:
        """How many of them have a ring."""
        return len(self._rings.data)

    def show_spots(self, layout: NDArray, colours: Sequence[str]) -> None:
        """Draw spots at ``layout`` (n, 2), NaN for those that have no place, in one colour each."""
        self._layout = np.asarray(layout, dtype=np.float64)
        self._known = known = np.asarray(np.isfinite(self._layout).all(axis=1))
        brush = {colour: pg.mkBrush(colour) for colour in set(colours)}
        brushes = [brush[colour] for colour, here in zip(colours, known, strict=True) if here]
        self._points.setData(*self._layout[known].T, brush=brushes)
        self._rings.setData([], [])
        self.autoRange()

    def clear_spots(self) -> None:
        """Draw nothing."""
        self.show_spots(np.empty((0, 2)), [])

    def show_chosen(self, spots: NDArray[np.bool_] | None) -> None:
        """Put a ring around those spots."""
        fits = spots is not None and len(spots) == len(self._known)
        at = self._layout[self._known & spots] if fits else np.empty((0, 2))
        self._rings.setData(*at.T)

    def choose_within(self, outline: NDArray) -> None:
        """Choose the spots inside of a closed line (m, 2) in the coordinates of the plot."""
        self.spots_chosen.emit(inside_polygon(self._layout, outline) if len(outline) > 2 else None)

    def sizeHint(self) -> QSize:
        """About square."""
        return QSize(300, 280)

    def _drawn(self, outline: NDArray) -> None:
        if len(self._layout):
            self.choose_within(outline)


class _Lasso(pg.ViewBox):
    """Draws the line of a drag with the left button and hands it over at its end."""

    def __init__(self, drawn: Callable[[NDArray], None]) -> None:
        super().__init__()
        self._outline: list[tuple[float, float]] = []
        self._call = drawn
        self._line = pg.PlotDataItem(pen=pg.mkPen(_CHOSEN, width=1))
        self.addItem(self._line, ignoreBounds=True)

    def mouseDragEvent(self, ev: Any, axis: int | None = None) -> None:
        """Left draws, anything else moves the view."""
        if ev.button() != Qt.MouseButton.LeftButton:
            super().mouseDragEvent(ev, axis)
            return
        ev.accept()
        if ev.isStart():
            self._outline = []
        at = self.mapSceneToView(ev.scenePos())
        self._outline.append((at.x(), at.y()))
        self._line.setData(*np.array(self._outline).T)
        if ev.isFinish():
            self._line.setData([], [])
            self._call(np.array(self._outline))

    def mouseClickEvent(self, ev: Any) -> None:
        """Choose nothing."""
        ev.accept()
        self._call(np.empty((0, 2)))

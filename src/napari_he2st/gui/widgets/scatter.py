"""Scatter of measured against predicted values of one gene."""

from __future__ import annotations

import numpy as np
import pyqtgraph as pg
from numpy.typing import NDArray
from qtpy.QtCore import QEvent, QSize, Qt
from qtpy.QtGui import QPalette
from qtpy.QtWidgets import QSizePolicy, QWidget


class Scatter(pg.PlotWidget):
    """Points, the line of equality, and a title with n and r; in the colours of the window's theme."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setMinimumHeight(180)
        self.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Expanding)
        self.setMenuEnabled(False)
        self._points = pg.ScatterPlotItem(size=5, pen=None)
        self._equal = pg.InfiniteLine(angle=45, pen=pg.mkPen("#D55E00", width=1, style=Qt.PenStyle.DashLine))
        self.addItem(self._equal)
        self.addItem(self._points)
        self._title, self._axes = "", ("measured", "predicted")
        self._paint_theme()

    @property
    def n(self) -> int:
        """How many points are drawn."""
        return len(self._points.data)

    @property
    def title(self) -> str:
        """What stands above the plot."""
        return self._title

    def show_gene(self, gene: str, measured: NDArray, predicted: NDArray, *, r: float, unit: str) -> None:
        """Draw a gene.

        Parameters
        ----------
        gene
            Its name.
        measured, predicted
            Values of the same spots, shape (n,); pairs with NaN are left out.
        r
            Pearson correlation to state.
        unit
            Expression scale of both axes.
        """
        known = np.isfinite(measured) & np.isfinite(predicted)
        self._points.setData(measured[known], predicted[known])
        stated = f"r = {r:.2f}" if np.isfinite(r) else "r undefined (constant)"
        self._title = f"{gene}: n = {int(known.sum()):,}, {stated}"
        self._axes = (f"measured, {unit}", f"predicted, {unit}")
        self._paint_theme()
        self.autoRange()

    def clear_points(self) -> None:
        """Draw nothing."""
        self._points.setData([], [])
        self._title = ""
        self._paint_theme()

    def sizeHint(self) -> QSize:
        """A plot that leaves room for a table above it."""
        return QSize(280, 190)

    def changeEvent(self, event: QEvent) -> None:
        """Follow a change of theme."""
        super().changeEvent(event)
        if event.type() in (QEvent.Type.PaletteChange, QEvent.Type.StyleChange) and hasattr(self, "_title"):
            self._paint_theme()

    def _paint_theme(self) -> None:
        self.ensurePolished()
        ink = self.palette().color(QPalette.ColorRole.WindowText).name()
        # The pale and the dark blue of the domain colours.
        pale = self.palette().color(QPalette.ColorRole.Window).lightness() < 128
        self._points.setBrush(pg.mkBrush(*((86, 180, 233) if pale else (0, 114, 178)), 170))
        self.setBackground(self.palette().color(QPalette.ColorRole.Window))
        self.setTitle(self._title, color=ink, size="9pt")
        for side, label in zip(("bottom", "left"), self._axes, strict=True):
            axis = self.getAxis(side)
            axis.setPen(ink)
            axis.setTextPen(ink)
            axis.setLabel(label, color=ink)

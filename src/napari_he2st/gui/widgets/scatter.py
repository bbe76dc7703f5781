"""Scatter of measured against predicted values of one gene."""

from __future__ import annotations

import numpy as np
import pyqtgraph as pg
from numpy.typing import NDArray
from qtpy.QtCore import QSize, Qt
from qtpy.QtWidgets import QWidget

from napari_he2st.gui.widgets.plot import Plot


class Scatter(Plot):
    """Points, the line of equality, and a title with n and r; in the colours of the window's theme."""

    def __init__(self, parent: QWidget | None = None) -> None:
        self._title, self._axes = "", ("measured", "predicted")
        self._points = pg.ScatterPlotItem(size=5, pen=None)
        super().__init__(parent)
        self.setMinimumHeight(180)
        self._equal = pg.InfiniteLine(angle=45, pen=pg.mkPen("#D55E00", width=1, style=Qt.PenStyle.DashLine))
        self.addItem(self._equal)
        self.addItem(self._points)
        self.paint_theme()

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
        self.paint_theme()
        self.autoRange()

    def clear_points(self) -> None:
        """Draw nothing."""
        self._points.setData([], [])
        self._title = ""
        self.paint_theme()

    def sizeHint(self) -> QSize:
        """A plot that leaves room for a table above it."""
        return QSize(280, 190)

    def paint_theme(self) -> None:
        """The pale or the dark blue of the domain colours; title and names of the axes."""
        super().paint_theme()
        self._points.setBrush(pg.mkBrush(*((86, 180, 233) if self.is_dark else (0, 114, 178)), 170))
        self.setTitle(self._title, color=self.ink, size="9pt")
        for side, label in zip(("bottom", "left"), self._axes, strict=True):
            self.getAxis(side).setLabel(label, color=self.ink)

"""Reference against judged values of one gene: a point per spot, or hexagons where there are many."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyqtgraph as pg
from numpy.typing import NDArray
from qtpy.QtCore import QSize, Qt, Signal
from qtpy.QtGui import QKeyEvent
from qtpy.QtWidgets import QWidget

from napari_he2st.analysis.hexbin import hexbin
from napari_he2st.gui.gene_map import robust_limits
from napari_he2st.gui.widgets.plot import Plot

MOST_POINTS = 5_000
"""More spots than this are counted in hexagons."""

_REACH_PX = 12  # of a click
_EQUAL, _LINE, _RING = "#D55E00", "#009E73", "#ffff00"
_PALE, _DARK = (86, 180, 233), (0, 114, 178)


class Scatter(Plot):
    """Points, the line of equality, the regression line, and a title with n and r; in the colours of the theme.

    ``spot_chosen(row)`` when a spot is clicked, or stepped to with Left and Right, which walk from the spot that is
    most above the regression line to the one that is most below.
    """

    spot_chosen = Signal(int)

    def __init__(self, parent: QWidget | None = None) -> None:
        self._title, self._axes = "", ("measured", "predicted")
        self._points = pg.ScatterPlotItem(size=5, pen=None)
        super().__init__(parent)
        self.setMinimumHeight(180)
        self.setToolTip(
            "Each point is a spot; a click shows it on the slide, Left and Right walk from the spots above the line "
            "to those below. Dashed: equal; solid: regression. Scroll to zoom, A to see all."
        )
        self.setAccessibleName("Measured against predicted values of the gene")
        self.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        self._xy = np.empty((0, 2))
        self._rows = np.empty(0, dtype=np.intp)
        self._order = np.empty(0, dtype=np.intp)
        self._marked: int | None = None
        self._counts: NDArray | None = None
        self._equal = pg.InfiniteLine(angle=45, pen=pg.mkPen(_EQUAL, width=1, style=Qt.PenStyle.DashLine))
        self._line = pg.PlotCurveItem(pen=pg.mkPen(_LINE, width=2))
        self._ring = pg.ScatterPlotItem(size=13, brush=None, pen=pg.mkPen(_RING, width=2.5))
        for item in (self._equal, self._points, self._line, self._ring):
            self.addItem(item)
        self.scene().sigMouseClicked.connect(self._clicked)
        self.paint_theme()

    @property
    def n(self) -> int:
        """How many spots are shown, as points or in hexagons."""
        return len(self._xy)

    @property
    def title(self) -> str:
        """What stands above the plot."""
        return self._title

    @property
    def marked(self) -> int | None:
        """Row of the spot that has a ring, or None."""
        return self._marked

    def show_gene(
        self,
        gene: str,
        measured: NDArray,
        predicted: NDArray,
        *,
        r: float,
        unit: str,
        line: tuple[float, float] = (np.nan, np.nan),
        titles: tuple[str, str] = ("predicted", "measured"),
    ) -> None:
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
        line
            Slope and intercept of the regression of predicted on measured; NaN draws none.
        titles
            What the two are called.
        """
        known = np.isfinite(measured) & np.isfinite(predicted)
        self._rows = np.flatnonzero(known)
        self._xy = np.stack([measured[known], predicted[known]], axis=1).astype(np.float64)
        slope, intercept = line
        above = self._xy[:, 1] - (slope * self._xy[:, 0] + intercept if np.isfinite(slope) else self._xy[:, 0])
        self._order = np.argsort(-above, kind="stable")
        if len(self._xy) > MOST_POINTS:
            centres, self._counts = hexbin(*self._xy.T)
            self._points.setData(*centres.T, symbol="h", size=9)
        else:
            self._counts = None
            self._points.setData(*self._xy.T, symbol="o", size=5)
        ends = np.array(robust_limits(self._xy[:, 0], 0, 100)) if self.n else np.empty(0)
        self._line.setData(ends, slope * ends + intercept) if np.isfinite(slope) else self._line.setData([], [])
        stated = f"r = {r:.2f}" if np.isfinite(r) else "r undefined (constant)"
        self._title = f"{gene}: n = {self.n:,}, {stated}"
        if np.isfinite(slope):
            self._title += f", y = {slope:.2f}x {'+' if intercept >= 0 else '−'} {abs(intercept):.2f}"
        self._axes = (f"{titles[1]}, {unit}", f"{titles[0]}, {unit}")
        self.mark(self._marked)
        self.paint_theme()
        self.autoRange()

    def clear_points(self) -> None:
        """Draw nothing."""
        self._xy, self._rows, self._order = np.empty((0, 2)), np.empty(0, np.intp), np.empty(0, np.intp)
        self._counts = None
        for item in (self._points, self._line):
            item.setData([], [])
        self._title = ""
        self.mark(None)
        self.paint_theme()

    def mark(self, row: int | None) -> None:
        """Put a ring around a spot, without announcing it; None around none."""
        self._marked = row
        at = self._xy[self._rows == row] if row is not None else np.empty((0, 2))
        self._ring.setData(*at.T)

    def choose(self, row: int) -> None:
        """Put a ring around a spot, and announce it."""
        self.mark(row)
        self.spot_chosen.emit(row)

    def row_near(self, x: float, y: float) -> int | None:
        """The spot that is drawn nearest to a place of the plot, or None within a dozen pixels."""
        if not self.n:
            return None
        pixel = np.array(self.getViewBox().viewPixelSize())
        distance = np.linalg.norm((self._xy - (x, y)) / pixel, axis=1)
        nearest = int(distance.argmin())
        return int(self._rows[nearest]) if distance[nearest] <= _REACH_PX else None

    def sizeHint(self) -> QSize:
        """A plot that leaves room for a table above it."""
        return QSize(280, 180)

    def paint_theme(self) -> None:
        """The pale or the dark blue of the domain colours; title and names of the axes."""
        super().paint_theme()
        blue = _PALE if self.is_dark else _DARK
        if self._counts is None:
            self._points.setBrush(pg.mkBrush(*blue, 170))
        else:
            share = np.log1p(self._counts) / np.log1p(self._counts.max())
            self._points.setBrush([pg.mkBrush(*blue, int(40 + 215 * part)) for part in share])
        self.setTitle(self._title, color=self.ink, size="9pt")
        for side, label in zip(("bottom", "left"), self._axes, strict=True):
            self.getAxis(side).setLabel(label, color=self.ink)

    def keyPressEvent(self, event: QKeyEvent) -> None:
        """Walk along the distance from the line; A shows all."""
        step = {Qt.Key.Key_Right: 1, Qt.Key.Key_Left: -1}.get(Qt.Key(event.key()), 0)
        if step and self.n:
            here = np.flatnonzero(self._rows[self._order] == self._marked)
            place = int(here[0]) + step if len(here) else (0 if step > 0 else self.n - 1)
            self.choose(int(self._rows[self._order[min(max(place, 0), self.n - 1)]]))
        elif event.key() == Qt.Key.Key_A:
            self.autoRange()
        else:
            super().keyPressEvent(event)

    def _clicked(self, event: Any) -> None:
        place = self.getViewBox().mapSceneToView(event.scenePos())
        row = self.row_near(place.x(), place.y())
        if row is not None:
            self.choose(row)

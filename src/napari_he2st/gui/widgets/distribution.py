"""Scores of all genes, a row per result: points, and a box over their quartiles."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyqtgraph as pg
from numpy.typing import NDArray
from qtpy.QtCore import QSize, Qt, Signal
from qtpy.QtGui import QKeyEvent
from qtpy.QtWidgets import QWidget

from napari_he2st.gui.colours import DOMAIN_COLOURS
from napari_he2st.gui.widgets.plot import Plot

_MOST_POINTS = 3_000  # of a row; more are thinned out
_REACH_PX = 10
_ROW_PX, _FRAME_PX = 46, 70
_RING = "#ffff00"


class Distribution(Plot):
    """Pearson correlations of genes; a click on a point chooses its gene, which gets a ring in every row.

    ``gene_chosen(name)`` when a point is clicked, or stepped to with Left and Right in the order of the first row.
    """

    gene_chosen = Signal(str)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setToolTip(
            "Each point is a gene, each row a result; the box holds half of the genes, its line is the median. "
            "A click chooses a gene, Left and Right walk along the first row."
        )
        self.setAccessibleName("Distribution of correlations")
        self.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        self._names: list[str] = []
        self._genes: list[str] = []
        self._scores = np.empty((0, 0))
        self._heights = np.empty(0)
        self._gene: str | None = None
        self._points = pg.ScatterPlotItem(size=4, pen=None)
        self._rings = pg.ScatterPlotItem(size=11, brush=None, pen=pg.mkPen(_RING, width=2))
        self._boxes: list[Any] = []
        self.getViewBox().invertY(True)
        self.setMouseEnabled(x=True, y=False)
        for item in (self._points, self._rings):
            self.addItem(item)
        self.scene().sigMouseClicked.connect(self._clicked)
        self.paint_theme()

    @property
    def names(self) -> list[str]:
        """The rows, from above."""
        return self._names

    @property
    def n(self) -> int:
        """How many points are drawn."""
        return len(self._points.data)

    @property
    def n_rings(self) -> int:
        """In how many rows the current gene is marked."""
        return len(self._rings.data)

    def show_scores(self, names: Sequence[str], genes: Sequence[str], scores: NDArray[np.float64]) -> None:
        """Draw scores (names, genes); NaN is left out."""
        self._names, self._genes, self._scores = list(names), list(genes), np.asarray(scores)
        rng = np.random.default_rng(0)
        self._heights = rng.uniform(-0.3, 0.3, len(self._genes))
        self.setMinimumHeight(_FRAME_PX + _ROW_PX * max(len(self._names), 1))
        self.setMaximumHeight(_FRAME_PX + 2 * _ROW_PX * max(len(self._names), 1))
        some = np.sort(rng.permutation(len(self._genes))[:_MOST_POINTS])
        x, y, colours = [np.empty(0)], [np.empty(0)], []
        for row in range(len(self._names)):
            known = some[np.isfinite(self._scores[row, some])]
            x.append(self._scores[row, known])
            y.append(row + self._heights[known])
            colours += [pg.mkBrush(DOMAIN_COLOURS[row % len(DOMAIN_COLOURS)] + "90")] * len(known)
        self._points.setData(np.concatenate(x), np.concatenate(y), brush=colours)
        self._draw_boxes()
        self.show_gene(self._gene)
        self.paint_theme()
        self.autoRange()

    def show_gene(self, gene: str | None) -> None:
        """Mark a gene in every row."""
        self._gene = gene
        at = np.empty((0, 2))
        if gene in self._genes:
            column = self._genes.index(gene)
            values = self._scores[:, column]
            rows = np.flatnonzero(np.isfinite(values))
            at = np.stack([values[rows], rows + self._heights[column]], axis=1)
        self._rings.setData(*at.T)

    def gene_near(self, x: float, y: float) -> str | None:
        """The gene drawn nearest to a place of the plot, or None within a few pixels."""
        if not self._scores.size:
            return None
        pixel = np.array(self.getViewBox().viewPixelSize())
        dx = (self._scores - x) / pixel[0]
        dy = (np.arange(len(self._names))[:, None] + self._heights - y) / pixel[1]
        distance = np.nan_to_num(np.hypot(dx, dy), nan=np.inf)
        nearest = int(distance.argmin())
        return self._genes[nearest % len(self._genes)] if distance.flat[nearest] <= _REACH_PX else None

    def sizeHint(self) -> QSize:
        """Room for each row."""
        return QSize(280, _FRAME_PX + _ROW_PX * max(len(self._names), 1))

    def paint_theme(self) -> None:
        """Boxes and names of the rows in the colour of text."""
        super().paint_theme()
        self.getAxis("bottom").setLabel("Pearson correlation over spots", color=self.ink)
        short = [name if len(name) <= 16 else f"{name[:15]}…" for name in self._names]
        self.getAxis("left").setTicks([list(enumerate(short))])
        for box in self._boxes:
            box.setPen(pg.mkPen(self.ink, width=1.5))

    def keyPressEvent(self, event: QKeyEvent) -> None:
        """Walk along the genes."""
        step = {Qt.Key.Key_Right: 1, Qt.Key.Key_Left: -1}.get(Qt.Key(event.key()), 0)
        if not step or not self._scores.size:
            super().keyPressEvent(event)
            return
        order = np.argsort(self._scores[0], kind="stable")
        order = order[np.isfinite(self._scores[0, order])]
        ordered = [self._genes[i] for i in order]
        place = ordered.index(self._gene) + step if self._gene in ordered else 0
        if ordered:
            self.gene_chosen.emit(ordered[min(max(place, 0), len(ordered) - 1)])

    def _draw_boxes(self) -> None:
        for box in self._boxes:
            self.removeItem(box)
        self._boxes = []
        for row, scores in enumerate(self._scores):
            known = scores[np.isfinite(scores)]
            if len(known):
                low, middle, high = np.percentile(known, [25, 50, 75])
                x = [low, high, high, low, low, low, middle, middle]
                y = [row - 0.38, row - 0.38, row + 0.38, row + 0.38, row - 0.38, np.nan, row - 0.38, row + 0.38]
                self._boxes.append(pg.PlotCurveItem(np.array(x), np.array(y), connect="finite"))
                self.addItem(self._boxes[-1])

    def _clicked(self, event: Any) -> None:
        place = self.getViewBox().mapSceneToView(event.scenePos())
        gene = self.gene_near(place.x(), place.y())
        if gene is not None:
            self.gene_chosen.emit(gene)

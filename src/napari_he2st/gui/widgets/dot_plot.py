"""Dot plot of genes by domain: colour says how high, size how often."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyqtgraph as pg
from numpy.typing import NDArray
from qtpy.QtCore import QSize, Qt, Signal
from qtpy.QtWidgets import QWidget

from napari_he2st.gui.widgets.plot import Plot

_LARGEST_PX = 15
_ROW_PX = 18


class DotPlot(Plot):
    """One row per gene, one column per domain.

    ``gene_chosen(name)`` when a dot is clicked.
    """

    gene_chosen = Signal(str)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setToolTip(
            "Colour: mean in the domain, from the lowest (dark) to the highest (yellow) domain of that gene. "
            "Size: share of its spots with a value above zero. Click a dot to see the gene's map."
        )
        self.setAccessibleName("Marker genes by domain")
        self.setMouseEnabled(False, False)
        self.hideButtons()
        self._dots = pg.ScatterPlotItem(pen=None)
        self._dots.sigClicked.connect(self._clicked)
        self.addItem(self._dots)
        self.genes: list[str] = []
        self.showAxis("top")
        self.hideAxis("bottom")
        self.paint_theme()

    def show_genes(self, genes: Sequence[str], domains: Sequence[str], mean: NDArray, share: NDArray) -> None:
        """Draw genes, the first on top.

        Parameters
        ----------
        genes, domains
            Their names.
        mean, share
            Mean expression, and share of spots above zero, (domains, genes).
        """
        self.genes = list(genes)
        rows, columns = np.meshgrid(np.arange(len(genes)), np.arange(len(domains)))
        low, high = mean.min(axis=0, initial=np.inf), mean.max(axis=0, initial=-np.inf)
        relative = (mean - low) / np.maximum(high - low, 1e-12)
        brushes = [pg.mkBrush(colour) for colour in pg.colormap.get("viridis").map(relative.ravel(), mode="qcolor")]
        sizes = 3 + (_LARGEST_PX - 3) * share.ravel()
        self._dots.setData(columns.ravel(), rows.ravel(), size=sizes, brush=brushes, data=list(rows.ravel()))
        self.getAxis("left").setTicks([list(enumerate(genes))])
        self.getAxis("top").setTicks([list(enumerate(domains))])
        self.invertY(True)
        self.setRange(xRange=(-0.6, len(domains) - 0.4), yRange=(-0.6, len(genes) - 0.4), padding=0)
        self.setMinimumHeight(40 + _ROW_PX * len(genes))

    def sizeHint(self) -> QSize:
        """Room for every gene."""
        return QSize(300, 40 + _ROW_PX * max(len(self.genes), 8))

    def _clicked(self, _: Any, points: Sequence[Any], event: Any = None) -> None:
        if len(points) and (event is None or event.button() == Qt.MouseButton.LeftButton):
            self.gene_chosen.emit(self.genes[int(points[0].data())])

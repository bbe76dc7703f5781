"""A table of counts as a heat map: how two groupings of the same spots overlap."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyqtgraph as pg
from numpy.typing import NDArray
from qtpy.QtCore import QSize, Signal
from qtpy.QtWidgets import QWidget

from napari_he2st.gui.colours import colour_map
from napari_he2st.gui.widgets.plot import Plot

_CELL_PX, _FRAME_PX = 30, 70
_MOST_TEXTS = 200  # more cells are too small for numbers


class HeatMap(Plot):
    """Counts in cells, coloured by their share of the row.

    ``cell_chosen(row, column)`` when one is clicked.
    """

    cell_chosen = Signal(int, int)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setToolTip(
            "Spots by group: rows are those of the reference, columns those of the other result. The colour is the "
            "share of the row; a click rings these spots on the slide."
        )
        self.setAccessibleName("Contingency of two groupings")
        self._rows: list[str] = []
        self._columns: list[str] = []
        self._counts = np.zeros((0, 0), dtype=np.intp)
        self._image = pg.ImageItem(axisOrder="row-major")
        self._texts: list[Any] = []
        self.addItem(self._image)
        self.getViewBox().invertY(True)
        self.setMouseEnabled(x=False, y=False)
        self.hideButtons()
        self.scene().sigMouseClicked.connect(self._clicked)
        self.paint_theme()

    @property
    def counts(self) -> NDArray[np.intp]:
        """What is drawn."""
        return self._counts

    def show_counts(self, rows: Sequence[str], columns: Sequence[str], counts: NDArray[np.intp]) -> None:
        """Draw counts (rows, columns)."""
        self._rows, self._columns, self._counts = list(rows), list(columns), counts
        self.setFixedHeight(_FRAME_PX + _CELL_PX * max(len(self._rows), 1))
        for text in self._texts:
            self.removeItem(text)
        self._texts = []
        total = counts.sum(axis=1, keepdims=True)
        share = counts / np.where(total > 0, total, 1)
        colours = (colour_map("viridis").map(share.ravel()) * 255).astype(np.uint8).reshape(*share.shape, 4)
        if counts.size:
            self._image.setImage(colours)
        self._image.setVisible(bool(counts.size))
        if counts.size <= _MOST_TEXTS:
            for (row, column), count in np.ndenumerate(counts):
                ink = "black" if share[row, column] > 0.6 else "white"  # viridis ends in yellow
                text = pg.TextItem(f"{count:,}", color=ink, anchor=(0.5, 0.5))
                text.setPos(column + 0.5, row + 0.5)
                self.addItem(text)
                self._texts.append(text)
        self.setRange(xRange=(0, max(len(self._columns), 1)), yRange=(0, max(len(self._rows), 1)), padding=0.01)
        self.paint_theme()

    def sizeHint(self) -> QSize:
        """Room for each row."""
        return QSize(280, _FRAME_PX + _CELL_PX * max(len(self._rows), 1))

    def paint_theme(self) -> None:
        """Names of rows and columns in the colour of text."""
        super().paint_theme()
        for side, names in (("left", self._rows), ("bottom", self._columns)):
            short = [name if len(name) <= 14 else f"{name[:13]}…" for name in names]
            self.getAxis(side).setTicks([[(place + 0.5, name) for place, name in enumerate(short)]])

    def _clicked(self, event: Any) -> None:
        place = self.getViewBox().mapSceneToView(event.scenePos())
        row, column = int(np.floor(place.y())), int(np.floor(place.x()))
        if 0 <= row < len(self._rows) and 0 <= column < len(self._columns):
            self.cell_chosen.emit(row, column)

"""Curves of a training while it runs: the loss, and how well it predicts the validation sections."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pyqtgraph as pg
from qtpy.QtWidgets import QVBoxLayout, QWidget

from napari_he2st.gui.widgets.plot import Plot

HEIGHT_PX = 150
_COLOURS = ("#0077bb", "#ee7733", "#009988", "#cc3311", "#33bbee", "#ee3377", "#999933")  # told apart by everyone


class Curve(Plot):
    """One value by epoch, a line per fit."""

    def __init__(self, title: str, corner: tuple[int, int], parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setFixedHeight(HEIGHT_PX)
        self.setMouseEnabled(x=False, y=False)
        self.hideButtons()
        self._title = title
        self.lines: dict[str, tuple[list[float], list[float], pg.PlotDataItem]] = {}
        self.getAxis("left").enableAutoSIPrefix(False)  # a correlation of 0.3 is not 300
        legend = self.addLegend(offset=corner, labelTextSize="8pt")
        legend.hide()  # until there are several lines to tell apart
        self.paint_theme()

    def paint_theme(self) -> None:
        """Axes and their names in the theme's ink."""
        super().paint_theme()
        self.setLabel("left", self._title, color=self.ink)
        self.setLabel("bottom", "epoch", color=self.ink)
        self.plotItem.legend.setLabelTextColor(self.ink)

    def add(self, fit: str, value: float) -> None:
        """Lengthen the line of a fit."""
        if fit not in self.lines:
            colour = _COLOURS[len(self.lines) % len(_COLOURS)]
            pen = pg.mkPen(colour, width=2)
            item = self.plot([], [], name=fit, pen=pen, symbol="o", symbolSize=4, symbolBrush=colour, symbolPen=None)
            self.lines[fit] = [], [], item
            self.plotItem.legend.setVisible(len(self.lines) > 1)
        epochs, values, item = self.lines[fit]
        epochs.append(float(len(epochs) + 1))
        values.append(value)
        item.setData(epochs, values)

    def forget(self) -> None:
        """Remove all lines."""
        for _, _, item in self.lines.values():
            self.removeItem(item)
        self.lines.clear()


class Curves(QWidget):
    """Loss above, validation correlation below; each is shown once there is a value."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.loss, self.pcc = Curve("loss", (-1, 1)), Curve("validation PCC", (-1, -1))  # where the curves are not
        self.loss.setToolTip("Training loss of each epoch, in the system's own unit")
        self.pcc.setToolTip("Mean Pearson correlation over genes on the validation sections, which are not learned")
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.loss)
        layout.addWidget(self.pcc)
        self.clear()

    def add(self, fit: str, record: Mapping[str, Any]) -> None:
        """Draw a record of a fit."""
        for curve, name in ((self.loss, "loss"), (self.pcc, "val_pcc")):
            value = record.get(name)
            if isinstance(value, float) and math.isfinite(value):
                curve.add(fit, value)
                curve.show()
                self.show()

    def clear(self) -> None:
        """Begin anew."""
        for curve in (self.loss, self.pcc):
            curve.forget()
            curve.hide()
        self.hide()

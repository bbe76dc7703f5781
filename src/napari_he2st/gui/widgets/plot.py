"""Plots in the colours of the window's theme."""

from __future__ import annotations

from typing import Any

import pyqtgraph as pg
from qtpy.QtCore import QEvent
from qtpy.QtGui import QPalette
from qtpy.QtWidgets import QSizePolicy, QWidget


class Plot(pg.PlotWidget):
    """A plot that fills its place, has no menu, and follows a change of theme: see :meth:`paint_theme`."""

    _made = False

    def __init__(self, parent: QWidget | None = None, **options: Any) -> None:
        super().__init__(parent, **options)
        self.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Expanding)
        self.setMenuEnabled(False)
        for side in ("left", "bottom", "top"):
            self.getAxis(side).enableAutoSIPrefix(False)  # "r (×0.001)" helps nobody
        self._made = True

    @property
    def ink(self) -> str:
        """Colour of text."""
        return str(self.palette().color(QPalette.ColorRole.WindowText).name())

    @property
    def is_dark(self) -> bool:
        """Whether the background is."""
        return bool(self.palette().color(QPalette.ColorRole.Window).lightness() < 128)

    def paint_theme(self) -> None:
        """Take on the theme's colours; subclasses add what they draw."""
        self.ensurePolished()
        self.setBackground(self.palette().color(QPalette.ColorRole.Window))
        for side in ("left", "bottom", "top"):
            axis = self.getAxis(side)
            axis.setPen(self.ink)
            axis.setTextPen(self.ink)

    def changeEvent(self, event: QEvent) -> None:
        """Follow a change of theme."""
        super().changeEvent(event)
        if event.type() in (QEvent.Type.PaletteChange, QEvent.Type.StyleChange) and self._made:
            self.paint_theme()

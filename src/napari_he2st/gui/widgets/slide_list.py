"""The open slides, each with a thumbnail."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray
from qtpy.QtCore import QSignalBlocker, QSize, Qt, Signal
from qtpy.QtGui import QIcon
from qtpy.QtWidgets import QListWidget, QListWidgetItem, QWidget

from napari_he2st.gui.widgets.overview import pixmap

ICON_PX = 56
_SHOWN = 3  # rows that are visible at once


class SlideList(QListWidget):
    """Shows names and thumbnails; the current row is the slide that all docks work on.

    Signals
    -------
    chosen(str)
        The user has picked another slide.
    """

    chosen = Signal(str)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setIconSize(QSize(ICON_PX, ICON_PX))
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.setTextElideMode(Qt.TextElideMode.ElideMiddle)
        self.setToolTip("The open slides; all docks work on the one that is chosen here")
        self.currentTextChanged.connect(lambda name: name and self.chosen.emit(name))

    def show_slides(self, names: Iterable[str], current: str | None) -> None:
        """Replace the rows, keeping the thumbnails that are known."""
        names = list(names)
        with QSignalBlocker(self):
            for row in reversed(range(self.count())):
                if self.item(row).text() not in names:
                    self.takeItem(row)
            for name in names:
                if not self.findItems(name, Qt.MatchFlag.MatchExactly):
                    item = QListWidgetItem(name)
                    item.setToolTip(name)
                    item.setSizeHint(QSize(ICON_PX, ICON_PX + 4))
                    self.addItem(item)
            self.setCurrentRow(names.index(current) if current in names else -1)
        self.setFixedHeight(min(max(len(names), 1), _SHOWN) * (ICON_PX + 4) + 4)

    def show_thumbnail(self, name: str, thumbnail: NDArray[np.uint8]) -> None:
        """Give a slide its picture, uint8 (h, w, 3)."""
        for item in self.findItems(name, Qt.MatchFlag.MatchExactly):
            item.setIcon(QIcon(pixmap(thumbnail)))

"""Many small maps beside each other, painted by one widget."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from qtpy.QtCore import QEvent, QRectF, QSize, Qt, Signal
from qtpy.QtGui import QColor, QHelpEvent, QImage, QKeyEvent, QMouseEvent, QPainter, QPaintEvent, QPalette, QPen
from qtpy.QtWidgets import QToolTip, QWidget

_GAP_PX = 6
_LEAST_PX = 110


class Thumbnail(NamedTuple):
    """One map: its name, a line about it, and its colours, RGBA uint8 (height, width, 4)."""

    name: str
    about: str
    pixels: NDArray[np.uint8]


class ThumbnailSheet(QWidget):
    """Maps in as many columns as there is room for; ``chosen(name)`` comes with a click, arrows or Return.

    Attributes
    ----------
    thumbnails
        What is drawn.
    current
        Name of the map that has a frame, or None.
    """

    chosen = Signal(str)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.thumbnails: list[Thumbnail] = []
        self.current: str | None = None
        self.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        self.setCursor(Qt.CursorShape.PointingHandCursor)
        self.setAccessibleName("Maps of several genes")
        self.setMinimumSize(2 * _LEAST_PX, _LEAST_PX)

    def show_maps(self, thumbnails: list[Thumbnail], current: str | None) -> None:
        """Draw these maps."""
        self.thumbnails, self.current = thumbnails, current
        self.update()

    def sizeHint(self) -> QSize:
        """Four columns of three."""
        return QSize(640, 480)

    @property
    def columns(self) -> int:
        """How many maps are beside each other: as many as make them largest."""
        n = max(len(self.thumbnails), 1)
        sizes = {c: min(self.width() / c, self.height() / -(-n // c)) for c in range(1, n + 1)}
        return max(sizes, key=sizes.__getitem__)

    def cell(self, number: int) -> QRectF:
        """Where a map and its name are drawn."""
        columns = self.columns
        rows = -(-max(len(self.thumbnails), 1) // columns)
        width, height = self.width() / columns, self.height() / rows
        row, column = divmod(number, columns)
        return QRectF(column * width, row * height, width, height).adjusted(_GAP_PX, _GAP_PX, -_GAP_PX, -_GAP_PX)

    def paintEvent(self, event: QPaintEvent) -> None:
        """Draw maps, names and the frame."""
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.SmoothPixmapTransform)
        ink = self.palette().color(QPalette.ColorRole.WindowText)
        line = self.fontMetrics().height()
        for number, (name, _, pixels) in enumerate(self.thumbnails):
            cell = self.cell(number)
            painter.setPen(ink)
            text = self.fontMetrics().elidedText(name, Qt.TextElideMode.ElideRight, int(cell.width()))
            painter.drawText(QRectF(cell.x(), cell.y(), cell.width(), line), Qt.AlignmentFlag.AlignHCenter, text)
            area = cell.adjusted(0, line, 0, 0)
            painter.fillRect(area, QColor(128, 128, 128, 40))
            height, width, _ = pixels.shape
            image = QImage(pixels.data, width, height, 4 * width, QImage.Format.Format_RGBA8888)
            scale = min(area.width() / width, area.height() / height)
            size = (width * scale, height * scale)
            corner = area.center().x() - size[0] / 2, area.center().y() - size[1] / 2
            painter.drawImage(QRectF(*corner, *size), image)
            if name == self.current:
                painter.setPen(QPen(self.palette().color(QPalette.ColorRole.Highlight), 2))
                painter.drawRect(area)
        painter.end()

    def event(self, event: QEvent) -> bool:
        """Say what the map under the pointer is."""
        if event.type() == QEvent.Type.ToolTip and isinstance(event, QHelpEvent):
            number = self._at(event.pos().x(), event.pos().y())
            QToolTip.showText(event.globalPos(), "" if number is None else self.thumbnails[number].about, self)
            return True
        return bool(super().event(event))

    def mousePressEvent(self, event: QMouseEvent) -> None:
        """Choose the map under the pointer."""
        number = self._at(event.position().x(), event.position().y())
        if number is not None:
            self._choose(number)

    def keyPressEvent(self, event: QKeyEvent) -> None:
        """Move the frame."""
        steps = {
            Qt.Key.Key_Left: -1,
            Qt.Key.Key_Right: 1,
            Qt.Key.Key_Up: -self.columns,
            Qt.Key.Key_Down: self.columns,
        }
        names = [thumbnail.name for thumbnail in self.thumbnails]
        if event.key() not in steps or not names:
            super().keyPressEvent(event)
            return
        now = names.index(self.current) if self.current in names else -1
        target = now + steps[event.key()]
        if 0 <= target < len(names):
            self._choose(target)

    def _choose(self, number: int) -> None:
        self.current = self.thumbnails[number].name
        self.update()
        self.chosen.emit(self.current)

    def _at(self, x: float, y: float) -> int | None:
        return next((i for i in range(len(self.thumbnails)) if self.cell(i).contains(x, y)), None)

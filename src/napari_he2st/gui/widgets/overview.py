"""Where on the slide the view is: a small map, the magnification, and buttons to move."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from qtpy.QtCore import QPointF, QRectF, Qt, Signal
from qtpy.QtGui import QColor, QImage, QPainter, QPen, QPixmap
from qtpy.QtWidgets import QHBoxLayout, QLabel, QPushButton, QVBoxLayout, QWidget

from napari_he2st.gui.navigation import POWERS

if TYPE_CHECKING:
    from qtpy.QtGui import QMouseEvent, QPaintEvent

MAP_PX = 160
"""Height of the map; its picture is twice that, for screens of high density."""


class OverviewMap(QWidget):
    """A slide's thumbnail with a frame around what is on screen.

    Signals
    -------
    clicked(float, float)
        Position in the slide, as shares (x, y) of its width and height.
    """

    clicked = Signal(float, float)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setFixedHeight(MAP_PX)
        self.setToolTip("The whole slide; the frame is what the canvas shows. Click or drag to move there")
        self.setCursor(Qt.CursorShape.PointingHandCursor)
        self._picture = QPixmap()
        self.frame = (0.0, 0.0, 1.0, 1.0)

    def show_slide(self, thumbnail: NDArray[np.uint8] | None) -> None:
        """Draw another slide, uint8 (h, w, 3); None draws nothing."""
        self._picture = QPixmap() if thumbnail is None else pixmap(thumbnail)
        self.update()

    def show_frame(self, left: float, top: float, right: float, bottom: float) -> None:
        """Move the frame; shares of the slide's width and height."""
        self.frame = left, top, right, bottom
        self.update()

    def _area(self) -> QRectF:
        """Where the picture is drawn."""
        size = self._picture.size().scaled(self.size(), Qt.AspectRatioMode.KeepAspectRatio)
        return QRectF((self.width() - size.width()) / 2, 0, size.width(), size.height())

    def paintEvent(self, event: QPaintEvent) -> None:
        """Draw the picture and the frame."""
        if self._picture.isNull():
            return
        area, painter = self._area(), QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.SmoothPixmapTransform)
        painter.drawPixmap(area, self._picture, QRectF(self._picture.rect()))
        left, top, right, bottom = self.frame
        corner = QPointF(area.x() + left * area.width(), area.y() + top * area.height())
        other = QPointF(area.x() + right * area.width(), area.y() + bottom * area.height())
        box = QRectF(corner, other)
        if box.width() < 6 or box.height() < 6:  # still to be seen
            box = QRectF(box.center() - QPointF(3, 3), box.center() + QPointF(3, 3))
        painter.setPen(QPen(QColor("#0072B2"), 2))
        painter.drawRect(box)

    def mousePressEvent(self, event: QMouseEvent) -> None:
        """Go to where the user clicks."""
        self._go(event)

    def mouseMoveEvent(self, event: QMouseEvent) -> None:
        """Follow the mouse while a button is held."""
        self._go(event)

    def _go(self, event: QMouseEvent) -> None:
        area, at = self._area(), event.position()
        if not self._picture.isNull() and area.width() > 0:
            x, y = (at.x() - area.x()) / area.width(), (at.y() - area.y()) / area.height()
            self.clicked.emit(min(max(x, 0.0), 1.0), min(max(y, 0.0), 1.0))


class Overview(QWidget):
    """The map with a readout of the magnification and buttons for what the keys do.

    Signals
    -------
    magnify(float)
        The user wants to see the slide at this power.
    turn()
        Rotate the view by a quarter turn.
    measure()
        Start the ruler.
    """

    magnify = Signal(float)
    turn = Signal()
    measure = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.map = OverviewMap()
        self.readout = QLabel()
        self.readout.setToolTip("Power of the objective that shows the slide at this scale, and µm per screen pixel")
        buttons = QHBoxLayout()
        self.powers: dict[int, QPushButton] = {}
        for number, power in enumerate(POWERS, start=1):
            self.powers[power] = _button(f"{power}×", f"Show the slide at {power}× (Alt+{number})")
            self.powers[power].clicked.connect(lambda *_, power=power: self.magnify.emit(power))
            buttons.addWidget(self.powers[power])
        self.turn_button = _button("⟳", "Rotate the view by a quarter turn (Alt+R)")
        self.turn_button.clicked.connect(lambda *_: self.turn.emit())
        self.ruler_button = _button("Ruler", "Measure a length in µm: click its two ends on the slide")
        self.ruler_button.clicked.connect(lambda *_: self.measure.emit())
        buttons.addWidget(self.turn_button)
        buttons.addWidget(self.ruler_button)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.map)
        layout.addWidget(self.readout)
        layout.addLayout(buttons)

    def show_magnification(self, power: float) -> None:
        """Say at which power the view is."""
        self.readout.setText(f"{power:.3g}×  ·  {10 / power:.3g} µm per screen pixel")


def pixmap(pixels: NDArray[np.uint8]) -> QPixmap:
    """A picture, uint8 (h, w, 3), for Qt."""
    pixels = np.ascontiguousarray(pixels)
    height, width = pixels.shape[:2]
    return QPixmap.fromImage(QImage(pixels.data, width, height, 3 * width, QImage.Format.Format_RGB888))


def _button(text: str, tip: str) -> Any:
    button = QPushButton(text)
    button.setToolTip(tip)
    button.setMinimumWidth(24)
    return button

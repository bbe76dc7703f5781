"""Histogram of a gene in the colours of its map, with the two limits as handles to drag."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from qtpy.QtCore import QPointF, QRectF, QSize, Qt, Signal
from qtpy.QtGui import QColor, QKeyEvent, QMouseEvent, QPainter, QPaintEvent, QPalette, QPen, QPolygonF
from qtpy.QtWidgets import QSizePolicy, QWidget

_BINS = 64
_MAX_SAMPLE = 100_000
_GRIP_PX = 8
_MARGIN_PX = 6


class RangeHistogram(QWidget):
    """Counts on a square-root scale; values beyond the limits take the colours of the map's ends.

    ``limits_dragged(low, high)`` is emitted while a handle is moved.
    """

    limits_dragged = Signal(float, float)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self.setMouseTracking(True)
        self.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        self.setToolTip(
            "Histogram of this gene over all spots; drag the handles to change the colour limits. Left and Right move "
            "the upper one, with Shift the lower one"
        )
        self.setAccessibleName("Histogram with colour limits")
        self._counts = np.zeros(_BINS)
        self._span = (0.0, 1.0)
        self._limits = (0.0, 1.0)
        self._colours: NDArray = np.repeat(np.linspace(0, 1, 256)[:, None], 3, axis=1)
        self._dragged: int | None = None

    @property
    def span(self) -> tuple[float, float]:
        """Values at the left and right edge."""
        return self._span

    @property
    def limits(self) -> tuple[float, float]:
        """The two limits."""
        return self._limits

    @property
    def counts(self) -> NDArray:
        """Counts per bin, shape (64,)."""
        return self._counts

    def set_values(self, values: NDArray) -> None:
        """Count the finite ones among ``values``; of more than 100,000 an even sample."""
        sample = values[:: max(1, len(values) // _MAX_SAMPLE)]
        sample = sample[np.isfinite(sample)]
        low, high = (float(sample.min()), float(sample.max())) if len(sample) else (0.0, 1.0)
        self._span = (low, high if high > low else low + 1.0)
        self._counts = np.histogram(sample, bins=_BINS, range=self._span)[0]
        self.update()

    def set_limits(self, low: float, high: float) -> None:
        """Move the handles."""
        self._limits = (low, high)
        self.update()

    def set_colours(self, rgba: NDArray) -> None:
        """Use the colours of a map, floats in [0, 1], shape (n, 3 or 4)."""
        self._colours = rgba
        self.update()

    # --- what Qt asks

    def sizeHint(self) -> QSize:
        """Wide enough for its bins."""
        return QSize(260, 84)

    def paintEvent(self, event: QPaintEvent) -> None:
        """Draw bars, base line and handles."""
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        ink = self.palette().color(QPalette.ColorRole.WindowText)
        floor, width = self.height() - 14.0, (self.width() - 2 * _MARGIN_PX) / _BINS
        edges = np.linspace(*self._span, _BINS + 1)
        colours = self._colour_at((edges[:-1] + edges[1:]) / 2)
        heights = np.sqrt(self._counts / max(self._counts.max(), 1)) * (floor - 4)
        painter.setPen(Qt.PenStyle.NoPen)
        for i, (height, rgb) in enumerate(zip(heights, colours, strict=True)):
            painter.setBrush(QColor.fromRgbF(*map(float, rgb[:3])))
            painter.drawRect(QRectF(_MARGIN_PX + i * width, floor - height, width + 0.5, height))
        if self.hasFocus():
            painter.setPen(QPen(self.palette().color(QPalette.ColorRole.Highlight), 1, Qt.PenStyle.DotLine))
            painter.setBrush(Qt.BrushStyle.NoBrush)
            painter.drawRect(self.rect().adjusted(0, 0, -1, -1))
        painter.setPen(QPen(ink, 1))
        painter.drawLine(QPointF(_MARGIN_PX, floor), QPointF(self.width() - _MARGIN_PX, floor))
        painter.setBrush(ink)
        for x in map(self._x, self._limits):
            painter.drawLine(QPointF(x, 2), QPointF(x, floor))
            painter.drawPolygon(QPolygonF([QPointF(x, floor), QPointF(x - 5, floor + 10), QPointF(x + 5, floor + 10)]))
        painter.end()

    def mousePressEvent(self, event: QMouseEvent) -> None:
        """Take hold of the nearer handle."""
        at = event.position().x()
        gaps = [abs(self._x(limit) - at) for limit in self._limits]
        # Where both handles coincide, the one on the side of the click moves.
        nearest = int(at > self._x(self._limits[0])) if gaps[0] == gaps[1] else int(np.argmin(gaps))
        self._dragged = nearest if gaps[nearest] <= _GRIP_PX else None

    def mouseMoveEvent(self, event: QMouseEvent) -> None:
        """Move the handle that is held; show where one can be taken."""
        at = event.position().x()
        if self._dragged is None:
            near = min(abs(self._x(limit) - at) for limit in self._limits) <= _GRIP_PX
            self.setCursor(Qt.CursorShape.SizeHorCursor if near else Qt.CursorShape.ArrowCursor)
            return
        limits = list(self._limits)
        limits[self._dragged] = self._value(at)
        self._move(limits)

    def _move(self, limits: list[float]) -> None:
        if limits[0] < limits[1]:
            self.set_limits(*limits)
            self.limits_dragged.emit(*limits)

    def keyPressEvent(self, event: QKeyEvent) -> None:
        """Move a handle by a hundredth of the width."""
        if event.key() not in (Qt.Key.Key_Left, Qt.Key.Key_Right):
            super().keyPressEvent(event)
            return
        which = 0 if event.modifiers() & Qt.KeyboardModifier.ShiftModifier else 1
        step = (self._span[1] - self._span[0]) / 100
        limits = list(self._limits)
        limits[which] += step if event.key() == Qt.Key.Key_Right else -step
        self._move(limits)

    def mouseReleaseEvent(self, event: QMouseEvent) -> None:
        """Let go."""
        self._dragged = None

    def _x(self, value: float) -> float:
        low, high = self._span
        share = min(max((value - low) / (high - low), 0.0), 1.0)
        return _MARGIN_PX + share * (self.width() - 2 * _MARGIN_PX)

    def _value(self, x: float) -> float:
        low, high = self._span
        share = min(max((x - _MARGIN_PX) / (self.width() - 2 * _MARGIN_PX), 0.0), 1.0)
        return low + share * (high - low)

    def _colour_at(self, values: NDArray) -> NDArray:
        low, high = self._limits
        share = np.clip((values - low) / max(high - low, 1e-12), 0, 1)
        return self._colours[np.round(share * (len(self._colours) - 1)).astype(int)]

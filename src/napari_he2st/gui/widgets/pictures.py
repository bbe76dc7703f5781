"""Pictures of tissue beside each other, each with a caption."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from qtpy.QtCore import Qt, Signal
from qtpy.QtGui import QImage, QKeyEvent, QMouseEvent, QPixmap
from qtpy.QtWidgets import QGridLayout, QLabel, QWidget

PICTURE_PX = 96


class Picture(QLabel):
    """One picture; ``clicked`` comes with a press of the mouse, of Return or of the space bar."""

    clicked = Signal()

    def __init__(self) -> None:
        super().__init__(alignment=Qt.AlignmentFlag.AlignCenter)
        self.setFixedSize(PICTURE_PX, PICTURE_PX)

    def show_pixels(self, pixels: NDArray[np.uint8]) -> None:
        """Show RGB pixels, uint8 (height, width, 3)."""
        pixels = np.ascontiguousarray(pixels)
        height, width, _ = pixels.shape
        image = QImage(pixels.data, width, height, 3 * width, QImage.Format.Format_RGB888).copy()
        smooth = Qt.TransformationMode.SmoothTransformation
        self.setPixmap(QPixmap.fromImage(image).scaled(PICTURE_PX, PICTURE_PX, transformMode=smooth))

    def mousePressEvent(self, event: QMouseEvent) -> None:
        """Tell of the click."""
        self.clicked.emit()

    def keyPressEvent(self, event: QKeyEvent) -> None:
        """Tell of Return and the space bar."""
        if event.key() in (Qt.Key.Key_Return, Qt.Key.Key_Enter, Qt.Key.Key_Space):
            self.clicked.emit()
        else:
            super().keyPressEvent(event)


class PictureGrid(QWidget):
    """Up to ``n`` pictures in rows of ``columns``; ``chosen(number)`` comes when one is clicked."""

    chosen = Signal(int)

    def __init__(self, n: int, columns: int) -> None:
        super().__init__()
        self.pictures, self.captions = [Picture() for _ in range(n)], [QLabel() for _ in range(n)]
        table = QGridLayout(self)
        for number, (picture, caption) in enumerate(zip(self.pictures, self.captions, strict=True)):
            caption.setAlignment(Qt.AlignmentFlag.AlignHCenter)
            picture.clicked.connect(lambda number=number: self.chosen.emit(number))
            row, column = divmod(number, columns)
            table.addWidget(picture, 2 * row, column)
            table.addWidget(caption, 2 * row + 1, column)

    def show_pictures(self, pixels: Sequence[NDArray[np.uint8]] | None, n: int) -> None:
        """Show the first ``n`` pictures, or where there are none as many frames that say so."""
        for number, (picture, caption) in enumerate(zip(self.pictures, self.captions, strict=True)):
            picture.setVisible(number < n)
            caption.setVisible(number < n)
            if number < n and pixels is None:
                picture.setText("no picture")
            elif number < n and pixels is not None:
                picture.show_pixels(pixels[number])

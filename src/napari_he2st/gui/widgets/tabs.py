"""Tabs of which only the one in front needs room, for docks on small screens."""

from __future__ import annotations

from qtpy.QtCore import Qt
from qtpy.QtGui import QKeyEvent
from qtpy.QtWidgets import QTabBar, QVBoxLayout, QWidget


class Tabs(QWidget):
    """A bar of tabs above their pages; Qt's own is as high as its highest page."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.bar = QTabBar()
        self.bar.setExpanding(False)
        self.bar.setDrawBase(False)
        self._pages: list[QWidget] = []
        self._column = QVBoxLayout(self)
        self._column.setContentsMargins(0, 0, 0, 0)
        self._column.addWidget(self.bar)
        self.bar.currentChanged.connect(self._show)

    def add(self, page: QWidget, title: str, tip: str) -> None:
        """Add a page with its tab and the tab's tooltip."""
        self._pages.append(page)
        page.setVisible(len(self._pages) == 1)
        self._column.addWidget(page, 1)
        self.bar.setTabToolTip(self.bar.addTab(title), tip)

    @property
    def current(self) -> QWidget:
        """The page in front."""
        return self._pages[self.bar.currentIndex()]

    def show_page(self, page: QWidget) -> None:
        """Bring a page to the front."""
        self.bar.setCurrentIndex(self._pages.index(page))

    def keyPressEvent(self, event: QKeyEvent) -> None:
        """Ctrl+Tab and Ctrl+Shift+Tab go round."""
        step = {Qt.Key.Key_Tab: 1, Qt.Key.Key_Backtab: -1}.get(Qt.Key(event.key()), 0)
        if step and event.modifiers() & Qt.KeyboardModifier.ControlModifier:
            self.bar.setCurrentIndex((self.bar.currentIndex() + step) % len(self._pages))
        else:
            super().keyPressEvent(event)

    def _show(self, index: int) -> None:
        for number, page in enumerate(self._pages):
            page.setVisible(number == index)

"""Combo boxes for narrow docks."""

from __future__ import annotations

from typing import Any

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QComboBox, QCompleter, QSizePolicy, QWidget


class Combo(QComboBox):
    """A combo box whose longest item does not widen the dock."""

    def __init__(self, tip: str, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
        self.setMinimumContentsLength(8)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self.setToolTip(tip)

    def add(self, text: str, *, data: Any = None, tip: str = "") -> None:
        """Add an item with a tooltip of its own."""
        self.addItem(text, data)
        self.setItemData(self.count() - 1, tip, Qt.ItemDataRole.ToolTipRole)


class SearchCombo(Combo):
    """A combo box that is searched by typing any part of an item."""

    def __init__(self, tip: str, parent: QWidget | None = None) -> None:
        super().__init__(tip, parent)
        self.setEditable(True)
        self.setInsertPolicy(QComboBox.InsertPolicy.NoInsert)
        completer = self.completer()
        completer.setCompletionMode(QCompleter.CompletionMode.PopupCompletion)
        completer.setFilterMode(Qt.MatchFlag.MatchContains)
        completer.setCaseSensitivity(Qt.CaseSensitivity.CaseInsensitive)
        self.lineEdit().editingFinished.connect(self._restore)
        self.lineEdit().textChanged.connect(self._show_beginning)

    def _restore(self) -> None:
        """Text that is no item gives way to the current one."""
        if self.findText(self.currentText()) < 0:
            self.setEditText(self.itemText(self.currentIndex()))

    def _show_beginning(self) -> None:
        """Of an item too long for the box; not while the user types."""
        if not self.lineEdit().hasFocus():
            self.lineEdit().setCursorPosition(0)

"""A short table of facts: what on the left, what it is on the right."""

from __future__ import annotations

from collections.abc import Mapping

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QFormLayout, QLabel, QSizePolicy, QWidget


class Facts(QWidget):
    """Labelled lines of text that can be selected and copied."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._layout = QFormLayout(self)
        self._layout.setContentsMargins(0, 0, 0, 0)
        self._layout.setVerticalSpacing(3)
        self._layout.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
        self.shown: dict[str, str] = {}

    def show_facts(self, facts: Mapping[str, str]) -> None:
        """Replace the lines; empty ones are left out."""
        self.shown = {name: text for name, text in facts.items() if text}
        while self._layout.rowCount():
            self._layout.removeRow(0)
        for name, text in self.shown.items():
            value = QLabel(text)
            value.setTextFormat(Qt.TextFormat.PlainText)
            value.setWordWrap(True)
            value.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
            # A long word must not widen the dock.
            value.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Preferred)
            value.setToolTip(text)
            self._layout.addRow(name, value)
        self.setVisible(bool(self.shown))

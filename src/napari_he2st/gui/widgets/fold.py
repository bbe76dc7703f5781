"""A part of a dock that is opened when it is needed, and asks for the room that it then takes."""

from __future__ import annotations

from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import QSizePolicy, QToolButton, QVBoxLayout, QWidget


class Fold(QWidget):
    """A title that shows or hides what is under it; ``toggled(open)`` comes with each change.

    Parameters
    ----------
    title
        With ``&`` before the letter that opens it together with Alt.
    content
        What is under it.
    tip
        What it is for.
    """

    toggled = Signal(bool)

    def __init__(self, title: str, content: QWidget, tip: str) -> None:
        super().__init__()
        self.content = content
        self.button = QToolButton(text=title, checkable=True, arrowType=Qt.ArrowType.RightArrow)
        self.button.setToolButtonStyle(Qt.ToolButtonStyle.ToolButtonTextBesideIcon)
        self.button.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self.button.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        key = title.partition("&")[2][:1].upper()
        self.button.setToolTip(f"{tip} (Alt+{key})" if key else tip)
        self.button.toggled.connect(self.set_open)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.button)
        layout.addWidget(content)
        content.hide()

    @property
    def is_open(self) -> bool:
        """Whether the content is shown."""
        return self.button.isChecked()

    def set_open(self, on: bool) -> None:
        """Show or hide the content."""
        if self.button.isChecked() != on:
            self.button.setChecked(on)  # comes back here
            return
        self.button.setArrowType(Qt.ArrowType.DownArrow if on else Qt.ArrowType.RightArrow)
        self.content.setVisible(on)
        self.toggled.emit(on)

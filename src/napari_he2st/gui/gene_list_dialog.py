"""A text box for a list of genes, which can be opened from a file or dropped."""

from __future__ import annotations

from pathlib import Path

from qtpy.QtCore import QMimeData, Qt, Signal
from qtpy.QtWidgets import QDialog, QDialogButtonBox, QFileDialog, QLabel, QPlainTextEdit, QVBoxLayout, QWidget

from napari_he2st.core.errors import He2stError
from napari_he2st.data.truth.gene_lists import read_text
from napari_he2st.gui.worker import tell

_FILES = "Text (*.txt *.csv *.tsv);;All files (*)"


class GeneListDialog(QDialog):
    """``text_given(text)`` comes with OK.

    Attributes
    ----------
    text
        The box.
    """

    text_given = Signal(str)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        self.setWindowTitle("List of genes")
        note = "Symbols, Ensembl identifiers or everyday names such as HER2, in lines or separated by commas:"
        self.text = QPlainTextEdit(placeholderText="ERBB2\nCD3E\nENSG00000148773\n…")
        self.text.setToolTip("Type or paste names here, or drop a text file")
        buttons = QDialogButtonBox(QDialogButtonBox.StandardButton.Ok | QDialogButtonBox.StandardButton.Cancel)
        file = buttons.addButton("Open file…", QDialogButtonBox.ButtonRole.ActionRole)
        file.setToolTip("A text file: one name a line, or a table whose first column holds them (Ctrl+O)")
        file.setShortcut("Ctrl+O")
        file.clicked.connect(lambda _: self._open())
        buttons.accepted.connect(self._give)
        buttons.rejected.connect(self.reject)
        layout = QVBoxLayout(self)
        layout.addWidget(QLabel(note, wordWrap=True))
        layout.addWidget(self.text)
        layout.addWidget(buttons)

    def _open(self) -> None:
        path, _ = QFileDialog.getOpenFileName(self, "Open a list of genes", "", _FILES)
        text = text_of(Path(path)) if path else None
        if text is not None:
            self.text.setPlainText(text)

    def _give(self) -> None:
        self.text_given.emit(self.text.toPlainText())
        self.accept()


def text_of(path: Path) -> str | None:
    """What a file says; None where it cannot be read, which the user is told."""
    try:
        return read_text(path)
    except He2stError as error:
        tell(error, "Reading the list")
        return None


def dropped_text(data: QMimeData) -> str | None:
    """The text that was dropped, or that of the first file; None where there is none."""
    files = [url.toLocalFile() for url in data.urls() if url.isLocalFile()]
    if files:
        return text_of(Path(files[0]))
    return data.text() or None

"""Choosing a predictor: a list to search, a folder to open, and the card of what is chosen."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QSignalBlocker, Signal
from qtpy.QtWidgets import QFileDialog, QFormLayout, QGroupBox, QHBoxLayout, QPushButton
from superqt import QCollapsible

from napari_he2st.gui import prediction
from napari_he2st.gui.widgets.combo import SearchCombo
from napari_he2st.gui.widgets.facts import Facts

if TYPE_CHECKING:
    from napari_he2st.zoo.manifest import Manifest


class PredictorBox(QGroupBox):
    """A list of predictors and the card of one.

    Attributes
    ----------
    chosen
        Emitted when the user chooses another one of the list.
    opened
        Emitted with the folder that the user opens.
    """

    chosen = Signal()
    opened = Signal(str)

    def __init__(self) -> None:
        super().__init__("Predictor")
        self._rows: dict[str, dict[str, Any]] = {}
        self.models = SearchCombo("Trained predictors first, then systems that need training; type to search")
        self.models.currentIndexChanged.connect(lambda _: self.chosen.emit())
        self.browse = browse = QPushButton("Open…")
        browse.setToolTip("Open a predictor that you trained: the folder that he2st train wrote")
        browse.clicked.connect(lambda *_: self._pick())
        self.card, self.rest = Facts(), Facts()
        about = QCollapsible("More about it")
        about.addWidget(self.rest)
        row = QHBoxLayout()
        row.addWidget(self.models, 1)
        row.addWidget(browse)
        form = QFormLayout(self)
        form.addRow(row)
        form.addRow(self.card)
        form.addRow(about)

    @property
    def row(self) -> dict[str, Any] | None:
        """Row of the chosen one."""
        return self._rows.get(self.models.currentData())

    def row_of(self, slug: str) -> dict[str, Any]:
        """Row of a listed one."""
        return self._rows[slug]

    def add_rows(self, rows: Iterable[dict[str, Any]]) -> None:
        """List more predictors; those that are listed already stay as they are."""
        for row in rows:
            if row["slug"] in self._rows:
                continue
            self._rows[row["slug"]] = row
            what, number = prediction.panel_of(row)
            with QSignalBlocker(self.models):
                told = f"{number} {what.lower()}" if what else "needs training"
                self.models.addItem(f"{row['title']} ({told})", row["slug"])

    def choose(self, slug: str) -> None:
        """Choose one without telling anyone."""
        with QSignalBlocker(self.models):
            self.models.setCurrentIndex(self.models.findData(slug))

    def show_card(self, row: dict[str, Any], manifest: Manifest | None = None) -> None:
        """Show what a predictor is; more once its manifest is read."""
        facts, rest = prediction.model_facts(row, manifest)
        self.card.show_facts(facts)
        self.rest.show_facts(rest)

    def _pick(self) -> None:
        folder = QFileDialog.getExistingDirectory(self, "Open a trained predictor")
        if folder:
            self.opened.emit(folder)

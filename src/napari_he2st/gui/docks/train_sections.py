"""Which sections a training uses, and what for."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import (
    QAbstractItemView,
    QFileDialog,
    QGroupBox,
    QHBoxLayout,
    QHeaderView,
    QMenu,
    QPushButton,
    QTableWidget,
    QTableWidgetItem,
    QVBoxLayout,
)

from napari_he2st.gui.widgets.combo import Combo

if TYPE_CHECKING:
    from napari_he2st.data.truth import Section
    from napari_he2st.gui.docks.base import Dock

ROLES = {
    "train": ("learn", "Its spots are learned"),
    "validate": ("choose", "Chooses the best epoch; neither learned nor scored"),
    "holdout": ("score", "Only scores the result"),
    "": ("leave out", "Not used"),
}
_ROWS_PX = 150


class SectionsBox(QGroupBox):
    """Table of sections: name, patient, spots, genes, role.

    Attributes
    ----------
    changed
        Emitted when sections, patients or roles change.
    """

    changed = Signal()

    def __init__(self, dock: Dock) -> None:
        super().__init__("Sections")
        self._dock = dock
        self.sections: list[Section] = []
        self.table = QTableWidget(0, 5)
        self.table.setHorizontalHeaderLabels(["section", "patient", "spots", "genes", "for"])
        self.table.setToolTip(
            "Measured sections with their image. The patient can be edited; roles are chosen at right"
        )
        self.table.verticalHeader().hide()
        self.table.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.table.setFixedHeight(_ROWS_PX)
        header = self.table.horizontalHeader()
        header.setSectionResizeMode(QHeaderView.ResizeMode.ResizeToContents)
        header.setSectionResizeMode(0, QHeaderView.ResizeMode.Stretch)
        self.table.itemChanged.connect(lambda _: self.changed.emit())
        self.adding = QPushButton("Add…")
        self.adding.setToolTip("Add sections of a folder, of a table of pairs, of a catalogue set, or that are open")
        menu = QMenu(self.adding)
        menu.addAction("Open in this window", self.add_open)
        menu.addAction("Folder or file…", self._ask_folder)
        menu.addAction("Table of slide and ST pairs (CSV)…", self._ask_table)
        self.sets = menu.addMenu("Catalogue set")
        self.adding.setMenu(menu)
        removing = QPushButton("Remove")
        removing.setToolTip("Take the selected rows out of the list")
        removing.clicked.connect(lambda *_: self._remove())
        row = QHBoxLayout()
        row.addWidget(self.adding)
        row.addWidget(removing)
        row.addStretch(1)
        layout = QVBoxLayout(self)
        layout.addWidget(self.table)
        layout.addLayout(row)
        self.sets.aboutToShow.connect(self._list_sets)

    def of(self, role: str) -> list[Section]:
        """Sections with a role, with the patients that the table says."""
        from dataclasses import replace

        found = []
        for row, section in enumerate(self.sections):
            chosen, patient = self.table.cellWidget(row, 4), self.table.item(row, 1)
            if chosen is not None and chosen.currentData() == role:
                found.append(replace(section, patient=(patient.text().strip() if patient else "") or None))
        return found

    def add(self, sections: Iterable[tuple[Section, str]]) -> None:
        """List sections with their roles; a name that is listed already stays as it is."""
        listed = {section.name for section in self.sections}
        self.table.blockSignals(True)
        for section, role in sections:
            if section.name in listed:
                continue
            listed.add(section.name)
            self.sections.append(section)
            row = self.table.rowCount()
            self.table.insertRow(row)
            texts = section.name, section.patient or "", f"{section.adata.n_obs:,}", f"{section.adata.n_vars:,}"
            for column, text in enumerate(texts):
                item = QTableWidgetItem(text)
                if column != 1:
                    item.setFlags(item.flags() & ~Qt.ItemFlag.ItemIsEditable)
                self.table.setItem(row, column, item)
            roles = Combo("What this section is for")
            roles.setMinimumContentsLength(5)
            for data, (label, tip) in ROLES.items():
                roles.add(label, data=data, tip=tip)
            roles.setCurrentIndex(roles.findData(role))
            roles.currentIndexChanged.connect(lambda _: self.changed.emit())
            self.table.setCellWidget(row, 4, roles)
        self.table.blockSignals(False)
        self.changed.emit()

    def _remove(self) -> None:
        for row in sorted({index.row() for index in self.table.selectedIndexes()}, reverse=True):
            self.table.removeRow(row)
            del self.sections[row]
        self.changed.emit()

    def add_open(self) -> None:
        """List what is measured on the open slides."""
        from napari_he2st.data.truth import Section

        session, found = self._dock.session, []
        for result in session.results.values():
            if result.kind == "measured" and result.adata is not None and result.slide in session.slides:
                path = Path(session.slides[result.slide].slide.path)
                found.append((Section(result.name, result.adata, path, "session"), "train"))
        if not found:
            self._dock.warn("Nothing measured is open: load a section in the Slide dock first.")
        self.add(found)

    def _ask_folder(self) -> None:
        folder = QFileDialog.getExistingDirectory(self, "Measured sections")
        if folder:
            self.read(folder)

    def _ask_table(self) -> None:
        path, _ = QFileDialog.getOpenFileName(self, "Slide and ST pairs", filter="Table (*.csv)")
        if path:
            self.read(path)

    def _list_sets(self) -> None:
        from napari_he2st.data.truth.catalogue import catalogue

        self.sets.clear()
        for name, entry in catalogue().items():
            action = self.sets.addAction(entry.title, lambda name=name: self.read(name))
            action.setEnabled(entry.folder.is_dir())
            action.setToolTip("" if entry.folder.is_dir() else "Not downloaded yet: get it in the Slide dock")
        self.sets.setToolTipsVisible(True)

    def read(self, what: str) -> None:
        """Read the sections of a folder or file, of a CSV of pairs, or of a catalogue set, in the background."""
        self._dock.run(read_all, what, name="Reading sections", on_done=self.add)


def read_all(what: str) -> list[tuple[Section, str]]:
    """Sections of a folder or file (``PATH``, ``PATH:NAME``), a CSV of pairs, or a catalogue set, with roles."""
    from napari_he2st.data.truth import detect, parse_section, read_section
    from napari_he2st.data.truth.catalogue import catalogue
    from napari_he2st.engine.train_plan import read_pairs

    if what.endswith(".csv"):
        return read_pairs(what)
    path, name = parse_section(what)
    if what in catalogue():
        path = catalogue()[what].folder
    names = [name] if name else list(detect(path).sections)
    return [(read_section(path, each), "train") for each in names]

"""Legend of tissue domains: colour, name (to be changed in place), size."""

from __future__ import annotations

import numpy as np
from qtpy.QtCore import QSignalBlocker, QSize, Qt, Signal
from qtpy.QtGui import QColor, QIcon, QPixmap
from qtpy.QtWidgets import QAbstractItemView, QHeaderView, QTableWidget, QTableWidgetItem, QWidget

from napari_he2st.core.types import Domains
from napari_he2st.gui.colours import domain_colours

_SWATCH_PX = 14


class DomainLegend(QTableWidget):
    """One row per domain.

    ``renamed(label, name)`` when a name is edited, ``domain_chosen(label)`` when a row is chosen.
    """

    renamed = Signal(int, str)
    domain_chosen = Signal(int)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(0, 3, parent)
        self.setHorizontalHeaderLabels(["domain", "spots", "mm²"])
        self.setToolTip("Double-click a name to change it; choose a row to see its marker genes, several to merge them")
        self.setAccessibleName("Legend of domains")
        self.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.setSelectionMode(QAbstractItemView.SelectionMode.ExtendedSelection)
        self.setTabKeyNavigation(False)
        self.setShowGrid(False)
        self.setMinimumHeight(110)
        self.verticalHeader().hide()
        self.verticalHeader().setSectionResizeMode(QHeaderView.ResizeMode.Fixed)
        self.verticalHeader().setDefaultSectionSize(self.fontMetrics().height() + 6)
        self.horizontalHeader().setSectionResizeMode(0, QHeaderView.ResizeMode.Stretch)
        self.cellChanged.connect(self._renamed)
        self.currentCellChanged.connect(lambda row, *_: self.domain_chosen.emit(row) if row >= 0 else None)

    def sizeHint(self) -> QSize:
        """Room for five domains."""
        return QSize(280, 140)

    @property
    def chosen(self) -> list[int]:
        """Labels of the chosen rows."""
        return sorted({index.row() for index in self.selectedIndexes()})

    def show_domains(self, domains: Domains | None, cell_um2: float | None) -> None:
        """List the domains; without ``cell_um2``, the area of a spot, sizes are in spots alone."""
        row = max(self.currentRow(), 0)
        with QSignalBlocker(self):
            self.setRowCount(0 if domains is None else domains.n_domains)
            if domains is None:
                return
            counts = np.bincount(domains.labels[domains.labels >= 0], minlength=domains.n_domains)
            colours = domain_colours(domains)
            for label, (title, n) in enumerate(zip(domains.titles, counts.tolist(), strict=True)):
                name = QTableWidgetItem(title)
                name.setIcon(_swatch(colours[label]))
                self.setItem(label, 0, name)
                area = "" if cell_um2 is None else f"{n * cell_um2 / 1e6:,.2f}"
                for column, text in ((1, f"{n:,}"), (2, area)):
                    self.setItem(label, column, _number(text))
            self.setColumnHidden(2, cell_um2 is None)
            self.setCurrentCell(min(row, self.rowCount() - 1), 0)

    def _renamed(self, row: int, column: int) -> None:
        if column == 0:
            self.renamed.emit(row, self.item(row, 0).text())


def _number(text: str) -> QTableWidgetItem:
    item = QTableWidgetItem(text)
    item.setFlags(item.flags() & ~Qt.ItemFlag.ItemIsEditable)
    item.setTextAlignment(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
    return item


def _swatch(colour: str) -> QIcon:
    pixmap = QPixmap(_SWATCH_PX, _SWATCH_PX)
    pixmap.fill(QColor(colour))
    return QIcon(pixmap)

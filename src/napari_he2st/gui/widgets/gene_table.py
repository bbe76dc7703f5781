"""The view of a table of genes: arrow keys flip through it, and it keeps its place."""

from __future__ import annotations

from qtpy.QtCore import QModelIndex, Qt, QTimer, Signal
from qtpy.QtGui import QKeyEvent, QResizeEvent
from qtpy.QtWidgets import QAbstractItemView, QHeaderView, QTableView, QWidget

from napari_he2st.gui.widgets.gene_model import GeneTableModel

_COLUMN_PX = (58, 86)
"""Least and most width of a column: four fit widely into a dock of 400 px, six narrowly."""


class GeneTable(QTableView):
    """The view: arrow keys flip through the names, a filter or a new order keeps the current one.

    ``gene_chosen(name)`` comes at most once per turn of the event loop, with the last name: held arrow keys
    coalesce instead of queueing up.
    """

    gene_chosen = Signal(str)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.genes = GeneTableModel(self)
        self.setModel(self.genes)
        self._current: str | None = None
        self._announce = QTimer(self, singleShot=True, interval=0)
        self._announce.timeout.connect(self._emit)
        self.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
        self.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        self.setTabKeyNavigation(False)
        self.setWordWrap(False)
        self.setShowGrid(False)
        self.setMinimumHeight(120)
        self.setAccessibleName("Table of genes")
        self.verticalHeader().hide()
        self.verticalHeader().setSectionResizeMode(QHeaderView.ResizeMode.Fixed)
        self.verticalHeader().setDefaultSectionSize(self.fontMetrics().height() + 6)
        header = self.horizontalHeader()
        header.setStretchLastSection(True)
        header.setDefaultSectionSize(_COLUMN_PX[1])
        header.setMinimumSectionSize(_COLUMN_PX[1] // 2)
        header.setHighlightSections(False)
        header.setSortIndicatorClearable(True)
        header.setSortIndicator(-1, Qt.SortOrder.AscendingOrder)
        self.setSortingEnabled(True)
        # Resetting the model drops the current row; it is found again by name.
        self.genes.modelReset.connect(self._restore)
        self.genes.modelReset.connect(self._spread)

    @property
    def current(self) -> str | None:
        """The chosen name; it survives being filtered out."""
        return self._current

    def choose(self, name: str | None) -> None:
        """Make ``name`` the current one without announcing it."""
        if name != self._current:
            self._announce.stop()
            self._current = name
            self._restore()

    def step(self, rows: int) -> None:
        """Move the current row down by ``rows`` (up if negative), as the arrow keys do."""
        n = self.genes.rowCount()
        if not n:
            return
        current = self.currentIndex()
        start = current.row() if current.isValid() else (-1 if rows > 0 else n)
        self.setCurrentIndex(self.genes.index(min(max(start + rows, 0), n - 1), 0))

    def currentChanged(self, current: QModelIndex, previous: QModelIndex) -> None:
        """Note the name of the new row; announce it soon."""
        super().currentChanged(current, previous)
        name = self.genes.name_at(current.row()) if current.isValid() else None
        if name is not None and name != self._current:
            self._current = name
            self._announce.start()

    def keyPressEvent(self, event: QKeyEvent) -> None:
        """Flip by Up and Down; leave letters to the dock around."""
        if event.key() in (Qt.Key.Key_Up, Qt.Key.Key_Down) and not event.modifiers():
            self.step(1 if event.key() == Qt.Key.Key_Down else -1)
            return
        if event.text().isprintable() and event.text():
            event.ignore()  # letters are for the dock around: there is a search box
            return
        super().keyPressEvent(event)

    def resizeEvent(self, event: QResizeEvent) -> None:
        """Give the columns the room there is."""
        super().resizeEvent(event)
        self._spread()

    def _spread(self) -> None:
        least, most = _COLUMN_PX
        share = self.viewport().width() // max(self.genes.columnCount(), 1)
        self.horizontalHeader().setDefaultSectionSize(min(max(share, least), most))

    def _restore(self) -> None:
        row = self.genes.row_of(self._current)
        if row is None:
            self.clearSelection()
            return
        index = self.genes.index(row, 0)
        self.selectRow(row)
        self.scrollTo(index)

    def _emit(self) -> None:
        if self._current is not None:
            self.gene_chosen.emit(self._current)

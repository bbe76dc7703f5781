"""The list of genes in the Genes dock: search, which of them are shown, the table and its columns."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from qtpy.QtCore import QEvent, QObject, Qt
from qtpy.QtGui import QKeySequence
from qtpy.QtWidgets import QApplication, QGridLayout, QLineEdit, QPushButton, QWidget
from superqt.utils import qdebounced

from napari_he2st.analysis.spatial_genes import moran_of_genes
from napari_he2st.analysis.summary import GeneSummary, summarise_genes
from napari_he2st.core.expression import unit_of
from napari_he2st.core.progress import Control
from napari_he2st.data.truth.gene_lists import parse_genes
from napari_he2st.engine.gene_names import also_called, find_genes
from napari_he2st.engine.segment import pattern_table
from napari_he2st.engine.session_items import Result
from napari_he2st.gui.gene_list_dialog import GeneListDialog, dropped_text
from napari_he2st.gui.widgets.combo import Combo
from napari_he2st.gui.widgets.gene_model import Column
from napari_he2st.gui.widgets.gene_table import GeneTable

if TYPE_CHECKING:
    import pandas as pd
    from qtpy.QtGui import QDragEnterEvent, QDropEvent

    from napari_he2st.gui.docks.base import Dock

LOW_SCORE = 0.2
"""Held-out Pearson correlation below which a predicted gene is marked as low confidence."""

STAR_KEY, LIST_KEY = "S", "L"

_ALL, _FAVOURITES, _RECENT, _LIST = "All genes", "Favourites", "Recently seen", "List"
_MOST_VALUES = 3e8  # spots × genes; beyond, Moran's I waits for the button
_MOST_SPOTS = 300_000


class GeneListBox(QWidget):
    """Search box, table and what stands in its columns; genes that come by paste or drop become a list of their own.

    Parameters
    ----------
    dock
        Whose session is meant; it runs the work and tells what was found.

    Attributes
    ----------
    search, which, table
        The search box, the choice of what is listed, the table.
    summary, moran
        What is known of the genes of the result, or None.
    """

    def __init__(self, dock: Dock) -> None:
        super().__init__()
        self._dock, self._session = dock, dock.session
        self._result: Result | None = None
        self._patterns: tuple[Result, pd.DataFrame] | None = None
        self._list: list[str] = []
        self.summary: GeneSummary | None = None
        self.moran: NDArray[np.float64] | None = None
        self.search = QLineEdit(placeholderText="Find genes: ERBB2, HER2, ^MT-, ENSG…", clearButtonEnabled=True)
        self.search.setToolTip(
            "Part of a symbol, Ensembl identifier or everyday name; ^ asks for its beginning; commas separate several. "
            "Up and Down flip through the genes. Several lines that are pasted become a list"
        )
        self.search.setAccessibleName("Find genes")
        self.search.textChanged.connect(self._filter)
        self.search.installEventFilter(self)
        self.which = Combo("Which genes are listed")
        for name in (_ALL, _FAVOURITES, _RECENT, _LIST):
            self.which.addItem(name)
        self.which.activated.connect(lambda _: self._show_subset())
        self.table = GeneTable()
        self.table.gene_chosen.connect(lambda gene: self._session.select(gene=gene))
        self.table.doubleClicked.connect(lambda _: self.toggle_star())
        self.table.installEventFilter(self)
        self.star = QPushButton("☆ Star", checkable=True)
        self.star.setToolTip(f"Keep the current gene among the favourites, or no longer ({STAR_KEY}, or double click)")
        self.star.clicked.connect(lambda _: self.toggle_star())
        self.paste = QPushButton("List…")
        self.paste.setToolTip(
            f"List the genes of a text or file ({LIST_KEY}); or paste it with Ctrl+V, or drop it on the table"
        )
        self.paste.clicked.connect(lambda _: self.ask_list())
        self.rank = QPushButton("Patterns")
        self.rank.setToolTip(
            "Rank all genes by how their expression lies in the tissue: Moran's I and Geary's C as columns (P)"
        )
        self.rank.clicked.connect(lambda _: self.measure_patterns())
        grid = QGridLayout(self)
        grid.setContentsMargins(0, 0, 0, 0)
        grid.addWidget(self.search, 0, 0, 1, 2)
        grid.addWidget(self.which, 0, 2)
        grid.addWidget(self.table, 1, 0, 1, 3)
        for column, button in enumerate((self.star, self.paste, self.rank)):
            grid.addWidget(button, 2, column)
            grid.setColumnStretch(column, 1)
        grid.setRowStretch(1, 1)
        self.setAcceptDrops(True)

    # --- what is listed

    def show_result(self, result: Result | None) -> None:
        """List the genes of a result; what is known of them follows from a thread."""
        self._result, self.summary, self.moran = result, None, None
        self.setEnabled(result is not None)
        self.rank.setEnabled(result is not None and result.adata is not None)
        if result is None:
            self.table.genes.set_columns([])
            return
        self._also = also_called(result)
        self.fill()
        self._dock.run(
            describe,
            result,
            control=Control(),
            name="Summarising genes",
            on_yield=partial(self._described, result),
        )

    def _described(self, result: Result, found: GeneSummary | NDArray[np.float64]) -> None:
        if result is not self._result:
            return
        if isinstance(found, GeneSummary):
            self.summary = found
        else:
            self.moran = found
        self.fill()

    def fill(self) -> None:
        """Bring the rows and columns up to date: derived maps first, then the genes."""
        result = self._result
        if result is None:
            return
        self.table.genes.set_starred(self._session.marks.favourites)
        above = len(result.derived)
        self.table.genes.set_columns(
            self._columns(result),
            doubt=np.concatenate([np.zeros(above, dtype=bool), result.scores < LOW_SCORE]),
            doubt_tip=f"Low confidence: held-out r below {LOW_SCORE}",
            also=np.concatenate([np.full(above, "", dtype="U1"), self._also]),
        )

    def _columns(self, result: Result) -> list[Column]:
        unknown = np.full(len(result.genes), np.nan)
        spots = f"the {len(result.grid):,} spots of {result.title}"
        columns = [Column("gene", np.asarray(result.genes, dtype=object), "{}", "Gene symbol")]
        if result.kind == "predicted":
            tip = f"Pearson correlation on sections the predictor had not seen; below {LOW_SCORE} the gene is marked"
            columns.append(Column("held-out r", result.scores, "{:.2f}", tip))
            measured = self._measured_r(result)
            if measured is not None:
                tip = f"Pearson correlation with {self._session.compared[1]}, measured on this slide (Compare dock)"
                columns.append(Column("measured r", measured, "{:.2f}", tip))
        mean = unknown if self.summary is None else self.summary.mean
        detected = unknown if self.summary is None else 100 * self.summary.detected
        columns.append(Column("mean", mean, "{:.2f}", f"Mean over {spots}, {unit_of(result.scale)}"))
        columns.append(Column("detected %", detected, "{:.0f}", f"Share of {spots} with a value above zero"))
        tip = "Moran's I: about 0 without a pattern, 1 where neighbours are alike"
        if self._patterns is not None and self._patterns[0] is result:
            found = self._patterns[1].reindex(result.genes)
            columns.append(Column("Moran", found["moran"].to_numpy(), "{:.2f}", tip))
            tip = "Geary's C: 1 without a pattern, 0 where neighbours are alike"
            columns.append(Column("Geary", found["geary"].to_numpy(), "{:.2f}", tip))
        elif self.moran is not None:
            columns.append(Column("Moran", self.moran, "{:.2f}", tip))
        return [_under(result, column) for column in columns]

    def _measured_r(self, result: Result) -> NDArray[np.float64] | None:
        """Correlation of each gene with what was measured, where the last comparison was of this result."""
        comparison = self._session.comparison
        if comparison is None or self._session.compared[0] != result.name:
            return None
        scores = comparison.table.set_index("gene")["pcc"]
        found: NDArray[np.float64] = scores.reindex(result.genes).to_numpy(dtype=np.float64)
        return found

    # --- which of them

    @qdebounced(timeout=40)
    def _filter(self, text: str) -> None:
        self.table.genes.set_filter(text)
        self._dock.say("" if self.table.genes.rowCount() or self._result is None else f"No gene matches {text!r}.")

    def _show_subset(self) -> None:
        which = self.which.currentText()
        subsets = {_FAVOURITES: self._session.marks.favourites, _RECENT: self._session.marks.recent}
        subset = self._list if which.startswith(_LIST) else subsets.get(which)
        self.table.genes.set_subset(subset)
        if subset is not None and not self.table.genes.rowCount():
            self._dock.say(f"{which}: none of these genes is in this result.")

    def show_list(self, text: str) -> None:
        """List the genes that a text names, and tell how many were found."""
        result = self._result
        names = parse_genes(text)
        if result is None or not names:
            return
        found, missing = find_genes(names, result)
        if not found:
            self._dock.warn(f"None of the {len(names):,} names is a gene of {result.title}.")
            return
        self._list = found
        self.which.setItemText(3, f"{_LIST} ({len(found):,})")
        self.which.setCurrentIndex(3)
        self.search.clear()
        self._show_subset()
        left = ", ".join(missing[:5]) + (" …" if len(missing) > 5 else "")
        self._dock.say(f"{len(found):,} of {len(names):,} genes found." + (f" Not found: {left}" if missing else ""))

    @property
    def listed(self) -> list[str]:
        """The genes of the last list."""
        return list(self._list)

    def ask_list(self) -> None:
        """Let the user type, paste or open a list."""
        dialog = GeneListDialog(self)
        dialog.text_given.connect(self.show_list)
        dialog.show()

    def toggle_star(self) -> None:
        """Star the current gene, or take its star away."""
        gene = self._session.gene
        if gene is not None:
            self._session.marks.toggle(gene)
        self.follow_marks()

    def follow_marks(self) -> None:
        """Show which genes are starred."""
        favourites = self._session.marks.favourites
        self.table.genes.set_starred(favourites)
        starred = self._session.gene in favourites
        self.star.setChecked(starred)
        self.star.setText("★ Starred" if starred else "☆ Star")
        if self.which.currentText() == _FAVOURITES:
            self._show_subset()

    # --- patterns

    def measure_patterns(self) -> None:
        """Measure the spatial pattern of every gene in a thread."""
        result = self._result
        if result is not None and result.adata is not None:
            done = partial(self._ranked, result)
            self._dock.run(pattern_table, result.adata, name="Measuring spatial patterns", on_done=done)

    def _ranked(self, result: Result, table: pd.DataFrame) -> None:
        self._patterns = result, table.set_index("gene")
        if result is not self._result:
            return
        self.fill()
        column = [found.title for found in self.table.genes.columns].index("Moran")
        self.table.sortByColumn(column, Qt.SortOrder.DescendingOrder)

    # --- keys and drops

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        """Let Up and Down flip through the table from the search box, and take a pasted list."""
        if event.type() == QEvent.Type.KeyPress:
            if watched is self.search and event.key() in (Qt.Key.Key_Up, Qt.Key.Key_Down):
                self.table.step(1 if event.key() == Qt.Key.Key_Down else -1)
                return True
            if event.matches(QKeySequence.StandardKey.Paste):
                text = QApplication.clipboard().text()
                if watched is self.table or len(text.strip().splitlines()) > 1:
                    self.show_list(text)
                    return True
        return super().eventFilter(watched, event)

    def dragEnterEvent(self, event: QDragEnterEvent) -> None:
        """Take text and one file."""
        if event.mimeData().hasText() or event.mimeData().hasUrls():
            event.acceptProposedAction()

    def dropEvent(self, event: QDropEvent) -> None:
        """List what was dropped."""
        text = dropped_text(event.mimeData())
        if text is not None:
            event.acceptProposedAction()
            self.show_list(text)


def describe(result: Result, control: Control) -> Iterator[Any]:
    """Yield a result's :class:`GeneSummary`, then Moran's I of its genes unless that would take long."""
    yield summarise_genes(result.values, control=control)
    if len(result.grid) <= _MOST_SPOTS and len(result.grid) * len(result.genes) <= _MOST_VALUES:
        yield moran_of_genes(result.values, result.grid, control=control)


def _under(result: Result, column: Column) -> Column:
    """A column of genes with the derived maps of a result above them, of which little is known."""
    above: list[Any] = [np.nan] * len(result.derived)
    if column.title == "gene":
        above = list(result.derived)
    elif column.title == "mean":
        above = [float(np.nanmean(found.values)) for found in result.derived.values()]
    top = np.asarray(above, dtype=column.values.dtype)
    return replace(column, values=np.concatenate([top, column.values])) if above else column

"""Compare dock: how well a prediction agrees with what was measured on the same slide."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QCheckBox, QFormLayout, QLabel, QLineEdit
from superqt.utils import qdebounced

from napari_he2st.core import keys
from napari_he2st.engine.compare import Comparison, compare
from napari_he2st.engine.report import write_report, write_table
from napari_he2st.gui.docks.base import Dock
from napari_he2st.gui.gene_map import unit_of
from napari_he2st.gui.side_by_side import Pair
from napari_he2st.gui.widgets.gene_table import GeneTable
from napari_he2st.gui.widgets.result_chooser import ResultChooser
from napari_he2st.gui.widgets.scatter import Scatter

if TYPE_CHECKING:
    import napari.viewer

_FIRST_COLUMNS = ("gene", "pcc", "spearman", "n")


class CompareDock(Dock):
    """Two results above; scores, table and scatter of their comparison below."""

    def __init__(self, viewer: napari.viewer.Viewer) -> None:
        super().__init__(viewer)
        self.predicted = ResultChooser(self.session, "Prediction to judge", lambda r: r.kind == "predicted")
        self.measured = ResultChooser(self.session, "Measurement to judge it by", lambda r: r.kind == "measured")
        for chooser in (self.predicted, self.measured):
            chooser.result_chosen.connect(lambda _: self._show_note())
        self.note = QLabel(wordWrap=True)
        self.summary = QLabel(wordWrap=True, textInteractionFlags=Qt.TextInteractionFlag.TextSelectableByMouse)
        self.side_by_side = QCheckBox("Measured | predicted | difference side by side")
        self.side_by_side.setToolTip("Three maps of the current gene with one camera; unticking puts the viewer back")
        self.side_by_side.toggled.connect(self._show_side_by_side)
        self.search = QLineEdit(placeholderText="Find genes", clearButtonEnabled=True)
        self.search.setToolTip("Part of a name; ^ asks for its beginning; commas separate several")
        self.table = GeneTable()
        self.search.textChanged.connect(qdebounced(self.table.genes.set_filter, timeout=40))
        self.table.gene_chosen.connect(lambda gene: self.session.select(gene=gene))
        self.scatter = Scatter()
        form = QFormLayout()
        form.addRow("Predicted", self.predicted)
        form.addRow("Measured", self.measured)
        self.body.addLayout(form)
        for widget in (self.note, self.summary, self.side_by_side, self.search, self.table, self.scatter):
            self.body.addWidget(widget)
        self.button = self.add_button("Compare", "Score every gene and every spot", self._compare)
        self.table_button = self.add_button("Save table…", "Save the scores of all genes as CSV", self._save_table)
        self.report_button = self.add_button("Save report…", "Save figures and scores as one HTML", self._save_report)
        self.listen(self.session.result_added, self._refill)
        self.listen(self.session.result_removed, self._refill)
        self.listen(self.session.result_finished, self._refill)
        self.listen(self.session.domains_changed, self._show_summary)
        self.listen(self.session.comparison_changed, self._show_comparison)
        self.listen(self.session.selection_changed, self._show_gene)
        self._refill()
        self._show_comparison()

    # --- choosing

    def _refill(self) -> None:
        self.predicted.refill()
        self.measured.refill()
        self._show_note()

    def _show_note(self) -> None:
        problem = _problem(self.predicted.result, self.measured.result)
        self.button.setEnabled(not problem)
        self.note.setText(problem or keys.RESEARCH_USE)

    def _compare(self) -> None:
        predicted, measured = self.predicted.result, self.measured.result
        if predicted is None or measured is None:
            return
        names = {"predicted": predicted.name, "measured": measured.name}
        self.button.setEnabled(False)
        self.run(
            compare,
            predicted.adata,
            measured.adata,
            name="Comparing",
            on_done=lambda comparison: self._compared(comparison, **names),
            on_end=self._show_note,
        )

    def _compared(self, comparison: Comparison, *, predicted: str, measured: str) -> None:
        if predicted in self.session.results and measured in self.session.results:
            self.session.set_comparison(comparison, predicted=predicted, measured=measured)

    # --- showing

    @property
    def _pair(self) -> Pair | None:
        comparison, (predicted, measured) = self.session.comparison, self.session.compared
        if comparison is None:
            return None
        results = self.session.results
        return Pair(results[measured], results[predicted], comparison.index_measured, comparison.index_predicted)

    def _show_comparison(self) -> None:
        comparison = self.session.comparison
        for widget in (self.side_by_side, self.search, self.table, self.table_button, self.report_button):
            widget.setEnabled(comparison is not None)
        self.scatter.setVisible(comparison is not None)
        if comparison is None:
            self.table.genes.set_columns([])
            self.side_by_side.setChecked(False)
        else:
            for chooser, name in zip((self.predicted, self.measured), self.session.compared, strict=True):
                chooser.choose(name)
            self.table.genes.set_columns(_columns(comparison))
            if not self.table.horizontalHeader().isSortIndicatorShown() or self._unsorted:
                self.table.sortByColumn(1, Qt.SortOrder.DescendingOrder)
            if self.side_by_side.isChecked():
                self._show_side_by_side(True)
        self._show_summary()
        self._show_gene()

    @property
    def _unsorted(self) -> bool:
        return self.table.horizontalHeader().sortIndicatorSection() < 0

    def _show_summary(self) -> None:
        comparison, pair = self.session.comparison, self._pair
        self.summary.setText("" if comparison is None or pair is None else _summary(comparison, pair))

    def _show_gene(self) -> None:
        comparison, pair, gene = self.session.comparison, self._pair, self.session.gene
        self.table.choose(gene)
        if comparison is None or pair is None or gene is None:
            self.scatter.clear_points()
            return
        rows = np.flatnonzero(comparison.table["gene"].to_numpy() == gene)
        if not len(rows):
            self.scatter.clear_points()
            self.say(f"{gene} is not in both panels.")
            return
        self.say("")
        measured, predicted = pair.column(gene)
        r = float(comparison.table["pcc"].iloc[rows[0]])
        self.scatter.show_gene(gene, measured, predicted, r=r, unit=unit_of(pair.measured.scale))
        if self.side_by_side.isChecked():
            self.layers.side_by_side.show_gene(gene)

    def _show_side_by_side(self, on: bool) -> None:
        pair = self._pair
        slide = None if pair is None else self.layers.slide_layer(pair.measured.slide)
        if on and pair is not None and slide is not None:
            self.layers.side_by_side.enter(pair, slide, self.session.gene)
        else:
            self.layers.side_by_side.leave()

    # --- saving

    def _save_table(self) -> None:
        self._save("Save scores", "scores.csv", "Table (*.csv)", write_table)

    def _save_report(self) -> None:
        self._save("Save report", "comparison.html", "Web page (*.html)", write_report)

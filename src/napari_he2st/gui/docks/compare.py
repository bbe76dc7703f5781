"""Compare dock: how well a prediction agrees with what was measured on the same slide."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from napari.utils.notifications import show_info
from qtpy.QtCore import QSignalBlocker, Qt
from qtpy.QtWidgets import QCheckBox, QFormLayout, QLabel, QLineEdit
from superqt.utils import qdebounced

from napari_he2st.analysis.metrics import METRICS
from napari_he2st.core import keys
from napari_he2st.engine.compare import Comparison, compare
from napari_he2st.engine.report import write_report, write_table
from napari_he2st.engine.session_items import Result
from napari_he2st.gui.docks.base import Dock
from napari_he2st.gui.gene_map import unit_of
from napari_he2st.gui.widgets.gene_model import Column
from napari_he2st.gui.widgets.gene_table import GeneTable
from napari_he2st.gui.widgets.result_chooser import ResultChooser
from napari_he2st.gui.widgets.save_dialog import ask_where
from napari_he2st.gui.widgets.scatter import Scatter

if TYPE_CHECKING:
    import napari.viewer

_FIRST = ("pcc", "spearman", "n")
_BETTER = {"higher": "higher is better", "lower": "lower is better", None: "descriptive"}
_TIPS = {
    "n": "Spots where both sides are known",
    "moran_predicted": "Moran's I of the predicted map: 1 smooth, 0 random",
    "moran_measured": "Moran's I of the measured map: 1 smooth, 0 random",
    **{entry.name: f"{entry.description}; {_BETTER[entry.facts['better']]}" for entry in METRICS},
}


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
        self.side_by_side.setToolTip(
            "Three maps of the current gene with one camera; the difference is predicted minus measured: red is "
            "predicted too high, blue too low. Unticking puts the viewer back."
        )
        self._show_whether_side_by_side()
        self.side_by_side.toggled.connect(self._show_side_by_side)
        self.search = QLineEdit(placeholderText="Find genes", clearButtonEnabled=True)
        self.search.setToolTip("Part of a name; ^ asks for its beginning; commas separate several")
        self.table = GeneTable()
        self.table.sortByColumn(1, Qt.SortOrder.DescendingOrder)
        self.search.textChanged.connect(qdebounced(self.table.genes.set_filter, timeout=40))
        self.table.gene_chosen.connect(lambda gene: self.session.select(gene=gene))
        self.scatter = Scatter()
        form = QFormLayout()
        form.addRow("Predicted", self.predicted)
        form.addRow("Measured", self.measured)
        self.body.addLayout(form)
        for widget in (self.note, self.summary, self.side_by_side, self.search):
            self.body.addWidget(widget)
        self.body.addWidget(self.table, 1)
        self.body.addWidget(self.scatter)
        self.button = self.add_button("Compare", "Score every gene and every spot", self._compare)
        self.table_button = self.add_button("Save table…", "Save the scores of all genes as CSV", self._save_table)
        self.report_button = self.add_button("Save report…", "Save figures and scores as one HTML", self._save_report)
        self.listen(self.session.result_added, self._refill)
        self.listen(self.session.domains_changed, self._show_whether_side_by_side)
        self.listen(self.session.result_removed, self._refill)
        self.listen(self.session.result_finished, self._refill)
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

    def _show_comparison(self) -> None:
        comparison = self.session.comparison
        for widget in (self.side_by_side, self.search, self.table, self.table_button, self.report_button):
            widget.setEnabled(comparison is not None)
        self.scatter.setVisible(comparison is not None)
        if comparison is None:
            self.summary.setText("")
            self.table.genes.set_columns([])
            self.side_by_side.setChecked(False)
        else:
            for chooser, name in zip((self.predicted, self.measured), self.session.compared, strict=True):
                chooser.choose(name)
            self.summary.setText(_summary(comparison))
            self.table.genes.set_columns(_columns(comparison))
            if self.side_by_side.isChecked() and self.layers.side_by_side.comparison is not comparison:
                self._show_side_by_side(True)
        self._show_gene()

    def _show_gene(self) -> None:
        comparison, gene = self.session.comparison, self.session.gene
        self._show_whether_side_by_side()
        self.table.choose(gene)
        if comparison is None or gene is None or gene not in comparison.genes:
            self.scatter.clear_points()
            self.say(f"{gene} is not in both panels." if comparison is not None and gene is not None else "")
            return
        self.say("")
        column = comparison.genes.index(gene)
        self.scatter.show_gene(
            gene,
            comparison.measured[:, column],
            comparison.predicted[:, column],
            r=float(comparison.table["pcc"].iloc[column]),
            unit=unit_of(comparison.facts_measured["scale"]),
        )
        if self.side_by_side.isChecked():
            self.layers.side_by_side.show_gene(gene)

    def _show_whether_side_by_side(self) -> None:
        """Other docks can end it, by showing a result or its domains."""
        with QSignalBlocker(self.side_by_side):
            self.side_by_side.setChecked(self.layers.side_by_side.comparison is not None)

    def _show_side_by_side(self, on: bool) -> None:
        comparison = self.session.comparison
        measured = self.session.results.get(self.session.compared[1])
        slide = None if measured is None else self.layers.slide_layer(measured.slide)
        if on and comparison is not None and slide is not None:
            self.layers.side_by_side.enter(comparison, slide, self.session.gene)
        else:
            self.layers.side_by_side.leave()

    # --- saving

    def _save_table(self) -> None:
        self._save("Save scores", suffix=".csv", kind="Table", write=write_table)

    def _save_report(self) -> None:
        self._save("Save report", suffix=".html", kind="Web page", write=write_report)

    def _save(self, title: str, *, suffix: str, kind: str, write: Callable[..., Path]) -> None:
        comparison, (predicted, measured) = self.session.comparison, self.session.compared
        target = ask_where(self, title, name=f"{predicted} against {measured}", suffix=suffix, kind=kind)
        if comparison is not None and target is not None:
            work = partial(write, comparison, target.path, force=target.force)
            self.run(work, name=f"Writing {target.path.name}", on_done=self._saved)

    def _saved(self, path: Path) -> None:
        self.say(f"Written: {path}")
        show_info(f"{path.name} is written.")


def _summary(comparison: Comparison) -> str:
    """Scores over all genes, what to be careful about, and agreement of groupings where there are any."""
    found = comparison.summary
    mean, median = _number(found["pcc_mean"]), _number(found["pcc_median"])
    genes = found["genes"] - found["genes_without_pcc"]
    lines = [
        f"<b>Pearson correlation: mean {mean}, median {median}</b> over {genes:,} genes "
        f"and {found['spots_matched']:,} spots."
    ]
    if found["genes_constant"]:
        lines.append(f"Left out, since they do not vary on one side: {found['genes_constant']:,} genes.")
    if "ari" in found:
        lines.append(f"Predicted domains against measured groups: ARI {found['ari']:.2f}, NMI {found['nmi']:.2f}.")
    return "<br>".join([*lines, *(f"<b>Caution:</b> {warning}" for warning in comparison.warnings)])


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


def _problem(predicted: Result | None, measured: Result | None) -> str:
    """What keeps two results from being compared, and what to do; empty if nothing does."""
    if predicted is None:
        return "There is no prediction to compare yet: predict a slide in the Predict dock."
    if measured is None:
        return "There is no measurement to compare with yet: load measured expression in the Slide dock."
    if predicted.slide != measured.slide:
        return f"{predicted.title} lies on {predicted.slide}, but {measured.title} on {measured.slide}."
    if predicted.adata is None:
        return f"{predicted.title} can be compared once the prediction is complete."
    return ""


def _columns(comparison: Comparison) -> list[Column]:
    table = comparison.table
    columns = [Column("gene", table["gene"].to_numpy(dtype=object), "{}", "Gene symbol")]
    for name in (*_FIRST, *table.columns.drop(["gene", "constant", *_FIRST])):
        text = "{:,}" if name == "n" else "{:.3f}"
        columns.append(Column(name.replace("_", " "), table[name].to_numpy(), text, _TIPS.get(name, "")))
    return columns

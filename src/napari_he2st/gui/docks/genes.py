"""Genes dock: find a gene, flip through the panel, and read its map rightly."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import QEvent, QObject, QSignalBlocker, Qt
from qtpy.QtGui import QKeyEvent
from qtpy.QtWidgets import QCheckBox, QLabel, QLineEdit
from superqt.utils import qdebounced

from napari_he2st.analysis.summary import GeneSummary, summarise_genes
from napari_he2st.core import keys
from napari_he2st.core.progress import Control
from napari_he2st.engine.segment import pattern_table
from napari_he2st.engine.session_items import Result
from napari_he2st.gui.docks.base import Dock
from napari_he2st.gui.extremes import ExtremesDialog
from napari_he2st.gui.gene_map import legend, unit_of
from napari_he2st.gui.matches import MatchesDialog
from napari_he2st.gui.regions import RegionsDialog
from napari_he2st.gui.widgets.display import MapDisplay
from napari_he2st.gui.widgets.gene_table import Column, GeneTable
from napari_he2st.gui.widgets.result_chooser import ResultChooser

if TYPE_CHECKING:
    import napari.viewer
    import pandas as pd

LOW_SCORE = 0.2
"""Held-out Pearson correlation below which a predicted gene is marked as low confidence."""

HIDE_KEY = "H"
"""Held to see the slide without the maps; napari uses it for nothing else."""

_EMPTY = "Nothing to show yet: predict a slide in the Predict dock, or load measured expression in the Slide dock."


class GenesDock(Dock):
    """Search box, table and display of the current result."""

    def __init__(self, viewer: napari.viewer.Viewer) -> None:
        super().__init__(viewer)
        tip = "The result whose genes are listed; its map is shown and the others are hidden"
        self.chooser = ResultChooser(self.session, tip)
        self.chooser.result_chosen.connect(lambda name: self.session.select(result=name))
        self.note = QLabel(wordWrap=True)
        self.search = QLineEdit(placeholderText="Find genes: ERBB2, ^MT-, or a list", clearButtonEnabled=True)
        self.search.setToolTip(
            "Part of a name; ^ asks for its beginning; commas separate several. Up and Down flip through the genes."
        )
        self.search.textChanged.connect(self._filter)
        self.search.installEventFilter(self)
        self.table = GeneTable()
        self.table.gene_chosen.connect(lambda gene: self.session.select(gene=gene))
        self.facts = QLabel(wordWrap=True)
        self.spread = QCheckBox("Show how much predictions vary")
        self.spread.setToolTip("A second map: the standard deviation over random draws and members of an ensemble")
        self.spread.toggled.connect(self._show_spread)
        self.display = MapDisplay(self.layers)
        hint = QLabel(f"Hold {HIDE_KEY} to see the slide without maps")
        hint.setToolTip("Works while the picture or the gene table has the keyboard")
        for widget in (self.chooser, self.note, self.search):
            self.body.addWidget(widget)
        self.body.addWidget(self.table, 1)
        for widget in (self.facts, self.spread, self.display, hint):
            self.body.addWidget(widget)
        tip = "Rank all genes by how their expression lies in the tissue: Moran's I and Geary's C as columns"
        self.rank = self.add_button("Spatial patterns", tip, self._rank)
        self._patterns: tuple[Result, pd.DataFrame] | None = None
        self._summary: GeneSummary | None = None
        tip = "Name and class drawn regions, measure the current gene in them, compare two of them"
        self.regions = self.add_button("Regions…", tip, lambda: RegionsDialog(self.layers, self).show())
        tip = "The H&E where the current gene is highest and lowest; a click goes there"
        self.tiles = self.add_button("Tiles…", tip, lambda: ExtremesDialog(self.layers, self).show())
        tip = "For a spot that you click: the training spots this prediction was made of, and how similar they are"
        self.matches = self.add_button("Reference spots…", tip, self._show_matches)
        viewer.bind_key(HIDE_KEY, self._hold, overwrite=True)
        self.listen(self.session.result_added, self.chooser.refill)
        self.listen(self.session.result_removed, self._result_removed)
        self.listen(self.session.result_finished, self._result_finished)
        self.listen(self.session.result_filled, self._result_filled)
        self.listen(self.session.selection_changed, self._selection_changed)
        self._list(self.session.current_result)
        self._selection_changed()

    # --- what the session says

    def _selection_changed(self) -> None:
        result = self.session.current_result
        if result is not self._listed:
            self._list(result)
        self.table.choose(self.session.gene)
        self._show_facts()
        self._offer_spread(result)
        self.display.show_result(result)

    def _offer_spread(self, result: Result | None) -> None:
        layer = None if result is None else self.layers.spread_layer(result.name)
        self.spread.setVisible(result is not None and result.std is not None)
        with QSignalBlocker(self.spread):
            self.spread.setChecked(layer is not None and bool(layer.visible))

    def _show_spread(self, on: bool) -> None:
        if self.session.result is not None:
            self.layers.show_spread(self.session.result, on)

    def _result_removed(self) -> None:
        self.chooser.refill()
        self._selection_changed()

    def _result_finished(self, name: str) -> None:
        if self._listed is not None and name == self._listed.name:
            self._list(self._listed)
            self._offer_spread(self._listed)
            self.display.show_result(self._listed)

    def _result_filled(self) -> None:
        self._follow()

    @qdebounced(timeout=500)
    def _follow(self) -> None:
        """While a run goes on the display follows now and then; the table waits for its end."""
        self.display.show_result(self._listed)

    def _show_matches(self) -> None:
        result = self.session.current_result
        if result is not None:
            MatchesDialog(self.viewer, self.session, result, self).show()

    # --- the table

    def _list(self, result: Result | None) -> None:
        self._listed = result
        self.chooser.choose(None if result is None else result.name)
        for widget in (self.search, self.table, self.display):
            widget.setEnabled(result is not None)
        self.rank.setEnabled(result is not None and result.adata is not None)
        self.matches.setVisible(result is not None and _looks_up(result))
        if result is None:
            self.note.setText(_EMPTY)
            self.table.genes.set_columns([])
            return
        self.note.setText(" ".join([_note(result), *result.warnings]))
        self._fill_table(result, None)
        self.run(
            summarise_genes,
            result.values,
            control=Control(),
            name="Summarising genes",
            on_done=lambda summary: self._fill_table(result, summary),
        )

    def _rank(self) -> None:
        """Measure the spatial pattern of every gene in a thread."""
        result = self._listed
        if result is not None and result.adata is not None:
            done = partial(self._ranked, result)
            self.run(pattern_table, result.adata, name="Measuring spatial patterns", on_done=done)

    def _ranked(self, result: Result, table: pd.DataFrame) -> None:
        self._patterns = result, table.set_index("gene")
        self._fill_table(result, self._summary)
        column = [found.title for found in self.table.genes.columns].index("Moran")
        self.table.sortByColumn(column, Qt.SortOrder.DescendingOrder)

    def _fill_table(self, result: Result, summary: GeneSummary | None) -> None:
        if result is not self._listed:
            return
        self._summary = summary
        unknown = np.full(len(result.genes), np.nan)
        spots = f"the {len(result.grid):,} spots of {result.title}"
        columns = [Column("gene", np.asarray(result.genes, dtype=object), "{}", "Gene symbol")]
        if result.kind == "predicted":
            tip = f"Pearson correlation on sections the predictor had not seen; below {LOW_SCORE} the map is greyed"
            columns.append(Column("held-out r", result.scores, "{:.2f}", tip))
        mean = unknown if summary is None else summary.mean
        detected = unknown if summary is None else 100 * summary.detected
        columns.append(Column("mean", mean, "{:.2f}", f"Mean over {spots}, {unit_of(result.scale)}"))
        columns.append(Column("detected %", detected, "{:.0f}", f"Share of {spots} with a value above zero"))
        if self._patterns is not None and self._patterns[0] is result:
            found = self._patterns[1].reindex(result.genes)
            tip = "Moran's I: about 0 without a pattern, 1 where neighbours are alike"
            columns.append(Column("Moran", found["moran"].to_numpy(), "{:.2f}", tip))
            tip = "Geary's C: 1 without a pattern, 0 where neighbours are alike"
            columns.append(Column("Geary", found["geary"].to_numpy(), "{:.2f}", tip))
        doubt = result.scores < LOW_SCORE
        self.table.genes.set_columns(columns, doubt=doubt, doubt_tip=f"Low confidence: held-out r below {LOW_SCORE}")

    @qdebounced(timeout=40)
    def _filter(self, text: str) -> None:
        self.table.genes.set_filter(text)
        self.say("" if self.table.genes.rowCount() or self._listed is None else f"No gene matches {text!r}.")

    def _show_facts(self) -> None:
        result, gene = self._listed, self.session.gene
        if result is None or gene is None:
            self.facts.setText("")
            return
        if gene not in result.genes:
            shown = self.layers.shown(result.name)
            still = f" Its map still shows <b>{shown}</b>." if shown else ""
            self.facts.setText(f"<b>{gene}</b> is not in the panel of {result.title}.{still}")
            return
        score = float(result.scores[result.genes.index(gene)])
        trust = ""
        if np.isfinite(score):
            trust = f", held-out r {score:.2f}" + (" – low confidence" if score < LOW_SCORE else "")
        unit = legend(gene, result.scale).removeprefix(gene)
        self.facts.setText(f"<b>{gene}</b> ({result.kind}){unit}{trust}")

    # --- keys

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        """Let Up and Down flip through the table while the search box has the keyboard."""
        if watched is self.search and event.type() == QEvent.Type.KeyPress:
            key = event.key()
            if key in (Qt.Key.Key_Up, Qt.Key.Key_Down):
                self.table.step(1 if key == Qt.Key.Key_Down else -1)
                return True
        return super().eventFilter(watched, event)

    def keyPressEvent(self, event: QKeyEvent) -> None:
        """Hide the maps while the key is held."""
        if event.text().upper() == HIDE_KEY:
            self.layers.set_overlay_visible(False)
        else:
            super().keyPressEvent(event)

    def keyReleaseEvent(self, event: QKeyEvent) -> None:
        """Bring the maps back."""
        if event.text().upper() == HIDE_KEY and not event.isAutoRepeat():
            self.layers.set_overlay_visible(True)
        else:
            super().keyReleaseEvent(event)

    def _hold(self, _: Any) -> Iterator[None]:
        self.layers.set_overlay_visible(False)
        yield
        self.layers.set_overlay_visible(True)


def _looks_up(result: Result) -> bool:
    """Whether a result was made of training spots that can be shown."""
    if result.bundle is None:
        return False
    from napari_he2st.engine.reference import looks_up

    return looks_up(result.bundle)


def _note(result: Result) -> str:
    return keys.RESEARCH_USE if result.kind == "predicted" else "Measured expression."

"""Genes dock: find a gene, flip through the panel, and read its map rightly."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import QSignalBlocker
from qtpy.QtGui import QKeyEvent
from qtpy.QtWidgets import QCheckBox, QLabel
from superqt.utils import qdebounced

from napari_he2st.core import keys
from napari_he2st.engine.session_items import Result
from napari_he2st.gui.docks.base import Dock
from napari_he2st.gui.docks.blend_box import BlendBox
from napari_he2st.gui.docks.gene_list_box import LIST_KEY, LOW_SCORE, STAR_KEY, GeneListBox
from napari_he2st.gui.docks.signature_box import SignatureBox
from napari_he2st.gui.docks.spot_box import SpotBox
from napari_he2st.gui.docks.trust_box import TrustBox
from napari_he2st.gui.extremes import ExtremesDialog
from napari_he2st.gui.gallery import GalleryDialog
from napari_he2st.gui.gene_map import legend
from napari_he2st.gui.matches import MatchesDialog
from napari_he2st.gui.regions import RegionsDialog
from napari_he2st.gui.widgets.display import MapDisplay
from napari_he2st.gui.widgets.fold import Fold
from napari_he2st.gui.widgets.result_chooser import ResultChooser

if TYPE_CHECKING:
    import napari.viewer

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
        self.gene_list = GeneListBox(self)
        self.search, self.table = self.gene_list.search, self.gene_list.table
        self.facts = QLabel(wordWrap=True)
        self.spread = QCheckBox("Show how much predictions vary")
        self.spread.setToolTip("A second map: the standard deviation over random draws and members of an ensemble")
        self.spread.toggled.connect(self._show_spread)
        self.display = MapDisplay(self.layers)
        self.blend = BlendBox(self)
        tip = "Up to four genes, each in a colour of its own"
        self.signatures = SignatureBox(self, self.gene_list)
        several = Fold("&Genes in one picture", self.blend, tip)
        tip = "The score of a set of genes, or one gene divided by another, as a map"
        made = Fold("&Signatures and ratios", self.signatures, tip)
        self.trust = TrustBox(self)
        doubt = Fold("Can I &trust it here?", self.trust, "What the predictor has seen, and how far this slide is")
        self.spot = SpotBox(self, self.gene_list)
        pinned = Fold("P&inned spot", self.spot, "While this is open, a click pins a spot: its highest genes")
        pinned.toggled.connect(self.spot.listen)
        folds = several, made, doubt, pinned
        for fold in folds:
            fold.toggled.connect(lambda on, fold=fold: self.reveal(fold) if on else None)
        hint = QLabel(f"Hold {HIDE_KEY}: slide without maps. {STAR_KEY}: star. {LIST_KEY}: list. /: find.")
        hint.setWordWrap(True)
        hint.setToolTip("H works while the picture or the gene table has the keyboard, the others in the table")
        self._keys = {
            STAR_KEY: self.gene_list.toggle_star,
            LIST_KEY: self.gene_list.ask_list,
            "P": self.gene_list.measure_patterns,
            "/": self.search.setFocus,
            "+": self.blend.add_gene,
            "M": self._show_gallery,
        }
        for widget in (self.chooser, self.note):
            self.body.addWidget(widget)
        self.body.addWidget(self.gene_list, 1)
        for widget in (self.facts, self.spread, self.display, *folds, hint):
            self.body.addWidget(widget)
        tip = "Small maps of the genes in the list, which follow the view (M)"
        self.gallery = self.add_button("Maps…", tip, self._show_gallery)
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
        self.listen(self.session.derived_changed, self._derived_changed)
        self.listen(self.session.comparison_changed, self.gene_list.fill)
        self.listen(self.session.marks.changed, self.gene_list.follow_marks)
        self._list(self.session.current_result)
        self._selection_changed()

    # --- what the session says

    def _selection_changed(self) -> None:
        result = self.session.current_result
        if result is not self._listed:
            self._list(result)
        self.table.choose(self.session.gene)
        self.gene_list.follow_marks()
        self._show_facts()
        self._offer_spread(result)
        self.display.show_result(result)
        self.blend.follow()
        self.signatures.follow()
        self.spot.follow()

    def _derived_changed(self, name: str) -> None:
        if self._listed is not None and name == self._listed.name:
            self.gene_list.fill()

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

    def _show_gallery(self) -> None:
        GalleryDialog(self.layers, self.table.genes.names, self).show()

    def _show_matches(self) -> None:
        result = self.session.current_result
        if result is not None:
            MatchesDialog(self.viewer, self.session, result, self).show()

    # --- the table

    def _list(self, result: Result | None) -> None:
        self._listed = result
        self.chooser.choose(None if result is None else result.name)
        self.display.setEnabled(result is not None)
        self.matches.setVisible(result is not None and _looks_up(result))
        self.note.setText(_EMPTY if result is None else " ".join([_note(result), *result.warnings]))
        self.gene_list.show_result(result)
        self.trust.follow()

    def _show_facts(self) -> None:
        result, gene = self._listed, self.session.gene
        if result is None or gene is None:
            self.facts.setText("")
            return
        if gene in result.derived:
            made = result.derived[gene]
            self.facts.setText(f"<b>{gene}</b> ({result.kind}), {made.unit}. {made.made_of}.")
            return
        if not result.shows(gene):
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

    def keyPressEvent(self, event: QKeyEvent) -> None:
        """Hide the maps while the key is held; do what a letter stands for."""
        key = event.text().upper()
        if key == HIDE_KEY:
            self.layers.set_overlay_visible(False)
        elif key in self._keys and not event.isAutoRepeat():
            self._keys[key]()
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

"""Compare dock: how well results of one slide agree, with what was measured or with each other."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari.utils.notifications import show_info
from qtpy.QtCore import QSignalBlocker, Qt
from qtpy.QtWidgets import QCheckBox, QFileDialog, QHBoxLayout, QLabel, QMenu

from napari_he2st.engine.compare import Comparison, compare
from napari_he2st.engine.figures import write_figures
from napari_he2st.engine.report import write_report, write_table
from napari_he2st.gui.comparison_map import ComparisonMap
from napari_he2st.gui.docks.base import Dock
from napari_he2st.gui.docks.domain_agreement_box import DomainAgreementBox
from napari_he2st.gui.docks.gene_scores_box import GeneScoresBox
from napari_he2st.gui.docks.judged_box import JudgedBox
from napari_he2st.gui.docks.ranking_box import RankingBox
from napari_he2st.gui.docks.second_slide_box import SecondSlideBox
from napari_he2st.gui.linked_spot import LinkedSpot
from napari_he2st.gui.side_by_side import THIRDS
from napari_he2st.gui.widgets.combo import Combo
from napari_he2st.gui.widgets.save_dialog import ask_where
from napari_he2st.gui.widgets.tabs import Tabs

if TYPE_CHECKING:
    import napari.viewer
    from anndata import AnnData

    from napari_he2st.core.progress import Control

_COMBO_PX = 70  # two with their labels fit into the narrowest dock

_TABS = (
    ("Genes", "Scores of every gene, and the chosen one spot by spot"),
    ("Ranking", "Which of the judged results agrees best, and whether that is more than chance"),
    ("Domains", "How groups of spots overlap, and how expression agrees within them"),
    ("2nd slide", "Another slide of the same tissue, such as an IHC, in the same linked views"),
)


class CompareDock(Dock):
    """Results above; what is shown on the slide; genes, ranking, domains and the second slide in tabs below."""

    def __init__(self, viewer: napari.viewer.Viewer) -> None:
        super().__init__(viewer)
        self._spot: LinkedSpot | None = None
        self._listens = True
        self._map = ComparisonMap(self.layers)
        self.choice = JudgedBox(self)
        self.choice.changed.connect(self._allow)
        self.choice.convert_wanted.connect(lambda: self._compare(convert=True))
        self.summary = QLabel(wordWrap=True, textInteractionFlags=Qt.TextInteractionFlag.TextSelectableByMouse)
        self.judged = Combo("Which of the comparisons is shown (Alt+K)")
        self.judged.activated.connect(lambda _: self.session.show_comparison(self.judged.currentData()))
        self.side_by_side = QCheckBox("Side &by side")
        self.side_by_side.setToolTip(
            "Reference, judged result and the map chosen here, with one camera; a second slide that is in register "
            "is a fourth panel. Unticking puts the viewer back (Alt+B)"
        )
        self.on_slide = QCheckBox("&On the slide")
        self.on_slide.setToolTip("The map chosen here as a layer over the slide (Alt+O)")
        self.third = Combo("What is shown as third panel, or over the slide (Alt+M)")
        for name, tip in THIRDS.items():
            self.third.add(name.capitalize(), data=name, tip=tip)
        self.genes, self.ranking = GeneScoresBox(self), RankingBox(self)
        self.domains, self.second = DomainAgreementBox(self), SecondSlideBox(self)
        self.tabs = Tabs()
        boxes = (self.genes, self.ranking, self.domains, self.second)
        for box, (title, tip) in zip(boxes, _TABS, strict=True):
            self.tabs.add(box, title, f"{tip} (Ctrl+Tab)")
        self._lay_out()
        self.genes.scatter.spot_chosen.connect(lambda row: self._spot and self._spot.locate(row))
        self.second.changed.connect(self._second_changed)
        self.side_by_side.toggled.connect(self._show_side_by_side)
        self.on_slide.toggled.connect(lambda _: self._show_map())
        self.third.activated.connect(lambda _: self._third_changed())
        self.button = self.add_button("&Compare", "Score every gene and every spot (Alt+C)", self._compare)
        self.save_button = self.add_button("&Save…", "Scores, report, figures (Alt+S)", lambda: None)
        menu = QMenu(self.save_button)
        menu.setToolTipsVisible(True)
        for text, tip, slot in (
            ("&Scores as CSV…", "One row per gene", self._save_table),
            (
                "&Report as one web page…",
                "Figures, scores and provenance in one HTML that needs no other file",
                self._save_report,
            ),
            ("&Figures as PNG and SVG…", "Every plot of the report, twice, in a folder", self._save_figures),
        ):
            action = menu.addAction(text)
            action.setToolTip(tip)
            action.triggered.connect(lambda *_, slot=slot: slot())
        self.save_button.setMenu(menu)
        session = self.session
        for signal in (session.result_added, session.result_removed, session.result_finished, session.result_moved):
            self.listen(signal, self._refill)
        self.listen(session.domains_changed, self._domains_changed)
        self.listen(session.comparison_changed, self._show_comparison)
        self.listen(session.selection_changed, self._show_gene)
        self.destroyed.connect(partial(_put_back, self._map))
        self._allow()
        self._show_comparison()

    def _lay_out(self) -> None:
        self._judged_label, third = QLabel("Loo&k at"), QLabel("&Map")
        combos, ticks = QHBoxLayout(), QHBoxLayout()
        for label, combo in ((self._judged_label, self.judged), (third, self.third)):
            label.setBuddy(combo)
            combo.setMinimumWidth(_COMBO_PX)
            combos.addWidget(label)
            combos.addWidget(combo, 1)
        for tick in (self.side_by_side, self.on_slide):
            ticks.addWidget(tick)
        ticks.addStretch(1)
        self.body.addWidget(self.choice)
        self.body.addWidget(self.summary)
        self.body.addLayout(combos)
        self.body.addLayout(ticks)
        self.body.addWidget(self.tabs, 1)

    # --- choosing and comparing

    def _refill(self, *_: Any) -> None:
        self.choice.refill()

    def _allow(self) -> None:
        self.button.setEnabled(not self.choice.problem)

    def _compare(self, *, convert: bool = False) -> None:
        reference, judged = self.choice.reference.result, self.choice.results
        if reference is None or not judged:
            return
        for widget in (self.button, self.choice.convert):
            widget.setEnabled(False)
        self.run(
            _compare_all,
            {result.name: result.adata for result in judged},
            reference.adata,
            {result.name: _titles(result.kind, reference.kind, result.title, reference.title) for result in judged},
            convert=convert,
            name="Comparing",
            on_done=partial(self._compared, reference.name),
            on_end=self._compare_ended,
        )

    def _compare_ended(self) -> None:
        self.choice.convert.setEnabled(True)
        self._allow()

    def _compared(self, reference: str, found: dict[str, Comparison]) -> None:
        there = {name: comparison for name, comparison in found.items() if name in self.session.results}
        if reference in self.session.results and there:
            self.session.set_comparisons(there, reference)

    # --- showing

    def _show_comparison(self) -> None:
        comparison, (judged, reference) = self.session.comparison, self.session.compared
        for widget in (self.side_by_side, self.on_slide, self.third, self.judged, self.tabs, self.save_button):
            widget.setEnabled(comparison is not None)
        self._pick_spots_of(comparison)
        self.judged.clear()
        for name in self.session.comparisons:
            self.judged.add(self.session.results[name].title, data=name)
        self.judged.setCurrentIndex(self.judged.findData(judged))
        for widget in (self._judged_label, self.judged):
            widget.setVisible(len(self.session.comparisons) > 1)
        self.summary.setText("" if comparison is None else _summary(comparison))
        self.genes.show_comparison(comparison)
        self.ranking.show_comparisons(self.session.comparisons, judged)
        self.domains.show_comparison(comparison)
        slide = self.session.results[reference].slide if comparison is not None else None
        self.second.show_slide(slide)
        if comparison is None:
            self.side_by_side.setChecked(False)
            self.on_slide.setChecked(False)
        elif self.side_by_side.isChecked() and self.layers.side_by_side.comparison is not comparison:
            self._show_side_by_side(True)
        self._show_gene()

    def _show_gene(self) -> None:
        comparison, gene = self.session.comparison, self.session.gene
        self._show_whether_side_by_side()
        self.genes.show_gene(gene)
        self.ranking.show_gene(gene)
        missing = comparison is not None and gene is not None and gene not in comparison.genes
        self.say(f"{gene} is not in both panels." if missing else "")
        if self.side_by_side.isChecked() and gene is not None:
            self.layers.side_by_side.show_gene(gene)
        self._show_map()

    def _domains_changed(self, _: str) -> None:
        self._show_whether_side_by_side()
        self.domains.show_comparison(self.session.comparison)

    # --- on the slide

    def _pick_spots_of(self, comparison: Comparison | None) -> None:
        """Let clicks on the picture mark a spot in the scatter, and back, for the comparison that is shown."""
        if self._spot is not None and self._spot.comparison is not comparison:
            self._spot.close()
            self._spot = None
        if comparison is not None and self._spot is None and self._listens:
            self._spot = LinkedSpot(self.layers, comparison, self.genes.mark)

    def showEvent(self, event: Any) -> None:
        """Begin to listen to clicks."""
        super().showEvent(event)
        self._listens = True
        self._pick_spots_of(self.session.comparison)

    def hideEvent(self, event: Any) -> None:
        """Leave clicks to others."""
        super().hideEvent(event)
        self._listens = False
        self._pick_spots_of(None)

    def _show_whether_side_by_side(self) -> None:
        """Other docks can end it, by showing a result or its domains."""
        with QSignalBlocker(self.side_by_side):
            self.side_by_side.setChecked(self.layers.side_by_side.comparison is not None)

    def _show_side_by_side(self, on: bool) -> None:
        comparison, view = self.session.comparison, self.layers.side_by_side
        reference = self.session.results.get(self.session.compared[1])
        slide = None if reference is None else self.layers.slide_layer(reference.slide)
        if self._spot is not None:
            self._spot.hide_ring()
        if on and comparison is not None and slide is not None:
            self._map.remove()
            view.show_third(self.third.currentData())
            view.enter(comparison, slide, self.session.gene, second=self.second.second)
            view.mark(None if self._spot is None else self._spot.row)
        else:
            view.leave()
        self._show_map()

    def _second_changed(self) -> None:
        if self.side_by_side.isChecked():
            self._show_side_by_side(True)

    def _third_changed(self) -> None:
        self.layers.side_by_side.show_third(self.third.currentData())
        self._show_map()

    def _show_map(self) -> None:
        """The chosen map over the slide, while nothing stands side by side."""
        comparison, gene = self.session.comparison, self.session.gene
        wanted = self.on_slide.isChecked() and not self.side_by_side.isChecked()
        if wanted and comparison is not None and gene in comparison.genes:
            self._map.show(comparison, self.third.currentData(), str(gene))
        elif comparison is None or not wanted:
            self._map.remove()

    # --- saving

    def _save_table(self) -> None:
        self._save("Save scores", suffix=".csv", kind="Table", write=write_table)

    def _save_report(self) -> None:
        write = partial(write_report, gene=self._gene(), ranking=self.ranking.ranking, domains=self.domains.found)
        self._save("Save report", suffix=".html", kind="Web page", write=write)

    def _save_figures(self) -> None:
        comparison = self.session.comparison
        folder = QFileDialog.getExistingDirectory(self, "Folder for the figures")
        if comparison is not None and folder:
            self.run(
                partial(write_figures, ranking=self.ranking.ranking, domains=self.domains.found, force=True),
                comparison,
                Path(folder),
                gene=self._gene(),
                name="Writing figures",
                on_done=lambda paths: self.say(f"{len(paths)} figures written to {folder}"),
            )

    def _gene(self) -> str | None:
        comparison, gene = self.session.comparison, self.session.gene
        return gene if comparison is not None and gene in comparison.genes else None

    def _save(self, title: str, *, suffix: str, kind: str, write: Callable[..., Path]) -> None:
        comparison, (predicted, measured) = self.session.comparison, self.session.compared
        target = ask_where(self, title, name=f"{predicted} against {measured}", suffix=suffix, kind=kind)
        if comparison is not None and target is not None:
            work = partial(write, comparison, target.path, force=target.force)
            self.run(work, name=f"Writing {target.path.name}", on_done=self._saved)

    def _saved(self, path: Path) -> None:
        self.say(f"Written: {path}")
        show_info(f"{path.name} is written.")


def _compare_all(
    judged: dict[str, AnnData],
    reference: AnnData,
    titles: dict[str, tuple[str, str]],
    *,
    convert: bool,
    control: Control | None = None,
) -> dict[str, Comparison]:
    return {name: compare(adata, reference, convert=convert, titles=titles[name]) for name, adata in judged.items()}


def _titles(judged: str, reference: str, judged_title: str, reference_title: str) -> tuple[str, str]:
    """What both are called on maps: their kinds where these differ."""
    return (judged, reference) if judged != reference else (judged_title, reference_title)


def _put_back(shown: ComparisonMap, *_: Any) -> None:
    shown.remove()


def _summary(comparison: Comparison) -> str:
    """Scores over all genes, which spots they rest on, and what to be careful about."""
    found = comparison.summary
    mean, median = _number(found["pcc_mean"]), _number(found["pcc_median"])
    genes = found["genes"] - found["genes_without_pcc"]
    interval = ""
    if found["pcc_mean_low"] is not None:
        interval = f" [{found['pcc_mean_low']:.2f}, {found['pcc_mean_high']:.2f}]"
    by = {"area": "gathered by area", "nearest spot": "nearest spots paired"}[found["matched_by"]]
    unmatched = ", ".join(
        f"{found[f'spots_{side}_unmatched']:,} of {found[f'spots_{side}']:,} {title}"
        for side, title in zip(("measured", "predicted"), reversed(comparison.titles), strict=True)
    )
    lines = [
        f"<b>Pearson: mean {mean}{interval}, median {median}</b> over {genes:,} genes, "
        f"{found['spots_matched']:,} spots ({by}; without a partner {unmatched}). For research use only."
    ]
    if found["genes_constant"]:
        lines.append(f"Left out, since they do not vary on one side: {found['genes_constant']:,} genes.")
    return "<br>".join([*lines, *(f"<b>Caution:</b> {warning}" for warning in comparison.warnings)])


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"

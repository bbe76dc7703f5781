"""Domains dock: group the spots of a result, name the groups, see their marker genes."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QSignalBlocker
from qtpy.QtWidgets import QCheckBox, QFormLayout, QLabel, QSpinBox
from superqt import QCollapsible

from napari_he2st.analysis.domains import DOMAIN_METHODS
from napari_he2st.analysis.metrics.ari import ari
from napari_he2st.analysis.metrics.labels import paired_labels
from napari_he2st.analysis.metrics.nmi import nmi
from napari_he2st.core import keys
from napari_he2st.core.errors import He2stError
from napari_he2st.core.types import Domains
from napari_he2st.engine.segment import markers, segment
from napari_he2st.engine.session import Result
from napari_he2st.gui.docks.base import Dock
from napari_he2st.gui.widgets.combo import Combo
from napari_he2st.gui.widgets.domain_legend import DomainLegend
from napari_he2st.gui.widgets.gene_table import Column, GeneTable
from napari_he2st.gui.widgets.options_form import OptionsForm
from napari_he2st.gui.widgets.result_chooser import ResultChooser
from napari_he2st.gui.worker import tell

if TYPE_CHECKING:
    import napari.viewer
    import pandas as pd

_DEFAULT = "leiden"  # of engine.segment too
_EMPTY = "Nothing to group yet: predict a slide in the Predict dock, or load measured expression in the Slide dock."


class DomainsDock(Dock):
    """Method and options above, legend and marker genes below."""

    def __init__(self, viewer: napari.viewer.Viewer) -> None:
        super().__init__(viewer)
        self._shown_result: str | None = None
        self._markers: tuple[Domains, pd.DataFrame] | None = None
        self.chooser = ResultChooser(self.session, "The result whose spots are grouped")
        self.chooser.result_chosen.connect(lambda name: self.session.select(result=name))
        self.note = QLabel(wordWrap=True)
        self.method = Combo("How spots are grouped")
        for entry in DOMAIN_METHODS:
            self.method.add(entry.name, tip=entry.description)
        self.method.setCurrentText(_DEFAULT)
        self.n_domains = QSpinBox(minimum=0, maximum=100, specialValueText="automatic")
        self.n_domains.setToolTip("How many domains; automatic lets the method decide")
        self.seed = QSpinBox(minimum=0, maximum=999_999)
        self.seed.setToolTip("The same seed gives the same domains")
        self.options = OptionsForm()
        more = QCollapsible("More options")
        more.addWidget(self.options)
        self.legend = DomainLegend()
        self.legend.renamed.connect(self._rename)
        self.legend.domain_chosen.connect(lambda _: self._show_markers())
        self.over = QCheckBox("Show domains over the map")
        self.over.setToolTip("A gene that is chosen afterwards is shown without them")
        self.over.toggled.connect(self._show_over)
        self.agreement = QLabel(wordWrap=True)
        self.table = GeneTable()
        self.table.gene_chosen.connect(lambda gene: self.session.select(gene=gene))
        form = QFormLayout()
        form.addRow("Method", self.method)
        form.addRow("Domains", self.n_domains)
        form.addRow("Seed", self.seed)
        self.body.addWidget(self.chooser)
        self.body.addWidget(self.note)
        self.body.addLayout(form)
        title = QLabel("Marker genes of the chosen domain")
        for widget in (more, self.legend, self.over, self.agreement, title):
            self.body.addWidget(widget)
        self.body.addWidget(self.table, 1)
        self.button = self.add_button("Find domains", "Group the spots by their expression", self._find)
        self.method.currentIndexChanged.connect(lambda _: self._show_options())
        self.listen(self.session.result_added, self.chooser.refill)
        self.listen(self.session.result_removed, self._refill)
        self.listen(self.session.result_finished, self._refresh)
        self.listen(self.session.selection_changed, self._selection_changed)
        self.listen(self.session.domains_changed, self._refresh)
        self._show_options()
        self._selection_changed()

    # --- what the session says

    def _refill(self) -> None:
        self.chooser.refill()
        self._selection_changed()

    def _selection_changed(self) -> None:
        self.table.choose(self.session.gene)
        if self.session.result is None or self.session.result != self._shown_result:
            self._refresh()
        self._show_whether_over()

    def _refresh(self) -> None:
        result = self.session.current_result
        self._shown_result = None if result is None else result.name
        self.chooser.choose(self._shown_result)
        self.button.setEnabled(result is not None and result.adata is not None)
        self.note.setText(_note(result))
        domains = None if result is None else self.session.domains.get(result.name)
        self.legend.show_domains(domains, None if result is None else result.grid.cell_um2)
        self.agreement.setText("" if result is None or domains is None else _agreement(result, domains))
        self.agreement.setVisible(bool(self.agreement.text()))
        if domains is None or result is None or result.adata is None:
            self._markers = None
        elif self._markers is None or self._markers[0].labels is not domains.labels:
            self._markers = None
            self.run(
                markers, result.adata, domains, name="Finding marker genes", on_done=lambda t: self._keep(domains, t)
            )
        self._show_markers()
        self._show_whether_over()

    def _show_whether_over(self) -> None:
        layer = self.layers.domains_layer(self._shown_result or "")
        self.over.setEnabled(layer is not None)
        with QSignalBlocker(self.over):
            self.over.setChecked(layer is not None and layer.visible)

    def _show_over(self, on: bool) -> None:
        layer = self.layers.domains_layer(self._shown_result or "")
        if layer is not None:
            layer.visible = on

    # --- finding

    def _show_options(self) -> None:
        entry = DOMAIN_METHODS[self.method.currentText()]
        own = {name: option for name, option in entry.options.items() if name not in ("n_domains", "seed")}
        self.options.show_options(own, entry.function.__doc__)

    def _find(self) -> None:
        result = self.session.current_result
        if result is None or result.adata is None:
            return
        try:
            options: dict[str, Any] = self.options.values()
        except He2stError as error:
            tell(error, "Finding domains")
            return
        self.button.setEnabled(False)
        method, n_domains = self.method.currentText(), self.n_domains.value() or None
        self.run(
            partial(segment, result.adata, method, n_domains=n_domains, seed=self.seed.value(), **options),
            name="Finding domains",
            on_done=lambda domains: self._found(result.name, domains),
            on_end=lambda: self.button.setEnabled(True),
        )

    def _found(self, result: str, domains: Domains) -> None:
        if result in self.session.results:  # it may have been removed meanwhile
            self.session.set_domains(result, domains)
            self.say(f"{domains.n_domains} domains in {self.session.results[result].title}.")

    # --- legend and markers

    def _rename(self, label: int, name: str) -> None:
        try:
            self.session.rename_domain(self._shown_result or "", label, name)
        except He2stError as error:
            tell(error, "Renaming a domain")
            self._refresh()

    def _keep(self, domains: Domains, table: pd.DataFrame) -> None:
        self._markers = (domains, table)
        self._show_markers()

    def _show_markers(self) -> None:
        label = self.legend.currentRow()
        if self._markers is None or label < 0:
            self.table.genes.set_columns([])
            return
        table = self._markers[1]
        own = table[table["domain"] == label]
        columns = [Column("gene", own["gene"].to_numpy(dtype=object), "{}", "Gene symbol")]
        columns += [Column(name, own[name].to_numpy(), *how) for name, how in _MARKER_COLUMNS.items()]
        self.table.genes.set_columns(columns)
        self.table.choose(self.session.gene)


_MARKER_COLUMNS = {
    "score": ("{:.1f}", "Welch's t of the domain against all other spots"),
    "difference": ("{:.2f}", "Mean in the domain minus mean elsewhere"),
    "p_adjusted": ("{:.1e}", "Benjamini–Hochberg; treats spots as independent, which they are not"),
}


def _note(result: Result | None) -> str:
    if result is None:
        return _EMPTY
    text = keys.RESEARCH_USE if result.kind == "predicted" else "Measured expression."
    return text if result.adata is not None else f"{text} Domains can be found once the prediction is complete."


def _agreement(result: Result, domains: Domains) -> str:
    """Agreement with a pathologist's labels, if the result has any."""
    if result.adata is None or keys.LABEL not in result.adata.obs:
        return ""
    found, given = domains.labels, result.adata.obs[keys.LABEL]
    n = len(paired_labels(found, given)[0])
    scores = f"ARI {ari(found, given):.2f}, NMI {nmi(found, given):.2f} over {n:,} spots"
    return f"Agreement with the given labels: {scores}." if n else ""

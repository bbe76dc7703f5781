"""The part of the Domains dock that shows what domains are like: marker genes, dot plot, map of alike spots."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from qtpy.QtWidgets import QTabWidget, QVBoxLayout, QWidget

from napari_he2st.core.progress import Control
from napari_he2st.core.types import Domains
from napari_he2st.engine.segment import alike, markers, neighbour_markers, profile
from napari_he2st.gui.colours import domain_colours
from napari_he2st.gui.widgets.combo import Combo
from napari_he2st.gui.widgets.dot_plot import DotPlot
from napari_he2st.gui.widgets.gene_model import Column
from napari_he2st.gui.widgets.gene_table import GeneTable
from napari_he2st.gui.widgets.spot_plot import SpotPlot

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    from napari_he2st.engine.session_items import Result
    from napari_he2st.gui.docks.base import Dock

_COLUMNS = {
    "score": ("{:.1f}", "Welch's t, or Wilcoxon's z"),
    "difference": ("{:.2f}", "Mean in the domain minus mean elsewhere"),
    "fold_change": ("{:.2f}", "Exponential of the difference of mean log counts"),
    "p_adjusted": ("{:.1e}", "Benjamini–Hochberg; treats spots as independent, which they are not"),
}
_AROUND = "the domains around it (SpaGCN)"
_DOTS = 24  # genes at most, shared by the domains
_BESIDE = "#808080"


class DomainViews(QTabWidget):
    """Three views of the domains of one result, each made when it is first looked at.

    Parameters
    ----------
    dock
        The Domains dock; its work is run through it.
    """

    def __init__(self, dock: Dock) -> None:
        super().__init__()
        self._dock, self._session = dock, dock.session
        self._result: Result | None = None
        self._domains: Domains | None = None
        self._label = 0
        self._markers: tuple[NDArray, pd.DataFrame] | None = None
        self._layout: tuple[str, Any, NDArray] | None = None
        self._drawn: tuple[Domains, pd.DataFrame] | None = None
        self.against = Combo("What a domain's genes have to be higher than")
        self.against.add("all other spots", tip="Welch's t-test")
        self.against.add(_AROUND, tip="SpaGCN's spatially variable genes: Wilcoxon's test, detected in most spots")
        self.against.currentIndexChanged.connect(lambda _: self._list_genes())
        self.table = GeneTable()
        self.dots = DotPlot()
        self.map = SpotPlot()
        for view in (self.table, self.dots):
            view.gene_chosen.connect(lambda gene: self._session.select(gene=gene))
        self.map.spots_chosen.connect(self._session.choose_spots)
        first = QWidget()
        column = QVBoxLayout(first)
        column.setContentsMargins(0, 0, 0, 0)
        column.addWidget(self.against)
        column.addWidget(self.table)
        self.addTab(first, "Marker genes")
        self.addTab(self.dots, "Dot plot")
        self.addTab(self.map, "Alike spots")
        self.setTabToolTip(0, "Genes that are higher in the chosen domain")
        self.setTabToolTip(1, "The best marker genes of every domain")
        self.setTabToolTip(2, "Spots by what they are like (UMAP): a lasso there rings them on the slide, and back")
        self.currentChanged.connect(lambda _: self._update())
        dock.listen(self._session.spots_chosen, self._ring)

    def show_domains(self, result: Result | None, domains: Domains | None) -> None:
        """Show the domains of a result, or nothing."""
        usable = result is not None and result.adata is not None
        self._result, self._domains = (result, domains) if usable else (None, None)
        self.setVisible(self._domains is not None)
        if result is None or domains is None or not usable:
            self._markers = None
            self.table.genes.set_columns([])
            return
        if self._markers is None or self._markers[0] is not domains.labels:
            self._markers = None
            done = partial(self._keep_markers, domains)
            self._dock.run(markers, result.adata, domains, name="Finding marker genes", on_done=done)
        self._update()

    def show_domain(self, label: int) -> None:
        """List the genes of another domain."""
        self._label = label
        self._list_genes()

    def _update(self) -> None:
        """Make the view that is in front."""
        self._list_genes()
        if self._domains is not None and self.currentWidget() is self.dots:
            self._draw_dots()
        if self._domains is not None and self.currentWidget() is self.map:
            self._draw_map()

    # --- marker genes

    def _keep_markers(self, domains: Domains, table: pd.DataFrame) -> None:
        self._markers = (domains.labels, table)
        self._update()

    def _list_genes(self) -> None:
        result, domains = self._result, self._domains
        self.table.genes.set_columns([])
        if result is None or domains is None or not 0 <= self._label < domains.n_domains:
            return
        if self.against.currentText() == _AROUND:
            done = partial(self._fill, domains, self._label)
            self._dock.run(
                neighbour_markers, result.adata, domains, self._label, name="Comparing neighbours", on_done=done
            )
        elif self._markers is not None:
            table = self._markers[1]
            self._fill(domains, self._label, table[table["domain"] == self._label])

    def _fill(self, domains: Domains, label: int, found: pd.DataFrame) -> None:
        if domains is not self._domains or label != self._label:
            return
        columns = [Column("gene", found["gene"].to_numpy(dtype=object), "{}", "Gene symbol")]
        columns += [Column(name, found[name].to_numpy(), *how) for name, how in _COLUMNS.items() if name in found]
        self.table.genes.set_columns(columns)
        self.table.choose(self._session.gene)

    # --- dot plot

    def _draw_dots(self) -> None:
        result, domains = self._result, self._domains
        if result is None or domains is None or self._markers is None:
            return
        table = self._markers[1]
        if self._drawn is not None and self._drawn[0] is domains and self._drawn[1] is table:
            return
        self._drawn = domains, table
        each = max(_DOTS // max(domains.n_domains, 1), 1)
        genes = list(dict.fromkeys(table.groupby("domain").head(each)["gene"]))
        done = partial(self._show_dots, domains, genes)
        self._dock.run(profile, result.adata, domains, genes, name="Averaging marker genes", quiet=True, on_done=done)

    def _show_dots(self, domains: Domains, genes: list[str], found: tuple[NDArray, NDArray]) -> None:
        if domains is self._domains:
            self.dots.show_genes(genes, domains.titles, *found)

    # --- map of alike spots

    def _draw_map(self) -> None:
        result, domains = self._result, self._domains
        if result is None or domains is None:
            return
        if self._layout is not None and self._layout[0] == result.name and self._layout[1] is domains.embedding:
            colours = [*domain_colours(domains), _BESIDE]  # label −1 takes the last
            self.map.show_spots(self._layout[2], [colours[label] for label in domains.labels])
            self._ring()
            return
        self.map.clear_spots()
        done = partial(self._keep_layout, result.name, domains)
        self._dock.run(alike, result.adata, domains, name="Laying out spots", control=Control(), on_done=done)

    def _keep_layout(self, result: str, domains: Domains, layout: NDArray) -> None:
        self._layout = (result, domains.embedding, layout)
        self._update()

    def _ring(self) -> None:
        self.map.show_chosen(self._session.spots)

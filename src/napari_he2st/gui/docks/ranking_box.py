"""The part of the Compare dock that ranks the results that were compared, and shows the spread of their scores."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from qtpy.QtWidgets import QLabel, QVBoxLayout, QWidget

from napari_he2st.engine.compare import Comparison
from napari_he2st.engine.ranking import Ranking, rank
from napari_he2st.gui.widgets.distribution import Distribution
from napari_he2st.gui.widgets.gene_model import Column
from napari_he2st.gui.widgets.gene_table import GeneTable

if TYPE_CHECKING:
    from napari_he2st.gui.docks.base import Dock

_COLUMNS = {
    "pcc_mean": ("r mean", "{:.3f}", "Mean over genes of the Pearson correlation over spots; higher is better"),
    "pcc_low": ("from", "{:.3f}", "Lower end of its 95 % interval, by resampling squares of tissue"),
    "pcc_high": ("to", "{:.3f}", "Upper end of its 95 % interval"),
    "pcc_median": ("median", "{:.3f}", "Median over genes"),
    "wins": ("best at", "{:.0%}", "Share of genes at which it agrees best"),
    "p": ("p", "{:.1e}", "Wilcoxon's signed-rank test over genes against the first, corrected by Holm"),
}
_TEST = "Genes are not independent of each other: read small p values with care."


class RankingBox(QWidget):
    """Table of results, the best first, above the distribution of their correlations.

    Parameters
    ----------
    dock
        The Compare dock; its work is run through it.
    """

    def __init__(self, dock: Dock) -> None:
        super().__init__()
        self._dock, self._session = dock, dock.session
        self._of: dict[str, Comparison] = {}
        self.ranking: Ranking | None = None
        self.text = QLabel(wordWrap=True)
        self.table = GeneTable()
        self.table.setAccessibleName("Ranking of results")
        self.table.setToolTip("The best first; the chosen one is shown. Up and Down move")
        self.table.gene_chosen.connect(self._session.show_comparison)
        self.distribution = Distribution()
        self.distribution.gene_chosen.connect(lambda gene: self._session.select(gene=gene))
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        for widget in (self.text, self.table, self.distribution):
            layout.addWidget(widget)

    def show_comparisons(self, comparisons: dict[str, Comparison], judged: str) -> None:
        """Rank comparisons with one reference in a thread; the judged one is chosen in the table."""
        self.table.choose(judged or None)
        if comparisons == self._of:
            return
        self._of, self.ranking = dict(comparisons), None
        self.table.genes.set_columns([])
        self.distribution.show_scores([], [], np.empty((0, 0)))
        self.text.setText("")
        if comparisons:
            done = partial(self._show, self._of)
            self._dock.run(rank, self._of, name="Ranking", quiet=True, on_done=done)

    def show_gene(self, gene: str | None) -> None:
        """Mark a gene in the distribution."""
        self.distribution.show_gene(gene)

    def _show(self, of: dict[str, Comparison], ranking: Ranking) -> None:
        if of is not self._of:
            return
        self.ranking = ranking
        table = ranking.table
        columns = [Column("result", table["name"].to_numpy(dtype=object), "{}", "Name of the result")]
        columns += [Column(title, table[name].to_numpy(), *how) for name, (title, *how) in _COLUMNS.items()]
        self.table.genes.set_columns(columns)
        self.table.choose(self._session.compared[0] or None)
        self.distribution.show_scores(ranking.names, ranking.genes, ranking.pcc)
        self.distribution.show_gene(self._session.gene)
        self.text.setText(" ".join([_verdict(ranking), *(f"<b>Caution:</b> {said}" for said in ranking.warnings)]))


def _verdict(ranking: Ranking) -> str:
    said = f"{len(ranking.genes):,} genes that vary, {ranking.spots:,} spots."
    if len(ranking.names) < 2:
        return f"{said} Tick a second result above to rank them."
    first, second = ranking.names[:2]
    p = float(ranking.table["p"].iloc[1])
    if p < 0.05:
        return f"{said} <b>{first}</b> agrees better than {second} (p = {p:.1e}). {_TEST}"
    return f"{said} <b>{first}</b> and {second} cannot be told apart (p = {p:.2f}). {_TEST}"

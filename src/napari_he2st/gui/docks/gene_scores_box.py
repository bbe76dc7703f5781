"""The part of the Compare dock that lists the scores of all genes, and shows one of them spot by spot."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import Qt
from qtpy.QtGui import QShortcut
from qtpy.QtWidgets import QLabel, QLineEdit, QSizePolicy, QVBoxLayout, QWidget
from superqt.utils import qdebounced

from napari_he2st.analysis.metrics import METRICS
from napari_he2st.engine.compare import Comparison
from napari_he2st.gui.widgets.gene_model import Column
from napari_he2st.gui.widgets.gene_table import GeneTable
from napari_he2st.gui.widgets.scatter import Scatter

if TYPE_CHECKING:
    from napari_he2st.gui.docks.base import Dock

_FIRST = ("pcc", "pcc_low", "pcc_high", "spearman", "n")
_TITLES = {"pcc_low": "from", "pcc_high": "to"}
_BETTER = {"higher": "higher is better", "lower": "lower is better", None: "descriptive"}
_TIPS = {
    "n": "Spots where both sides are known",
    "pcc_low": "Lower end of the 95 % interval of pcc, by resampling squares of tissue",
    "pcc_high": "Upper end of the 95 % interval of pcc",
    "moran_predicted": "Moran's I of the judged map: 1 smooth, 0 random",
    "moran_measured": "Moran's I of the reference's map: 1 smooth, 0 random",
    "held_out_pcc": "Pearson correlation on sections that the predictor had not seen",
    **{entry.name: f"{entry.description}; {_BETTER[entry.facts['better']]}" for entry in METRICS},
}
_FIND_KEY = "Ctrl+F"


class GeneScoresBox(QWidget):
    """Search, table and scatter.

    Parameters
    ----------
    dock
        The Compare dock.
    """

    def __init__(self, dock: Dock) -> None:
        super().__init__()
        self._session = dock.session
        self._comparison: Comparison | None = None
        self.search = QLineEdit(placeholderText="Find genes", clearButtonEnabled=True)
        self.search.setToolTip(f"Part of a name; ^ asks for its beginning; commas separate several ({_FIND_KEY})")
        self.table = GeneTable()
        self.table.setToolTip("Scores of each gene; Up and Down flip through the maps, a click on a head sorts")
        self.table.setSizePolicy(
            QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Ignored
        )  # so that the scatter is seen
        self.table.sortByColumn(1, Qt.SortOrder.DescendingOrder)
        self.search.textChanged.connect(qdebounced(self.table.genes.set_filter, timeout=40))
        self.table.gene_chosen.connect(lambda gene: self._session.select(gene=gene))
        self.scatter = Scatter()
        self.spot = QLabel()
        self.spot.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.search)
        layout.addWidget(self.table, 1)
        layout.addWidget(self.scatter)
        layout.addWidget(self.spot)
        find = QShortcut(_FIND_KEY, self)
        find.setContext(Qt.ShortcutContext.WidgetWithChildrenShortcut)
        find.activated.connect(self.search.setFocus)

    def show_comparison(self, comparison: Comparison | None) -> None:
        """List the scores of a comparison, or nothing."""
        if comparison is not self._comparison:
            self._comparison = comparison
            self.table.genes.set_columns([] if comparison is None else _columns(comparison))
            self.mark(None)

    def show_gene(self, gene: str | None) -> None:
        """Show a gene spot by spot."""
        comparison = self._comparison
        self.table.choose(gene)
        if comparison is None or gene is None or gene not in comparison.genes:
            self.scatter.clear_points()
        else:
            column, marked = comparison.genes.index(gene), self.scatter.marked
            self.scatter.show_gene(
                gene,
                comparison.measured[:, column],
                comparison.predicted[:, column],
                r=float(comparison.table["pcc"].iloc[column]),
                unit=comparison.unit,
                line=comparison.line(gene),
                titles=comparison.titles,
            )
            self.scatter.mark(marked)
        self._say()

    def mark(self, row: int | None) -> None:
        """Mark a common spot in the scatter, and say what is known of it."""
        self.scatter.mark(row)
        self._say()

    def _say(self) -> None:
        comparison, row, gene = self._comparison, self.scatter.marked, self._session.gene
        self.spot.setVisible(comparison is not None and row is not None)
        if comparison is None or row is None:
            return
        name = comparison.grid.names[row] if comparison.grid.names is not None else str(row)
        said = f"{name}: r over genes {comparison.spots['pcc'].iloc[row]:.2f}"
        if gene in comparison.genes:
            column = comparison.column(str(gene))
            predicted, measured = comparison.predicted[row, column], comparison.measured[row, column]
            said += f"; {comparison.titles[1]} {measured:.2f}, {comparison.titles[0]} {predicted:.2f}"
        self.spot.setText(said)
        self.spot.setToolTip(f"Spot {said}")


def _columns(comparison: Comparison) -> list[Column]:
    table = comparison.table
    columns = [Column("gene", table["gene"].to_numpy(dtype=object), "{}", "Gene symbol")]
    for name in (*_FIRST, *table.columns.drop(["gene", "constant", *_FIRST])):
        text = "{:,}" if name == "n" else "{:.3f}"
        title = _TITLES.get(name, name.replace("_", " "))
        columns.append(Column(title, table[name].to_numpy(), text, _TIPS.get(name, "")))
    return columns

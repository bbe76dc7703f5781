"""The part of the Compare dock about domains: how groupings overlap, and how expression agrees within them."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtWidgets import QFormLayout, QLabel, QVBoxLayout, QWidget

from napari_he2st.engine.compare import Comparison
from napari_he2st.engine.domain_agreement import DomainAgreement, agree_on_domains, group_columns
from napari_he2st.gui.widgets.combo import Combo
from napari_he2st.gui.widgets.gene_model import Column
from napari_he2st.gui.widgets.gene_table import GeneTable
from napari_he2st.gui.widgets.heat_map import HeatMap

if TYPE_CHECKING:
    from napari_he2st.engine.session_items import Result
    from napari_he2st.gui.docks.base import Dock

_NONE = "none"
_COLUMNS = {
    "n": ("spots", "{:,}", "Common spots of the group"),
    "pcc": ("r in group", "{:.3f}", "Mean over genes of the correlation over the spots of the group"),
    "profile_pcc": ("r of profile", "{:.3f}", "Correlation over genes of the group's mean expression"),
    "mse": ("mse", "{:.3f}", "Mean squared error in the group"),
}


class DomainAgreementBox(QWidget):
    """Two choices of groups, their scores, their contingency, and a table per group.

    Parameters
    ----------
    dock
        The Compare dock; its work is run through it.
    """

    def __init__(self, dock: Dock) -> None:
        super().__init__()
        self._dock, self._session = dock, dock.session
        self._comparison: Comparison | None = None
        self.found: DomainAgreement | None = None
        self.judged = Combo("Groups of the result that is judged, such as its domains (Alt+D)")
        self.reference = Combo("Groups of the reference, such as a pathologist's labels (Alt+T)")
        self.text = QLabel(wordWrap=True)
        self.heat_map = HeatMap()
        self.heat_map.cell_chosen.connect(self._ring)
        self.table = GeneTable()
        self.table.setAccessibleName("Agreement per domain")
        self.table.setToolTip("Agreement of expression in each group of the reference; choosing one rings its spots")
        self.table.gene_chosen.connect(self._ring_group)
        form = QFormLayout()
        for text, combo in (("Ju&dged", self.judged), ("&To", self.reference)):
            label = QLabel(text)
            label.setBuddy(combo)
            form.addRow(label, combo)
            combo.activated.connect(lambda _: self.compare())
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addLayout(form)
        for widget in (self.text, self.heat_map, self.table):
            layout.addWidget(widget)

    def show_comparison(self, comparison: Comparison | None) -> None:
        """Offer the groups of both sides of a comparison, and compare the first of them."""
        self._comparison = comparison
        for combo, result in zip((self.judged, self.reference), self._results(), strict=True):
            chosen = combo.currentText()
            names = [] if result is None or result.adata is None else group_columns(result.adata)
            combo.clear()
            for name in (*names, _NONE):
                combo.add(name)
            combo.setCurrentText(chosen if chosen in names else (names or [_NONE])[0])
        self.compare()

    def compare(self) -> None:
        """Compare the chosen groups in a thread."""
        comparison, given = self._comparison, [self._labels(0), self._labels(1)]
        self.found = None
        self.heat_map.setVisible(False)
        self.table.setVisible(False)
        if comparison is None:
            self.text.setText("")
        elif given[0] is None and given[1] is None:
            self.text.setText("Neither side has groups of spots yet: find domains in the Domains dock, then come back.")
        else:
            done = partial(self._show, comparison)
            self._dock.run(agree_on_domains, comparison, *given, name="Comparing domains", quiet=True, on_done=done)

    def _results(self) -> tuple[Result | None, Result | None]:
        if self._comparison is None:
            return None, None
        judged, reference = self._session.compared
        return self._session.results.get(judged), self._session.results.get(reference)

    def _labels(self, side: int) -> Any:
        result, name = self._results()[side], (self.judged, self.reference)[side].currentText()
        if result is None or result.adata is None or name not in result.adata.obs:
            return None
        return np.asarray(result.adata.obs[name], dtype=object)

    def _show(self, comparison: Comparison, found: DomainAgreement) -> None:
        if comparison is not self._comparison:
            return
        self.found = found
        said = "Only one side has groups; expression is compared within them."
        if found.scores is not None:
            s = found.scores
            said = f"<b>ARI {s.ari:.2f}, NMI {s.nmi:.2f}</b> over {s.n:,} spots; ARI by chance at most p = {s.p:.3f}."
        self.text.setText(said)
        self.heat_map.setVisible(found.counts.size > 0)
        self.heat_map.show_counts(found.measured, found.predicted, found.counts)
        columns = [Column("group", found.table["group"].to_numpy(dtype=object), "{}", "Group of spots")]
        columns += [Column(title, found.table[name].to_numpy(), *how) for name, (title, *how) in _COLUMNS.items()]
        self.table.genes.set_columns(columns)
        self.table.setVisible(True)

    # --- back to the slide

    def _ring(self, row: int, column: int) -> None:
        if self.found is not None:
            self._choose(reference=self.found.measured[row], judged=self.found.predicted[column])

    def _ring_group(self, group: str) -> None:
        if self._labels(1) is not None:
            self._choose(reference=group)
        else:
            self._choose(judged=group)

    def _choose(self, *, reference: str | None = None, judged: str | None = None) -> None:
        """Choose the spots of the current result that lie in these groups."""
        comparison, current = self._comparison, self._session.current_result
        results = self._results()
        if comparison is None or current not in results:
            self._dock.say("Show one of the two results to see these spots on the slide.")
            return
        side = results.index(current)
        inside = np.ones(len(comparison.grid), dtype=bool)
        for number, name in ((0, judged), (1, reference)):
            labels = self._labels(number)
            if name is not None and labels is not None:
                inside &= comparison.matching.labels(number, labels).astype(str) == name
        self._session.choose_spots(comparison.matching.members(side, inside))

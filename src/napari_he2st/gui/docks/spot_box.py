"""A pinned spot in the Genes dock: a click chooses it, its highest genes are listed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from qtpy.QtCore import Qt
from qtpy.QtGui import QPalette
from qtpy.QtWidgets import QLabel, QPushButton, QVBoxLayout, QWidget
from scipy.sparse import issparse

from napari_he2st.gui.picking import SpotPicker
from napari_he2st.gui.under_cursor import describe

if TYPE_CHECKING:
    from napari_he2st.engine.session_items import Result
    from napari_he2st.gui.docks.base import Dock
    from napari_he2st.gui.docks.gene_list_box import GeneListBox

SHOWN = 8
_ASK = "Click a spot on the slide."


class SpotBox(QWidget):
    """Lists the genes of a spot, by their value and by how far they are above their mean; a click shows one.

    Parameters
    ----------
    dock
        Whose session and viewer are meant.
    genes
        The list, which knows the means of genes.

    Attributes
    ----------
    row
        The pinned spot, or None.
    """

    def __init__(self, dock: Dock, genes: GeneListBox) -> None:
        super().__init__()
        self._session, self._viewer, self._list = dock.session, dock.viewer, genes
        self._picker: SpotPicker | None = None
        self._result: Result | None = None
        self.row: int | None = None
        self.text = QLabel(_ASK, wordWrap=True, textFormat=Qt.TextFormat.RichText)
        self.text.setTextInteractionFlags(
            Qt.TextInteractionFlag.LinksAccessibleByMouse | Qt.TextInteractionFlag.LinksAccessibleByKeyboard
        )
        self.text.setToolTip("Genes of the pinned spot; a click, or Tab and Return, shows the map of one")
        self.text.linkActivated.connect(lambda gene: self._session.select(gene=gene))
        self.unpin = QPushButton("&Unpin")
        self.unpin.setToolTip("Forget the spot (Alt+U)")
        self.unpin.clicked.connect(lambda _: self._forget())
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.text)
        layout.addWidget(self.unpin)
        self.destroyed.connect(self._listen_no_more)
        self._forget()

    def listen(self, on: bool) -> None:
        """Take clicks on the slide, or leave them alone."""
        self._listen_no_more()
        self._forget()
        self._result = self._session.current_result if on else None
        if self._result is not None:
            self._picker = SpotPicker(self._viewer, self._result.grid, self.pin)

    def pin(self, row: int) -> None:
        """Show a spot of the current result."""
        self.row = row
        self.follow()

    def follow(self) -> None:
        """Show the pinned spot of the current result."""
        result = self._session.current_result
        if self._picker is not None and result is not self._result:
            self.listen(True)
            return
        if result is None or self.row is None:
            return
        gene = self._session.gene
        lines = [describe(self._session, result, [gene], self.row)] if gene and result.shows(gene) else []
        values = values_of_spot(result, self.row)
        lines.append(f"<b>Highest</b>: {self._links(result, values, values)}")
        if self._list.summary is not None:
            above = values - self._list.summary.mean
            lines.append(f"<b>Furthest above their mean</b>: {self._links(result, above, values)}")
        x, y = result.grid.xy[self.row]
        self.text.setText(f"Spot {self.row} at pixel ({x:.0f}, {y:.0f})<br>" + "<br>".join(lines))
        self.unpin.setVisible(True)

    def _links(self, result: Result, order: NDArray[np.float64], values: NDArray[np.float64]) -> str:
        """The genes with the highest ``order``, each a link, with their values."""
        known = np.flatnonzero(np.isfinite(order))
        best = known[np.argsort(-order[known], kind="stable")[:SHOWN]]
        ink = self.palette().color(QPalette.ColorRole.WindowText).name()  # blue links cannot be read on a dark theme
        names = (result.genes[i] for i in best)
        links = (f'<a style="color: {ink}" href="{gene}">{gene}</a>' for gene in names)
        return ", ".join(f"{link} {value:.2f}" for link, value in zip(links, values[best], strict=True))

    def _forget(self) -> None:
        self.row = None
        self.text.setText(_ASK)
        self.unpin.setVisible(False)
        if self._picker is not None:
            self._picker.clear()

    def _listen_no_more(self, *_: object) -> None:
        if self._picker is not None:
            self._picker.close()
            self._picker = None


def values_of_spot(result: Result, row: int) -> NDArray[np.float64]:
    """Values of all genes in one spot, shape (genes,)."""
    values = result.values
    if issparse(values) and result.adata is not None and issparse(result.adata.X):
        values = result.adata.X  # by rows, while the values are kept by columns
    found = values[[row]] if issparse(values) else values[row]
    return np.asarray(found.toarray() if issparse(found) else found, dtype=np.float64).ravel()

"""Signatures and ratios in the Genes dock: maps made of several genes."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from qtpy.QtWidgets import QFileDialog, QGridLayout, QLabel, QLineEdit, QPushButton, QToolButton, QWidget

from napari_he2st.core.errors import GeneError
from napari_he2st.core.progress import Control
from napari_he2st.data.truth.gene_lists import GeneSet, builtin_sets, parse_genes, parse_gmt
from napari_he2st.engine.session_items import Derived, Result
from napari_he2st.engine.signatures import ratio, score
from napari_he2st.gui.gene_list_dialog import text_of
from napari_he2st.gui.widgets.combo import SearchCombo
from napari_he2st.gui.worker import tell

if TYPE_CHECKING:
    from napari_he2st.gui.docks.base import Dock
    from napari_he2st.gui.docks.gene_list_box import GeneListBox

_OWN = "Own genes"


class SignatureBox(QWidget):
    """Chooses a set of genes and scores it, or divides one gene by another; the map is listed among the genes.

    Parameters
    ----------
    dock
        Whose session is meant; it runs the work.
    genes
        The list, which knows the means of genes and the list that was pasted last.
    """

    def __init__(self, dock: Dock, genes: GeneListBox) -> None:
        super().__init__()
        self._dock, self._session, self._list = dock, dock.session, genes
        self.sets: dict[str, GeneSet] = dict(builtin_sets())
        self.choice = SearchCombo("A set of genes: built in, of a GMT file, or your own")
        self.gmt = QToolButton(text="GMT…")
        self.gmt.setToolTip("Add the sets of a GMT file, such as those of MSigDB")
        self.gmt.clicked.connect(lambda _: self._ask_gmt())
        self.genes = QLineEdit(placeholderText="Genes of the signature")
        self.genes.setToolTip("The genes that are scored; change or paste them as you like")
        self.genes.textEdited.connect(lambda _: self.choice.setCurrentIndex(0))
        self.score = QPushButton("Sc&ore")
        self.score.setToolTip("Mean of these genes minus that of control genes which are about as high (Alt+O)")
        self.score.clicked.connect(lambda _: self.make_score())
        self.genes.returnPressed.connect(self.make_score)
        self.source = QLabel(wordWrap=True)
        self.above, self.below = (QLineEdit(placeholderText=text) for text in ("current gene", "other gene"))
        self.above.setToolTip("The gene above; empty stands for the current one")
        self.below.setToolTip("The gene below")
        self.divide = QPushButton("&Ratio")
        self.divide.setToolTip("log2((a + 1) / (b + 1)) of two genes in linear units (Alt+R)")
        self.divide.clicked.connect(lambda _: self.make_ratio())
        self.below.returnPressed.connect(self.make_ratio)
        self.remove = QPushButton("Remove this map")
        self.remove.setToolTip("Take the signature or ratio that is shown out of the list")
        self.remove.clicked.connect(lambda _: self._remove())
        self._fill()
        self.choice.currentIndexChanged.connect(lambda _: self._choose())
        self._choose()
        grid = QGridLayout(self)
        grid.setContentsMargins(0, 0, 0, 0)
        grid.addWidget(self.choice, 0, 0, 1, 3)
        grid.addWidget(self.gmt, 0, 3)
        grid.addWidget(self.genes, 1, 0, 1, 3)
        grid.addWidget(self.score, 1, 3)
        grid.addWidget(self.source, 2, 0, 1, 4)
        grid.addWidget(self.above, 3, 0)
        grid.addWidget(QLabel("/"), 3, 1)
        grid.addWidget(self.below, 3, 2)
        grid.addWidget(self.divide, 3, 3)
        grid.addWidget(self.remove, 4, 0, 1, 4)
        self.follow()

    def _fill(self) -> None:
        self.choice.blockSignals(True)
        self.choice.clear()
        self.choice.add(_OWN, tip="What is typed or pasted below")
        for found in self.sets.values():
            self.choice.add(found.name, tip=f"{', '.join(found.genes[:20])}\n{found.source}")
        self.choice.blockSignals(False)

    def _choose(self) -> None:
        found = self.sets.get(self.choice.currentText())
        if found is not None:
            self.genes.setText(" ".join(found.genes))
            self.genes.setCursorPosition(0)
        self.source.setText("" if found is None else found.source)
        self.source.setVisible(found is not None)

    def _ask_gmt(self) -> None:
        path, _ = QFileDialog.getOpenFileName(self, "Open sets of genes", "", "Sets of genes (*.gmt);;All files (*)")
        if path:
            self.add_gmt(Path(path))

    def add_gmt(self, path: Path) -> None:
        """Offer the sets of a GMT file, and choose its first one."""
        text = text_of(path)
        try:
            sets = {} if text is None else parse_gmt(text)
        except GeneError as error:
            tell(error, "Reading sets of genes")
            return
        if sets:
            self.sets |= {name: GeneSet(name, tuple(genes), path.name) for name, genes in sets.items()}
            self._fill()
            self.choice.setCurrentIndex(self.choice.findText(next(iter(sets))))
            self._choose()
            self._dock.say(f"{len(sets):,} sets of {path.name}.")

    def make_score(self) -> None:
        """Score the genes in the box in a thread, or else those of the last list."""
        result = self._session.current_result
        genes = parse_genes(self.genes.text()) or self._list.listed
        if result is None or not genes:
            self._dock.say("Name the genes of the signature first.")
            return
        chosen = self.sets.get(self.choice.currentText())
        name = chosen.name if chosen is not None else f"Score of {' '.join(genes[:3])}{' …' if len(genes) > 3 else ''}"
        self._dock.run(
            score,
            result,
            genes,
            summary=self._list.summary,
            source="" if chosen is None else chosen.source,
            control=Control(),
            name=f"Scoring {name}",
            on_done=partial(self._made, result, name),
        )

    def make_ratio(self) -> None:
        """Show the ratio of two genes."""
        result = self._session.current_result
        above, below = self.above.text().strip() or self._session.gene or "", self.below.text().strip()
        if result is None or not below:
            self._dock.say("Name the other gene first.")
            return
        done = partial(self._made, result, f"{above} / {below}")
        self._dock.run(ratio, result, above, below, name="Dividing", quiet=True, on_done=done)

    def _made(self, result: Result, name: str, derived: Derived) -> None:
        if self._session.results.get(result.name) is result:
            listed = self._session.add_derived(result.name, name, derived)
            self._dock.say(f"{listed} is listed above the genes.")

    def _remove(self) -> None:
        if self._session.result is not None and self._session.gene is not None:
            self._session.remove_derived(self._session.result, self._session.gene)

    def follow(self) -> None:
        """Offer what can be done with the current result and map."""
        result = self._session.current_result
        self.remove.setVisible(result is not None and self._session.gene in result.derived)
        self.score.setEnabled(result is not None)
        self.divide.setEnabled(result is not None)

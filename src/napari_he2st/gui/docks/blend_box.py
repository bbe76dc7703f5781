"""Several genes at once in the Genes dock: up to four, each in a colour of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import QSignalBlocker, Qt
from qtpy.QtGui import QColor, QPixmap
from qtpy.QtWidgets import (
    QDoubleSpinBox,
    QGridLayout,
    QHBoxLayout,
    QLabel,
    QPushButton,
    QToolButton,
    QVBoxLayout,
    QWidget,
)

from napari_he2st.gui.blend_map import INKS, BlendMap, Part

if TYPE_CHECKING:
    from napari_he2st.gui.docks.base import Dock

_SWATCH_PX = 14


class BlendBox(QWidget):
    """Adds the current gene to the picture of several, takes genes out of it, and is its legend.

    Parameters
    ----------
    dock
        Whose session and layers are meant.

    Attributes
    ----------
    genes
        What is in the picture of the current result.
    """

    def __init__(self, dock: Dock) -> None:
        super().__init__()
        self._dock, self._session, self._layers = dock, dock.session, dock.layers
        self.add = QPushButton("&Add gene")
        self.add.setToolTip(f"Show the current gene with others, at most {len(INKS)} (Alt+A, or + in the table)")
        self.add.clicked.connect(lambda _: self.add_gene())
        self.clear = QPushButton("C&lear")
        self.clear.setToolTip("Show the map of one gene again (Alt+L)")
        self.clear.clicked.connect(lambda _: self._show([]))
        row = QHBoxLayout()
        row.addWidget(self.add)
        row.addWidget(self.clear)
        self._legend = QWidget()
        self._rows = QGridLayout(self._legend)
        self._rows.setContentsMargins(0, 0, 0, 0)
        self._rows.setColumnStretch(1, 1)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addLayout(row)
        layout.addWidget(self._legend)
        self.follow()

    @property
    def genes(self) -> list[str]:
        """Labels of the genes that are shown together."""
        return [part.label for part in self._parts]

    @property
    def _blend(self) -> BlendMap | None:
        return self._layers.blend(self._session.result or "")

    @property
    def _parts(self) -> list[Part]:
        return [] if self._blend is None else self._blend.parts

    def add_gene(self) -> None:
        """Show the current gene together with those that are shown already."""
        result, gene = self._session.current_result, self._session.gene
        if result is None or gene is None or not result.shows(gene) or gene in self.genes:
            return
        if len(self.genes) == len(INKS):
            self._dock.say(f"More than {len(INKS)} genes cannot be told apart: take one out first.")
            return
        self._show([*self.genes, gene])

    def _show(self, genes: list[str]) -> None:
        if self._session.result is not None:
            self._layers.show_blend(self._session.result, genes)
        self.follow()

    def follow(self) -> None:
        """Show the legend of the current result."""
        result = self._session.current_result
        self.add.setEnabled(result is not None)
        self.clear.setEnabled(bool(self._parts))
        while (item := self._rows.takeAt(0)) is not None:
            item.widget().deleteLater()
        for row, part in enumerate(self._parts):
            self._add_row(row, part)
        self._legend.setVisible(bool(self._parts))

    def _add_row(self, row: int, part: Part) -> None:
        swatch = QLabel()
        colour = QPixmap(_SWATCH_PX, _SWATCH_PX)
        colour.fill(QColor(*part.ink.rgb))
        swatch.setPixmap(colour)
        swatch.setToolTip(part.ink.name)
        self._rows.addWidget(swatch, row, 0)
        self._rows.addWidget(QLabel(f"{part.label}", toolTip=f"{part.label} in {part.ink.name}"), row, 1)
        ends = [_limit(part.low, "Value at which the colour is absent"), _limit(part.high, "Value of the full colour")]
        for column, box in enumerate(ends, start=2):
            box.valueChanged.connect(lambda _: self._set_limits(row, ends[0].value(), ends[1].value()))
            self._rows.addWidget(box, row, column)
        out = QToolButton(text="×", toolTip=f"Take {part.label} out")
        out.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        out.clicked.connect(lambda _: self._show([gene for gene in self.genes if gene != part.label]))
        self._rows.addWidget(out, row, 4)

    def _set_limits(self, row: int, low: float, high: float) -> None:
        if self._blend is not None:
            self._blend.set_limits(row, low, high)


def _limit(value: float, tip: str) -> QDoubleSpinBox:
    box = QDoubleSpinBox(minimum=-1e9, maximum=1e9, decimals=2, keyboardTracking=False, toolTip=tip)
    box.setButtonSymbols(QDoubleSpinBox.ButtonSymbols.NoButtons)
    box.setStyleSheet("min-width: 44px")
    box.setMaximumWidth(70)
    with QSignalBlocker(box):
        box.setValue(value)
    return box

"""The drawn regions of a slide: names and classes, the current gene in each, and how two of them differ."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QSignalBlocker, Qt
from qtpy.QtWidgets import (
    QAbstractItemView,
    QDialog,
    QFileDialog,
    QHBoxLayout,
    QHeaderView,
    QLabel,
    QPushButton,
    QTableWidget,
    QTableWidgetItem,
    QVBoxLayout,
    QWidget,
)
from superqt.utils import qdebounced

from napari_he2st.analysis.regions import compare_spots, inside_any, region_table
from napari_he2st.core import keys
from napari_he2st.core.atomic import atomic_write
from napari_he2st.core.progress import Control
from napari_he2st.core.types import Region
from napari_he2st.data.geojson import read_regions, write_regions
from napari_he2st.gui.colours import colour_regions
from napari_he2st.gui.region_layer import free_name
from napari_he2st.gui.widgets.combo import Combo
from napari_he2st.gui.widgets.gene_model import Column
from napari_he2st.gui.widgets.gene_table import GeneTable
from napari_he2st.gui.widgets.save_dialog import Target, ask_where
from napari_he2st.gui.worker import Task, run

if TYPE_CHECKING:
    import pandas as pd

    from napari_he2st.engine.session_items import Result
    from napari_he2st.gui.layers import SlideLayers

_HEADS = ("Region", "Class", "Source", "n", "mm²", "Mean", "SD", "Median", "5–95 %")
_TIPS = (
    "Double-click to rename",
    "Double-click to give a class, such as Tumor; QuPath reads it with its colour",
    "Result that the numbers are of",
    "Spots in the region with a value",
    "Area of the region",
    "Mean of the current gene",
    "Standard deviation over spots",
    "Median",
    "Percentiles 5 and 95",
)
_NAME, _CLASS = 0, 1
_OTHERS, _OF_CLASS = "all other spots", "class "
_COMPARED = (
    ("difference", "difference", "{:+.2f}", "Mean of the first minus mean of the second"),
    ("effect", "effect", "{:+.2f}", "Rank-biserial correlation: 1 where all spots of the first are above the second's"),
    ("p", "p", "{:.1e}", "Wilcoxon's rank-sum test; treats spots as independent, which they are not"),
    ("fdr", "FDR", "{:.1e}", "p after Benjamini–Hochberg over all genes"),
)


class RegionsDialog(QDialog):
    """Table of regions, their comparison, and files.

    Parameters
    ----------
    layers
        Of the viewer in which regions are drawn.
    parent
        The widget it belongs to.

    Attributes
    ----------
    measured
        Numbers of the current gene, see :func:`~napari_he2st.analysis.regions.region_table`; None until known.
    compared
        The last comparison, see :func:`~napari_he2st.analysis.regions.compare_spots`; None before.
    """

    def __init__(self, layers: SlideLayers, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        self.layers, self.session = layers, layers.session
        self.measured: pd.DataFrame | None = None
        self.compared: pd.DataFrame | None = None
        self._measuring: Task | None = None
        self._comparing: Task | None = None
        self.note = QLabel(wordWrap=True)
        self.table = QTableWidget(0, len(_HEADS))
        self.table.setHorizontalHeaderLabels(_HEADS)
        for column, tip in enumerate(_TIPS):
            self.table.horizontalHeaderItem(column).setToolTip(tip)
        header = self.table.horizontalHeader()
        header.setSectionResizeMode(QHeaderView.ResizeMode.ResizeToContents)
        header.setStretchLastSection(True)
        self.table.verticalHeader().hide()
        self.table.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.table.setAccessibleName("Regions and the current gene in them")
        self.table.cellChanged.connect(self._edited)
        self.first = Combo("Region or class whose genes are compared")
        self.second = Combo("What it is compared with; spots that lie in both count for neither")
        self.compare_button = _button("Compare", "Test every gene of the current result (Wilcoxon, FDR)", self.compare)
        self.said = QLabel(wordWrap=True)
        self.genes = GeneTable()
        self.genes.gene_chosen.connect(lambda gene: self.session.select(gene=gene))
        self.draw_button = _button("Draw", "Click corners on the slide, double-click to close", self._draw)
        self.remove_button = _button("Remove", "Remove the selected regions", self._remove)
        self.undo_button = _button("Undo", "Take back the last change of regions", self._undo)
        self.open_button = _button("Open GeoJSON…", "Add regions that QuPath exported", self._ask_open)
        self.save_button = _button("Save GeoJSON…", "Write regions with class and colour for QuPath", self._ask_save)
        self.csv_button = _button("Save table…", "Write the numbers above, with all percentiles (CSV)", self._ask_table)
        self.genes_button = _button("Save comparison…", "Write all genes of the comparison (CSV)", self._ask_genes)
        layout = QVBoxLayout(self)
        layout.addWidget(self.note)
        layout.addLayout(_row(self.draw_button, self.remove_button, self.undo_button))
        layout.addLayout(_row(self.open_button, self.save_button))
        layout.addWidget(self.table, 1)
        layout.addLayout(_row(self.csv_button))
        layout.addLayout(_row(self.first, QLabel("against"), self.second, self.compare_button))
        layout.addWidget(self.said)
        layout.addWidget(self.genes, 1)
        layout.addLayout(_row(self.genes_button))
        self.research = QLabel(keys.RESEARCH_USE, wordWrap=True)
        layout.addWidget(self.research)
        self.resize(620, 640)
        for signal, slot in self._signals():
            signal.connect(slot)
        self.finished.connect(self._stop)
        self._refresh()

    @property
    def regions(self) -> list[Region]:
        """Regions of the current slide."""
        return self.session.regions.get(self.session.slide or "", [])

    # --- the table

    def _signals(self) -> list[tuple[Any, Any]]:
        session = self.session
        changes = (session.regions_changed, session.selection_changed, session.result_removed, session.result_finished)
        return [(signal, self._changed) for signal in changes]

    def _changed(self) -> None:
        self._refresh()

    @qdebounced(timeout=50)
    def _refresh(self) -> None:
        """Measure the current gene in all regions, in a thread."""
        slide, gene, regions = self.session.current_slide, self.session.gene, list(self.regions)
        where = "no slide is open" if slide is None else slide.name
        self.setWindowTitle(f"Regions of {where}")
        self._offer(regions)
        self.draw_button.setEnabled(slide is not None)
        self.open_button.setEnabled(slide is not None)
        if self._measuring is not None:
            self._measuring.cancel()
        results = [found for found in self.session.results.values() if slide is not None and found.slide == slide.name]
        if slide is None or gene is None:
            self._fill(None, regions, {})
            return
        known = [found for found in results if found.shows(gene)]
        self._measuring = run(
            _measure,
            regions,
            known,
            gene,
            slide.slide.mpp,
            name="Measuring regions",
            owner=self,
            on_done=lambda table: self._fill(table, regions, {found.title: found for found in known}),
        )

    def _fill(self, table: pd.DataFrame | None, regions: list[Region], sources: dict[str, Result]) -> None:
        self.measured = table if table is not None and len(table) else None
        rows: list[Any] = [] if self.measured is None else list(self.measured.itertuples(index=False))
        with QSignalBlocker(self.table):
            self.table.setRowCount(len(rows) or len(regions))
            for row, found in enumerate(rows):
                region = regions[row // len(sources)]
                spread = "–" if found.n == 0 else f"{found.p5:.2f} – {found.p95:.2f}"
                numbers = [_text(value) for value in (found.mean, found.sd, found.p50)]
                texts = [found.source, f"{found.n:,}", f"{found.area_mm2:.3f}", *numbers, spread]
                self._write_row(row, region, texts)
                self.table.item(row, 2).setToolTip(f"{found.gene}, {sources[found.source].unit(found.gene)}")
            for row, region in enumerate(regions if not rows else []):
                self._write_row(row, region, ["–"] * (len(_HEADS) - 2))
        self.research.setVisible(any(found.kind == "predicted" for found in sources.values()))
        self.csv_button.setEnabled(self.measured is not None)
        self.save_button.setEnabled(bool(regions))
        self.remove_button.setEnabled(bool(regions))
        if not regions:
            self.note.setText("No region yet: press Draw and click corners on the slide, or open a GeoJSON.")
        elif not rows:
            self.note.setText("The current gene is in no result of this slide.")
        else:
            self.note.setText(
                f"<b>{self.session.gene}</b> in {len(regions)} regions, by spots whose centre lies inside."
            )

    def _write_row(self, row: int, region: Region, texts: list[str]) -> None:
        for column, text in enumerate([region.name, region.kind, *texts]):
            item = QTableWidgetItem(text)
            item.setData(Qt.ItemDataRole.UserRole, region.name)
            if column > _CLASS:
                item.setFlags(item.flags() & ~Qt.ItemFlag.ItemIsEditable)
            if column > _CLASS + 1:
                item.setTextAlignment(int(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter))
            self.table.setItem(row, column, item)

    def _edited(self, row: int, column: int) -> None:
        item = self.table.item(row, column)
        name, text = item.data(Qt.ItemDataRole.UserRole), item.text().strip()
        others = {region.name for region in self.regions} - {name}
        if column == _NAME and (not text or text in others):
            self.said.setText("A region needs a name of its own.")
            self._refresh()
            return
        change: dict[str, Any] = {"name": text} if column == _NAME else {"kind": text, "colour": None}
        self.set_regions([replace(each, **change) if each.name == name else each for each in self.regions])

    def set_regions(self, regions: list[Region]) -> None:
        """Replace the regions of the current slide; each class gets its colour."""
        if self.session.slide is not None:
            self.session.set_regions(self.session.slide, colour_regions(regions))

    def _draw(self) -> None:
        if self.session.slide is not None:
            self.layers.draw_regions(self.session.slide)

    def _undo(self) -> None:
        if self.session.slide is not None and not self.session.undo_regions(self.session.slide):
            self.note.setText("There is no change of regions to take back.")

    def _remove(self) -> None:
        rows = {index.row() for index in self.table.selectedIndexes()}
        gone = {self.table.item(row, _NAME).data(Qt.ItemDataRole.UserRole) for row in rows}
        self.set_regions([region for region in self.regions if region.name not in gone])

    # --- the comparison

    def _offer(self, regions: list[Region]) -> None:
        """Regions, classes, and the rest, keeping what was chosen."""
        names = [region.name for region in regions]
        names += [f"{_OF_CLASS}{kind}" for kind in dict.fromkeys(region.kind for region in regions) if kind]
        others = [_OTHERS] if names else []
        for number, (combo, offered) in enumerate(((self.first, names), (self.second, [*names, *others]))):
            chosen = combo.currentText()
            combo.clear()
            for name in offered:
                combo.add(name, tip="")
            if names:
                combo.setCurrentText(chosen if chosen in offered else offered[min(number, len(offered) - 1)])
        self.compare_button.setEnabled(bool(names) and self.session.current_result is not None)
        self.genes_button.setEnabled(self.compared is not None)

    def _members(self, choice: str) -> list[Region] | None:
        """Regions that a choice stands for; None for all other spots."""
        if choice == _OTHERS:
            return None
        named = [region for region in self.regions if region.name == choice]
        return named or [region for region in self.regions if f"{_OF_CLASS}{region.kind}" == choice]

    def compare(self) -> None:
        """Test all genes of the current result in a thread."""
        result, first, second = self.session.current_result, self.first.currentText(), self.second.currentText()
        if result is None or not first:
            return
        if self._comparing is not None:
            self._comparing.cancel()
        self.compare_button.setEnabled(False)
        self.said.setText("Comparing …")
        self._comparing = run(
            _compare,
            result,
            self._members(first),
            self._members(second),
            name="Comparing regions",
            owner=self,
            control=Control(),
            on_done=partial(self._show, result, first, second),
            on_error=lambda _: self.said.setText(""),
            on_end=lambda: self._offer(self.regions),
        )

    def _show(self, result: Result, first: str, second: str, found: pd.DataFrame) -> None:
        self.compared = found
        columns = [Column("gene", found["gene"].to_numpy(dtype=object), "{}", "Gene symbol")]
        columns += [Column(title, found[name].to_numpy(), text, tip) for name, title, text, tip in _COMPARED]
        self.genes.genes.set_columns(columns)
        n = int((found["fdr"] < 0.05).sum())
        self.said.setText(
            f"{first} against {second}, {result.title}: {n:,} of {len(found):,} genes differ at an FDR of 5 %, "
            "taking spots for independent, which neighbours are not."
        )

    # --- files

    def open_file(self, path: Path) -> None:
        """Add the regions of a GeoJSON, in a thread."""
        run(read_regions, path, name=f"Opening {path.name}", owner=self, on_done=self._add)

    def _add(self, found: list[Region]) -> None:
        regions, taken = list(self.regions), {region.name for region in self.regions}
        for region in found:
            name = region.name if region.name not in taken else free_name(region.name, taken)
            taken.add(name)
            regions.append(replace(region, name=name))
        self.set_regions(regions)

    def save_file(self, target: Target) -> None:
        """Write the regions as GeoJSON, in a thread."""
        write = partial(write_regions, target.path, list(self.regions), force=target.force)
        self._save(write, target)

    def save_table(self, table: pd.DataFrame, target: Target) -> None:
        """Write one of the tables as CSV, in a thread."""
        self._save(partial(_write_csv, table, target), target)

    def _save(self, write: partial[None], target: Target) -> None:
        done = f"Written: {target.path}"
        run(write, name=f"Writing {target.path.name}", owner=self, on_done=lambda _: self.said.setText(done))

    def _ask_open(self) -> None:
        path, _ = QFileDialog.getOpenFileName(self, "Regions", "", "GeoJSON (*.geojson *.json)")
        if path:
            self.open_file(Path(path))

    def _ask_save(self) -> None:
        name = f"{self.session.slide} regions"
        target = ask_where(self, "Save regions", name=name, suffix=".geojson", kind="GeoJSON")
        if target is not None:
            self.save_file(target)

    def _ask_table(self) -> None:
        self._ask_csv(self.measured, f"{self.session.slide} {self.session.gene} regions")

    def _ask_genes(self) -> None:
        self._ask_csv(self.compared, f"{self.session.slide} regions compared")

    def _ask_csv(self, table: pd.DataFrame | None, name: str) -> None:
        target = None if table is None else ask_where(self, "Save table", name=name, suffix=".csv", kind="Table")
        if table is not None and target is not None:
            self.save_table(table, target)

    def _stop(self, *_: Any) -> None:
        for signal, slot in self._signals():
            signal.disconnect(slot, missing_ok=True)


def _button(text: str, tip: str, slot: Any) -> QPushButton:
    button = QPushButton(text, autoDefault=False)
    button.setToolTip(tip)
    button.clicked.connect(lambda *_: slot())
    return button


def _row(*widgets: QWidget) -> QHBoxLayout:
    row = QHBoxLayout()
    for widget in widgets:
        row.addWidget(widget, 1 if isinstance(widget, Combo) else 0)
    if not any(isinstance(widget, Combo) for widget in widgets):
        row.addStretch(1)
    return row


def _text(value: float) -> str:
    return "–" if value != value else f"{value:.2f}"


def _measure(regions: list[Region], results: list[Result], gene: str, mpp: float) -> pd.DataFrame:
    """The region table of a gene, with gene and scale beside the source."""
    table = region_table(regions, {found.title: (found.column(gene), found.grid.xy) for found in results}, mpp)
    table.insert(2, "gene", gene)
    table.insert(
        4,
        "scale",
        table["source"].map(
            {found.title: found.unit(gene) if gene in found.derived else found.scale for found in results}
        ),
    )
    return table


def _compare(
    result: Result, first: list[Region], second: list[Region] | None, *, control: Control | None = None
) -> pd.DataFrame:
    inside = inside_any(result.grid.xy, first)
    beside = ~inside if second is None else inside_any(result.grid.xy, second)
    return compare_spots(result.values, result.genes, inside, beside, control=control)


def _write_csv(table: pd.DataFrame, target: Target) -> None:
    from napari_he2st.data.export.table import inert

    texts = {name: inert(table[name].astype(str)) for name in table.select_dtypes(exclude="number").columns}
    with atomic_write(target.path, force=target.force) as path:
        table.assign(**texts).to_csv(path, index=False)

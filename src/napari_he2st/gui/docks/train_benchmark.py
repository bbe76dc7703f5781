"""Benchmark page of the Train dock: systems to tick, a budget, and the table of what came out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import Qt, QUrl
from qtpy.QtGui import QDesktopServices
from qtpy.QtWidgets import (
    QDoubleSpinBox,
    QFileDialog,
    QFormLayout,
    QHeaderView,
    QLabel,
    QListWidget,
    QListWidgetItem,
    QPushButton,
    QSpinBox,
    QTableWidget,
    QTableWidgetItem,
    QVBoxLayout,
    QWidget,
)

from napari_he2st.core.progress import Control
from napari_he2st.gui.widgets.combo import Combo

if TYPE_CHECKING:
    from napari_he2st.data.truth import Section
    from napari_he2st.gui.docks.train import TrainDock
    from napari_he2st.gui.docks.train_sections import SectionsBox

_LIST_PX, _TABLE_PX = 140, 200


class BenchmarkPage(QWidget):
    """Systems, settings and results."""

    def __init__(self, dock: TrainDock, sections: SectionsBox) -> None:
        super().__init__()
        self._dock, self._sections = dock, sections
        self.systems = QListWidget()
        self.systems.setFixedHeight(_LIST_PX)
        self.systems.setToolTip("Systems to compare. The training mean and ridge regression always take part")
        self.size = Combo("Small variants take minutes on a CPU; default ones are as published")
        self.size.add("small variants (tiny)", data="tiny")
        self.size.add("as published", data="default")
        self.kind = Combo("What is left out in turn and scored")
        for text, data in (("each patient", "patient"), ("each section", "section"), ("blocks", "block")):
            self.kind.add(text, data=data)
        self.n_genes = QSpinBox(minimum=2, maximum=20_000, value=250, suffix=" most variable genes")
        self.epochs = QSpinBox(minimum=0, maximum=100_000, specialValueText="as published")
        self.epochs.setToolTip("The same number for all systems, or each as published")
        self.budget = QDoubleSpinBox(
            minimum=0, maximum=100_000, value=30, suffix=" minutes", specialValueText="no limit"
        )
        self.budget.setToolTip("No fit is begun after that; pressing Benchmark again goes on")
        self.table = QTableWidget(0, 0)
        self.table.setMinimumHeight(_TABLE_PX)
        self.table.verticalHeader().hide()
        self.table.hide()
        self.warnings = QLabel(wordWrap=True)
        self.report = QPushButton("Open the report")
        self.report.setToolTip("All numbers with spreads, tests and figures, as a web page")
        self.report.clicked.connect(lambda *_: self._open())
        self.report.hide()
        self._page: Path | None = None
        form = QFormLayout()
        form.addRow("Systems", self.systems)
        form.addRow("Size", self.size)
        form.addRow("Leave out", self.kind)
        form.addRow("Genes", self.n_genes)
        form.addRow("Epochs", self.epochs)
        form.addRow("Budget", self.budget)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 4, 0, 0)
        layout.addLayout(form)
        for widget in (self.warnings, self.table, self.report):
            layout.addWidget(widget)
        layout.addStretch(1)

    def list_systems(self, rows: list[dict[str, Any]]) -> None:
        """Offer the systems that can take part."""
        for row in rows:
            if row["fitted"] != "slide" and row["slug"] not in ("mean", "ridge"):
                item = QListWidgetItem(row["title"])
                item.setData(Qt.ItemDataRole.UserRole, row["slug"])
                item.setFlags(item.flags() | Qt.ItemFlag.ItemIsUserCheckable)
                item.setCheckState(Qt.CheckState.Unchecked)
                self.systems.addItem(item)

    @property
    def chosen(self) -> list[str]:
        """Slugs of the ticked ones."""
        items = [self.systems.item(i) for i in range(self.systems.count())]
        ticked = [item for item in items if item is not None and item.checkState() == Qt.CheckState.Checked]
        return [item.data(Qt.ItemDataRole.UserRole) for item in ticked]

    def start(self, folder: str | None = None) -> None:
        """Ask where the results go, and run."""
        folder = folder or QFileDialog.getExistingDirectory(
            self, "Folder of the results; what is there is not done again"
        )
        if not folder:
            return
        self._dock.run(
            run_benchmark,
            self.chosen,
            self._sections.of("train"),
            folder,
            variant=self.size.currentData(),
            kind=self.kind.currentData(),
            panel=f"hvg:{self.n_genes.value()}",
            epochs=self.epochs.value() or None,
            budget=self.budget.value() or None,
            name="Benchmark",
            can_pause=True,
            control=self._dock.begin(),
            ask_on_close=True,
            on_done=self.show_found,
            on_end=self._dock.end,
        )

    def show_found(self, found: tuple[list[str], list[list[str]], list[str], Path | None]) -> None:
        """Show the table, what to be careful about, and where the report lies."""
        head, rows, said, self._page = found
        self.table.setColumnCount(len(head))
        self.table.setHorizontalHeaderLabels(head)
        self.table.setRowCount(len(rows))
        for i, row in enumerate(rows):
            for j, text in enumerate(row):
                item = QTableWidgetItem(text)
                item.setFlags(item.flags() & ~Qt.ItemFlag.ItemIsEditable)
                self.table.setItem(i, j, item)
        header = self.table.horizontalHeader()
        header.setSectionResizeMode(QHeaderView.ResizeMode.ResizeToContents)
        self.table.setVisible(bool(rows))
        self.warnings.setText("\n".join(f"⚠ {text}" for text in said))
        self.report.setVisible(self._page is not None)
        self._dock.reveal(self.table)

    def _open(self) -> None:
        if self._page is not None:
            QDesktopServices.openUrl(QUrl.fromLocalFile(str(self._page)))


def run_benchmark(
    slugs: list[str],
    sections: list[Section],
    folder: str,
    *,
    variant: str,
    kind: Any,
    panel: str,
    epochs: int | None,
    budget: float | None,
    control: Control,
) -> tuple[list[str], list[list[str]], list[str], Path | None]:
    """Run a benchmark and write its report: head and rows of the table, warnings, the report's path."""
    from napari_he2st.engine.benchmark import Contestant, benchmark
    from napari_he2st.engine.benchmark_report import short_rows, summarise, write_report
    from napari_he2st.zoo.catalogue import card_of

    recipe = {} if epochs is None else {"recipe": {"epochs": epochs}}
    labels = [
        f"{slug}:{variant}" if variant in card_of(slug).variants and variant != "default" else slug for slug in slugs
    ]
    contestants = [Contestant.parse(label, recipe) for label in labels]
    result = benchmark(contestants, sections, folder, kind=kind, panel=panel, budget_minutes=budget, control=control)
    said = [
        *result.warnings,
        *(f"Not done, for the budget was spent: {system} without {fold}." for system, fold in result.missing),
        *(f"Failed: {system} without {fold}. {reason}" for system, fold, reason in result.failed),
    ]
    if result.scores.empty:
        return [], [], said, None
    head, rows = short_rows(summarise(result))
    return head, rows, said, write_report(result, Path(folder) / "report.html", force=True)

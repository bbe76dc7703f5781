"""The Genes dock in front of a session: what it lists, shows, and hides."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from qtpy.QtCore import QMimeData, QPointF, Qt, QUrl
from qtpy.QtGui import QDropEvent
from qtpy.QtWidgets import (
    QAbstractButton,
    QAbstractSpinBox,
    QApplication,
    QComboBox,
    QDialogButtonBox,
    QLineEdit,
    QSlider,
)

from napari_he2st.engine.gene_marks import GeneMarks
from napari_he2st.gui.docks.genes import GenesDock
from napari_he2st.gui.gene_list_dialog import GeneListDialog
from napari_he2st.gui.workspace import layers_of

pytestmark = pytest.mark.gui


@pytest.fixture
def dock(open_dock):
    return lambda: open_dock(GenesDock)


def cell(dock, gene, column):
    model = dock.table.genes
    return model.data(model.index(model.row_of(gene), column))


def test_an_empty_session_says_what_to_do(dock):
    genes = dock()
    assert "predict a slide" in genes.note.text()
    assert not genes.table.isEnabled()


def test_results_that_come_later_are_listed(dock, fill, qtbot):
    genes = dock()
    fill()
    assert [genes.chooser.itemText(i) for i in range(2)] == ["run (predicted)", "spots (measured)"]
    assert genes.chooser.currentText() == "spots (measured)"
    assert genes.note.text().startswith("Measured")
    qtbot.waitUntil(lambda: cell(genes, "ERBB2", 1) != "–")


def test_a_late_dock_shows_the_current_result(dock, fill, qtbot, session):
    fill()
    session.select(result="run", gene="ERBB2")
    genes = dock()
    assert "research use" in genes.note.text()
    assert genes.table.current == "ERBB2"
    assert cell(genes, "ERBB2", 1) == "0.60"
    result = session.results["run"]
    qtbot.waitUntil(lambda: cell(genes, "ERBB2", 2) == f"{result.values[:, 0].mean():.2f}")
    assert cell(genes, "ERBB2", 3) == "100"


def test_low_scores_are_marked(dock, fill, session):
    fill()
    session.select(result="run", gene="GAPDH")
    genes = dock()
    assert "low confidence" in genes.facts.text()
    model = genes.table.genes
    tip = model.data(model.index(model.row_of("GAPDH"), 0), Qt.ItemDataRole.ToolTipRole)
    assert "0.2" in tip
    assert model.data(model.index(model.row_of("ERBB2"), 0), Qt.ItemDataRole.ToolTipRole) is None


def test_arrow_keys_flip_the_map_from_the_search_box(dock, fill, viewer, qtbot, session):
    fill()
    session.select(result="run", gene="ERBB2")
    genes = dock()
    qtbot.keyClick(genes.search, Qt.Key.Key_Down)
    qtbot.waitUntil(lambda: session.gene == "GAPDH")
    assert layers_of(viewer).shown("run") == "GAPDH"
    assert "GAPDH" in genes.facts.text()


def test_search_narrows_the_table(dock, fill, qtbot):
    fill()
    genes = dock()
    genes.search.setText("^mt-")
    qtbot.waitUntil(lambda: genes.table.genes.names() == ["MT-CO1"])
    genes.search.setText("nothing")
    qtbot.waitUntil(lambda: genes.table.genes.rowCount() == 0)
    assert "No gene matches" in genes.status.text.text()


def test_genes_are_found_by_their_everyday_name(dock, fill, qtbot):
    fill()
    genes = dock()
    genes.search.setText("her2")
    qtbot.waitUntil(lambda: genes.table.genes.names() == ["ERBB2"])


def test_a_pasted_list_is_what_is_shown_and_counted(dock, fill, qtbot):
    fill()
    genes = dock()
    QApplication.clipboard().setText("gene\nHER2\nmt-co1\nCD8A\n")
    qtbot.keyClick(genes.table, Qt.Key.Key_V, Qt.KeyboardModifier.ControlModifier)
    assert genes.table.genes.names() == ["ERBB2", "MT-CO1"]
    assert genes.status.text.text() == "2 of 3 genes found. Not found: CD8A"
    assert genes.gene_list.which.currentText() == "List (2)"
    genes.gene_list.which.setCurrentIndex(0)
    genes.gene_list.which.activated.emit(0)
    assert genes.table.genes.rowCount() == 3


def test_a_dropped_file_is_a_list(dock, fill, tmp_path):
    fill()
    genes = dock()
    file = tmp_path / "genes.csv"
    file.write_text("symbol,score\nGAPDH,1\nACTB,2\n")
    data = QMimeData()
    data.setUrls([QUrl.fromLocalFile(str(file))])
    event = QDropEvent(
        QPointF(5, 5), Qt.DropAction.CopyAction, data, Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier
    )
    genes.gene_list.dropEvent(event)
    assert genes.table.genes.names() == ["GAPDH"]


def test_the_dialog_gives_a_list(dock, fill, qtbot):
    fill()
    genes = dock()
    qtbot.keyClick(genes.table, Qt.Key.Key_L)
    (dialog,) = genes.findChildren(GeneListDialog)
    dialog.text.setPlainText("GAPDH; ERBB2")
    dialog.findChild(QDialogButtonBox).button(QDialogButtonBox.StandardButton.Ok).click()
    assert genes.table.genes.names() == ["ERBB2", "GAPDH"]


def test_a_starred_gene_is_a_favourite_from_now_on(dock, fill, qtbot, session):
    fill()
    session.select(result="run", gene="GAPDH")
    genes = dock()
    qtbot.keyClick(genes.table, Qt.Key.Key_S)
    assert cell(genes, "GAPDH", 0) == "★ GAPDH ⚠"
    assert GeneMarks().favourites == ["GAPDH"]
    genes.gene_list.which.setCurrentIndex(1)
    genes.gene_list.which.activated.emit(1)
    assert genes.table.genes.names() == ["GAPDH"]
    genes.gene_list.star.click()
    assert session.marks.favourites == []
    assert genes.table.genes.rowCount() == 0


def test_recently_seen_genes_are_listed(dock, fill, session):
    fill()
    session.select(result="run", gene="GAPDH")
    session.select(gene="MT-CO1")
    genes = dock()
    genes.gene_list.which.setCurrentIndex(2)
    genes.gene_list.which.activated.emit(2)
    assert set(genes.table.genes.names()) >= {"GAPDH", "MT-CO1"}
    assert session.marks.recent[:2] == ["MT-CO1", "GAPDH"]


def test_correlation_with_measured_is_a_column_once_compared(dock, fill, session, qtbot):
    fill()
    session.select(result="run", gene="GAPDH")
    genes = dock()
    table = pd.DataFrame({"gene": ["GAPDH", "ERBB2"], "pcc": [0.25, 0.75]})
    session.set_comparison(SimpleNamespace(table=table), predicted="run", measured="spots")
    titles = [column.title for column in genes.table.genes.columns]
    assert cell(genes, "ERBB2", titles.index("measured r")) == "0.75"
    assert cell(genes, "MT-CO1", titles.index("measured r")) == "–"
    qtbot.waitUntil(lambda: "Moran" in [column.title for column in genes.table.genes.columns], timeout=20_000)


def test_a_gene_outside_the_panel_is_named(dock, fill, session):
    fill()
    genes = dock()
    session.select(gene="CD3E")
    assert "not in the panel" in genes.facts.text()


def test_choosing_a_result_shows_it_alone(dock, fill, viewer, session):
    fill()
    genes, layers = dock(), layers_of(viewer)
    genes.chooser.choose("run")
    genes.chooser.activated.emit(genes.chooser.currentIndex())
    assert session.result == "run"
    assert layers.result_layer("run").visible
    assert not layers.result_layer("spots").visible


def test_removing_the_last_result_empties_the_dock(dock, fill, session):
    fill()
    genes = dock()
    session.remove_result("spots")
    session.remove_result("run")
    assert genes.table.genes.rowCount() == 0
    assert "predict a slide" in genes.note.text()


def test_genes_are_ranked_by_their_pattern(dock, session, slide, square_grid, measured, qtbot):
    session.add_slide(slide)
    grid = square_grid(8, 8)
    values = np.random.default_rng(0).normal(2, 0.3, size=(64, 3))
    values[:, 2] += grid.index[:, 0]
    session.add_adata(measured(grid, values, ["NOISE", "MORE", "GRADIENT"]), slide.name)
    genes = dock()
    genes.gene_list.rank.click()
    qtbot.waitUntil(lambda: "Geary" in [column.title for column in genes.table.genes.columns], timeout=20_000)
    assert genes.table.genes.names()[0] == "GRADIENT"
    assert float(cell(genes, "GRADIENT", 3)) > 0.8


def test_every_control_has_a_tooltip_and_can_be_reached_by_keys(dock, fill):
    fill()
    genes = dock()
    layers_of(genes.viewer).show_blend("spots", ["ERBB2"])
    genes.blend.follow()
    kinds = QAbstractButton, QComboBox, QLineEdit, QAbstractSpinBox, QSlider
    own = [w for kind in kinds for w in genes.findChildren(kind) if not isinstance(w.parent(), kinds)]
    own = [w for w in own if w.parent() is not genes.status and not w.objectName().startswith("qt_")]
    assert len(own) > 25
    assert not [w for w in own if not w.toolTip()]
    assert not [w for w in own if w.focusPolicy() == Qt.FocusPolicy.NoFocus]


def test_the_dock_fits_a_small_screen(dock, fill):
    fill()
    assert dock().minimumSizeHint().width() <= 400

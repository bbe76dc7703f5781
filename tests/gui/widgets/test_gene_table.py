"""The gene table: filter, order, choice, coalescing."""

from __future__ import annotations

import numpy as np
import pytest
from qtpy.QtCore import Qt

from napari_he2st.gui.widgets.gene_model import Column, GeneTableModel
from napari_he2st.gui.widgets.gene_table import GeneTable

pytestmark = pytest.mark.gui

GENES = np.array(["ERBB2", "erbb3", "GAPDH", "CD3E", "MKI67"], dtype=object)
SCORE = np.array([0.5, np.nan, 0.1, 0.3, 0.3])
DESCENDING, ASCENDING = Qt.SortOrder.DescendingOrder, Qt.SortOrder.AscendingOrder


@pytest.fixture
def model(qtbot) -> GeneTableModel:
    model = GeneTableModel()
    model.set_columns([Column("gene", GENES), Column("score", SCORE, "{:.2f}", "held-out Pearson correlation")])
    return model


def cell(model, row, column, role=Qt.ItemDataRole.DisplayRole):
    return model.data(model.index(row, column), role)


def test_filter_is_a_substring_of_any_case(model):
    model.set_filter("rbb")
    assert model.names() == ["ERBB2", "erbb3"]
    model.set_filter("")
    assert model.names() == GENES.tolist()


def test_filter_by_beginning_and_by_list(model):
    model.set_filter("^c")
    assert model.names() == ["CD3E"]
    model.set_filter("gapdh, MKI67; ")
    assert model.names() == ["GAPDH", "MKI67"]
    model.set_filter("XYZ")
    assert model.names() == []


def test_a_lone_caret_does_not_hide_everything(model):
    model.set_filter("^")
    assert model.rowCount() == 5


def test_unknown_values_stay_last_in_both_orders(model):
    model.sort(1, DESCENDING)
    assert model.names() == ["ERBB2", "MKI67", "CD3E", "GAPDH", "erbb3"]
    model.sort(1, ASCENDING)
    assert model.names() == ["GAPDH", "CD3E", "MKI67", "ERBB2", "erbb3"]
    assert cell(model, 4, 1) == "–"


def test_names_sort_without_regard_to_case(model):
    model.sort(0, ASCENDING)
    assert model.names() == ["CD3E", "ERBB2", "erbb3", "GAPDH", "MKI67"]


def test_order_survives_the_filter_and_new_content(model):
    model.sort(1, DESCENDING)
    model.set_filter("e")
    assert model.names() == ["ERBB2", "CD3E", "erbb3"]
    model.set_columns([Column("gene", GENES), Column("score", SCORE[::-1].copy())])
    assert model.names() == ["erbb3", "ERBB2", "CD3E"]
    model.sort(-1)
    assert model.names() == ["ERBB2", "erbb3", "CD3E"]


def test_doubtful_rows_are_grey_and_say_why(model):
    model.set_columns([Column("gene", GENES)], doubt=SCORE < 0.2, doubt_tip="low score")
    assert cell(model, 2, 0, Qt.ItemDataRole.ToolTipRole) == "low score"
    assert cell(model, 2, 0, Qt.ItemDataRole.ForegroundRole) is not None
    assert cell(model, 0, 0, Qt.ItemDataRole.ForegroundRole) is None


def test_header_says_what_a_column_means(model):
    assert model.headerData(1, Qt.Orientation.Horizontal) == "score"
    tip = model.headerData(1, Qt.Orientation.Horizontal, Qt.ItemDataRole.ToolTipRole)
    assert tip == "held-out Pearson correlation"


def test_forty_thousand_rows_filter_and_sort_as_plain_python_does(qtbot):
    rng = np.random.default_rng(0)
    names = np.array([f"G{i:05d}{'ABC'[i % 3]}" for i in range(40_000)], dtype=object)
    score = rng.normal(size=40_000)
    score[::7] = np.nan
    model = GeneTableModel()
    model.set_columns([Column("gene", names), Column("score", score)])
    model.sort(1, DESCENDING)
    model.set_filter("99")
    kept = [i for i, name in enumerate(names) if "99" in name]
    known = sorted((i for i in kept if not np.isnan(score[i])), key=lambda i: -score[i])
    assert model.names()[: len(known)] == [names[i] for i in known]
    assert set(model.names()[len(known) :]) == {names[i] for i in kept if np.isnan(score[i])}
    assert model.name_at(model.row_of(names[known[5]])) == names[known[5]]
    assert model.row_of("G00000A") is None


@pytest.fixture
def table(qtbot) -> GeneTable:
    table = GeneTable()
    qtbot.addWidget(table)
    table.genes.set_columns([Column("gene", GENES), Column("score", SCORE)])
    return table


def test_held_arrow_keys_coalesce_to_the_last_gene(table, qtbot):
    seen = []
    table.gene_chosen.connect(seen.append)
    for _ in range(3):
        qtbot.keyClick(table, Qt.Key.Key_Down)
    qtbot.waitUntil(lambda: bool(seen))
    qtbot.wait(20)
    assert seen == ["GAPDH"]
    qtbot.keyClick(table, Qt.Key.Key_Up)
    qtbot.waitUntil(lambda: len(seen) == 2)
    assert seen[-1] == "erbb3"


def test_choosing_from_outside_is_not_announced(table, qtbot):
    table.choose("CD3E")
    assert table.genes.name_at(table.currentIndex().row()) == "CD3E"
    with qtbot.assertNotEmitted(table.gene_chosen, wait=30):
        table.choose("MKI67")


def test_current_gene_survives_filter_and_order(table, qtbot):
    table.choose("CD3E")
    with qtbot.assertNotEmitted(table.gene_chosen, wait=30):
        table.genes.set_filter("ERB")
        assert not table.selectionModel().hasSelection()
        table.genes.set_filter("")
        table.sortByColumn(1, DESCENDING)
    assert table.current == "CD3E"
    assert table.genes.name_at(table.currentIndex().row()) == "CD3E"


def test_steps_stop_at_the_ends(table):
    table.step(-1)
    assert table.current == "MKI67"
    table.step(5)
    assert table.current == "MKI67"
    table.step(-50)
    assert table.current == "ERBB2"


def test_an_empty_table_takes_keys(qtbot):
    table = GeneTable()
    qtbot.addWidget(table)
    qtbot.keyClick(table, Qt.Key.Key_Down)
    assert table.current is None

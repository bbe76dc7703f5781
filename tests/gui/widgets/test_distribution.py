"""The distribution of scores, and the heat map of counts."""

from __future__ import annotations

import numpy as np
import pytest
from qtpy.QtCore import Qt

from napari_he2st.gui.widgets.distribution import Distribution
from napari_he2st.gui.widgets.heat_map import HeatMap

pytestmark = pytest.mark.gui

SCORES = np.array([[0.1, 0.5, 0.9], [0.2, np.nan, 0.4]])


@pytest.fixture
def plot(qtbot) -> Distribution:
    plot = Distribution()
    qtbot.addWidget(plot)
    plot.show_scores(["one", "two"], ["A", "B", "C"], SCORES)
    return plot


def test_every_known_score_is_a_point(plot):
    assert plot.n == 5
    assert plot.names == ["one", "two"]


def test_the_current_gene_is_ringed_where_it_is_known(plot):
    plot.show_gene("A")
    assert plot.n_rings == 2
    plot.show_gene("B")
    assert plot.n_rings == 1
    plot.show_gene("Z")
    assert plot.n_rings == 0


def test_a_place_belongs_to_the_nearest_gene(plot):
    column = 2
    assert plot.gene_near(0.9, float(plot._heights[column])) == "C"
    assert plot.gene_near(50.0, 0.0) is None


def test_keys_walk_along_the_first_row(plot, qtbot):
    plot.show_gene("A")
    with qtbot.waitSignal(plot.gene_chosen) as chosen:
        qtbot.keyClick(plot, Qt.Key.Key_Right)
    assert chosen.args == ["B"]


def test_a_heat_map_shows_counts_and_tells_cells(qtbot):
    heat_map = HeatMap()
    qtbot.addWidget(heat_map)
    heat_map.show_counts(["tumour", "stroma"], ["D1", "D2", "D3"], np.array([[5, 0, 1], [0, 9, 2]]))
    assert len(heat_map._texts) == 6
    heat_map.show_counts([], [], np.zeros((0, 0), dtype=int))
    assert heat_map.counts.size == 0

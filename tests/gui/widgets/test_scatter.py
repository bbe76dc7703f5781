"""The scatter of measured against predicted values."""

from __future__ import annotations

import numpy as np
import pytest
from qtpy.QtCore import Qt

from napari_he2st.gui.widgets.scatter import Scatter

pytestmark = pytest.mark.gui


@pytest.fixture
def scatter(qtbot) -> Scatter:
    scatter = Scatter()
    qtbot.addWidget(scatter)
    return scatter


def test_pairs_with_an_unknown_side_are_left_out(scatter):
    measured, predicted = np.array([0, 1, np.nan, 3.0]), np.array([0.5, np.nan, 2, 3])
    scatter.show_gene("ERBB2", measured, predicted, r=0.5, unit="log1p CP10k")
    assert scatter.n == 2
    assert scatter.title == "ERBB2: n = 2, r = 0.50"
    assert "log1p CP10k" in scatter.getAxis("left").labelText


def test_a_constant_gene_says_so(scatter):
    scatter.show_gene("A", np.zeros(3), np.arange(3.0), r=np.nan, unit="counts")
    assert "undefined" in scatter.title


def test_it_can_be_cleared(scatter):
    scatter.show_gene("A", np.arange(3.0), np.arange(3.0), r=1.0, unit="counts")
    scatter.clear_points()
    assert (scatter.n, scatter.title) == (0, "")


def test_many_spots_are_counted_in_hexagons(scatter):
    x = np.random.default_rng(0).normal(size=6_000)
    scatter.show_gene("A", x, x, r=1.0, unit="counts")
    assert scatter.n == 6_000
    assert 10 < len(scatter._points.data) < 2_000
    assert scatter._counts.sum() == 6_000


def test_keys_walk_from_above_the_line_to_below(scatter, qtbot):
    measured, predicted = np.array([0.0, 1, 2, 3, np.nan]), np.array([0.0, 3, 1, 3, 9])
    scatter.show_gene("A", measured, predicted, r=0.5, unit="counts", line=(1.0, 0.0))
    with qtbot.waitSignal(scatter.spot_chosen) as chosen:
        qtbot.keyClick(scatter, Qt.Key.Key_Right)
    assert chosen.args == [1]  # 2 above
    with qtbot.waitSignal(scatter.spot_chosen) as chosen:
        qtbot.keyClick(scatter, Qt.Key.Key_Right)
    assert chosen.args == [0]
    scatter.mark(None)
    with qtbot.waitSignal(scatter.spot_chosen) as chosen:
        qtbot.keyClick(scatter, Qt.Key.Key_Left)
    assert chosen.args == [2]  # 1 below


def test_a_place_belongs_to_the_nearest_spot(scatter):
    scatter.show_gene("A", np.array([0.0, np.nan, 2]), np.array([0.0, 1, 2]), r=1.0, unit="counts")
    assert scatter.row_near(2.0, 2.0) == 2
    assert scatter.row_near(500.0, 2.0) is None


def test_the_line_is_stated(scatter):
    x = np.arange(4.0)
    scatter.show_gene("A", x, 0.5 * x - 1, r=1.0, unit="counts", line=(0.5, -1.0))
    assert scatter.title.endswith("y = 0.50x − 1.00")

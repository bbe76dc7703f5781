"""The scatter of measured against predicted values."""

from __future__ import annotations

import numpy as np
import pytest

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

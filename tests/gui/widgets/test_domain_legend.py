"""The legend of domains."""

from __future__ import annotations

import numpy as np
import pytest

from napari_he2st.core.types import Domains
from napari_he2st.gui.widgets.domain_legend import DomainLegend

pytestmark = pytest.mark.gui


@pytest.fixture
def legend(qtbot) -> DomainLegend:
    legend = DomainLegend()
    qtbot.addWidget(legend)
    legend.show_domains(Domains(np.array([0, 0, 1, -1]), {}), 10_000.0)
    return legend


def row(legend, label):
    return [legend.item(label, column).text() for column in range(3)]


def test_sizes_are_given_in_spots_and_area(legend):
    assert row(legend, 0) == ["D1", "2", "0.02"]
    assert row(legend, 1) == ["D2", "1", "0.01"]


def test_without_a_lattice_there_is_no_area(legend):
    legend.show_domains(Domains(np.array([0, 0, 1]), {}), None)
    assert legend.isColumnHidden(2)


def test_renaming_is_announced(legend, qtbot):
    with qtbot.waitSignal(legend.renamed) as signal:
        legend.item(1, 0).setText("Tumour")
    assert signal.args == [1, "Tumour"]


def test_showing_is_not_announced(legend, qtbot):
    with qtbot.assertNotEmitted(legend.renamed):
        legend.show_domains(Domains(np.array([0, 1]), {}, names=("Tumour", "Stroma")), None)
    assert legend.item(0, 0).text() == "Tumour"


def test_the_chosen_row_stays(legend, qtbot):
    with qtbot.waitSignal(legend.domain_chosen) as signal:
        legend.setCurrentCell(1, 0)
    assert signal.args == [1]
    legend.show_domains(Domains(np.array([0, 1, 2]), {}), None)
    assert legend.currentRow() == 1
    legend.show_domains(None, None)
    assert legend.rowCount() == 0

"""The Domains dock: find, name, mark."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from qtpy.QtCore import Qt

from napari_he2st.analysis.domains import DOMAIN_METHODS
from napari_he2st.core.types import Domains
from napari_he2st.gui.docks.domains import DomainsDock
from napari_he2st.gui.workspace import layers_of

pytestmark = pytest.mark.gui

HALVES = np.repeat([0, 1], 35)


@pytest.fixture
def halves(session, slide, square_grid, measured):
    """A measured result whose left half expresses LEFT and whose right half RIGHT, with labels that say so."""

    def halves(*, labels: bool = True) -> None:
        session.add_slide(slide)
        grid = square_grid(7, 10)
        rng = np.random.default_rng(0)
        values = rng.normal(1, 0.1, size=(70, 6)).astype(np.float32)
        values[HALVES == 0, 0] += 2
        values[HALVES == 1, 1] += 2
        adata = measured(grid, values, ["LEFT", "RIGHT", "A", "B", "C", "D"])
        if labels:
            adata.obs["label"] = pd.Categorical(np.array(["tumour", "stroma"])[HALVES])
        session.add_adata(adata, slide.name)

    return halves


def markers_of(dock):
    return dock.table.genes.names()


def find(dock, qtbot, session, n=2):
    dock.method.setCurrentText("kmeans")
    dock.n_domains.setValue(n)
    dock.button.click()
    qtbot.waitUntil(lambda: "spots" in session.domains, timeout=20_000)
    qtbot.waitUntil(lambda: bool(markers_of(dock)), timeout=20_000)


def test_an_empty_session_says_what_to_do(open_dock):
    dock = open_dock(DomainsDock)
    assert "predict a slide" in dock.note.text()
    assert not dock.button.isEnabled()


def test_every_method_is_offered_with_its_own_options(open_dock):
    dock = open_dock(DomainsDock)
    for entry in DOMAIN_METHODS:
        dock.method.setCurrentText(entry.name)
        assert set(dock.options.names) == set(entry.options) - {"n_domains", "seed"}


def test_domains_are_found_listed_drawn_and_marked(open_dock, halves, session, viewer, qtbot):
    halves()
    dock = open_dock(DomainsDock)
    find(dock, qtbot, session)
    assert [dock.legend.item(row, 1).text() for row in range(2)] == ["35", "35"]
    assert dock.legend.item(0, 2).text() == f"{35 * 0.05**2:.2f}"
    assert layers_of(viewer).domains_layer("spots") in layers_of(viewer).viewer.layers
    first = "LEFT" if session.domains["spots"].labels[0] == 0 else "RIGHT"
    assert markers_of(dock)[0] == first
    dock.legend.setCurrentCell(1, 0)
    assert markers_of(dock)[0] == ({"LEFT", "RIGHT"} - {first}).pop()


def test_agreement_with_labels_is_given(open_dock, halves, session, qtbot):
    halves()
    dock = open_dock(DomainsDock)
    find(dock, qtbot, session)
    assert "ARI 1.00, NMI 1.00" in dock.agreement.text()
    assert "70 spots" in dock.agreement.text()


def test_without_labels_there_is_no_agreement(open_dock, halves, session, qtbot):
    halves(labels=False)
    dock = open_dock(DomainsDock)
    find(dock, qtbot, session)
    assert dock.agreement.text() == ""


def test_a_late_dock_shows_domains_and_their_markers(open_dock, halves, session, qtbot):
    halves()
    session.set_domains("spots", Domains(HALVES, {}))
    dock = open_dock(DomainsDock)
    assert dock.legend.rowCount() == 2
    qtbot.waitUntil(lambda: markers_of(dock)[:1] == ["LEFT"], timeout=20_000)


def test_renaming_reaches_the_data(open_dock, halves, session, qtbot):
    halves()
    session.set_domains("spots", Domains(HALVES, {}))
    dock = open_dock(DomainsDock)
    dock.legend.item(1, 0).setText("Invasive front")
    assert session.domains["spots"].titles == ["D1", "Invasive front"]
    assert list(session.results["spots"].adata.obs["domain"].cat.categories) == ["D1", "Invasive front"]
    qtbot.waitUntil(lambda: bool(markers_of(dock)), timeout=20_000)


def test_a_name_that_is_taken_is_refused(open_dock, halves, session, qtbot, monkeypatch):
    told = []
    monkeypatch.setattr("napari_he2st.gui.worker.show_error", told.append)
    halves()
    session.set_domains("spots", Domains(HALVES, {}))
    dock = open_dock(DomainsDock)
    dock.legend.item(1, 0).setText("D1")
    assert "name of its own" in told[0]
    assert dock.legend.item(1, 0).text() == "D2"


def test_markers_are_linked_to_the_gene(open_dock, halves, session, qtbot):
    halves()
    session.set_domains("spots", Domains(HALVES, {}))
    session.select(gene="RIGHT")
    dock = open_dock(DomainsDock)
    qtbot.waitUntil(lambda: bool(markers_of(dock)), timeout=20_000)
    qtbot.keyClick(dock.table, Qt.Key.Key_Down)
    qtbot.waitUntil(lambda: session.gene == "LEFT")


def test_a_gene_that_is_chosen_is_not_covered(open_dock, halves, session, viewer, qtbot):
    halves()
    session.set_domains("spots", Domains(HALVES, {}))
    dock, layer = open_dock(DomainsDock), layers_of(viewer).domains_layer("spots")
    assert dock.over.isChecked()
    session.select(gene="C")
    assert not layer.visible
    assert not dock.over.isChecked()
    dock.over.setChecked(True)
    assert layer.visible


def test_a_method_that_fails_says_why_and_the_button_comes_back(open_dock, halves, session, qtbot, monkeypatch):
    told = []
    monkeypatch.setattr("napari_he2st.gui.worker.show_error", told.append)
    halves()
    dock = open_dock(DomainsDock)
    dock.method.setCurrentText("kmeans")
    dock.n_domains.setValue(0)
    dock.button.click()
    qtbot.waitUntil(lambda: bool(told), timeout=20_000)
    qtbot.waitUntil(dock.button.isEnabled)
    assert "spots" not in session.domains


def test_a_stopped_prediction_has_no_domains(open_dock, fill, session):
    fill()
    session.select(result="run")
    dock = open_dock(DomainsDock)
    assert not dock.button.isEnabled()
    assert "complete" in dock.note.text()

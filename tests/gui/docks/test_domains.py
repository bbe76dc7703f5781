"""The Domains dock: find, name, mark."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from qtpy.QtCore import QItemSelectionModel, Qt
from qtpy.QtGui import QColor

from napari_he2st.analysis.domains import DOMAIN_METHODS
from napari_he2st.core.types import Domains, Region
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


def around(points, margin=1.0):
    low, high = points.min(axis=0) - margin, points.max(axis=0) + margin
    return Region.box(*low, *(high - low), f"around {points[0]}")


def markers_of(dock):
    return dock.views.table.genes.names()


def find(dock, qtbot, session, n=2):
    dock.method.combo.setCurrentText("kmeans")
    dock.n_domains.setValue(n)
    dock.button.click()
    qtbot.waitUntil(lambda: "spots" in session.domains, timeout=20_000)
    qtbot.waitUntil(lambda: bool(markers_of(dock)), timeout=20_000)


def test_an_empty_session_says_what_to_do(open_dock):
    dock = open_dock(DomainsDock)
    assert "predict a slide" in dock.note.text()
    assert not dock.button.isEnabled()


def test_every_method_is_offered_with_its_own_options(open_dock, qtbot):
    dock = open_dock(DomainsDock)
    for entry in DOMAIN_METHODS:
        dock.method.combo.setCurrentText(entry.name)
        assert set(dock.method.options.names) == set(entry.options) - {"n_domains", "seed"}
        assert dock.on.isEnabled()
    dock.method.combo.setCurrentText("spagcn")
    qtbot.waitUntil(lambda: "neighbour_share" in dock.method.options.names, timeout=60_000)
    assert "Weight of all other spots" in dock.method.options.tooltip("neighbour_share")
    assert not dock.on.isEnabled()


def test_a_published_method_runs_and_reports_itself(open_dock, halves, session, qtbot):
    halves()
    dock = open_dock(DomainsDock)
    dock.method.combo.setCurrentText("mucost")
    qtbot.waitUntil(lambda: "n_alike" in dock.method.options.names, timeout=60_000)
    dock.method.options.set_values(epochs=5, refine=0)
    dock.n_domains.setValue(2)
    dock.button.click()
    qtbot.waitUntil(lambda: "spots" in session.domains, timeout=60_000)
    assert session.domains["spots"].params["method"] == "mucost"
    assert session.domains["spots"].params["epochs"] == 5
    qtbot.waitUntil(lambda: not dock.busy, timeout=20_000)


def test_domains_are_merged_split_and_recoloured(open_dock, halves, session, viewer, qtbot, monkeypatch):
    halves()
    session.set_domains("spots", Domains(np.arange(70) % 3, {}))
    dock = open_dock(DomainsDock)
    for row in (0, 2):
        flags = QItemSelectionModel.SelectionFlag.Select | QItemSelectionModel.SelectionFlag.Rows
        dock.legend.selectionModel().select(dock.legend.model().index(row, 0), flags)
    dock._edit(dock._merge)
    assert session.domains["spots"].titles == ["D1", "D2"]
    assert np.bincount(session.domains["spots"].labels).tolist() == [47, 23]
    monkeypatch.setattr("napari_he2st.gui.docks.domains.QColorDialog.getColor", lambda *_: QColor("#123456"))
    dock.legend.setCurrentCell(0, 0)
    dock._edit(dock._recolour)
    assert session.domains["spots"].colours[0] == "#123456"
    xy = session.results["spots"].grid.xy
    low, high = xy.min(axis=0) - 1, np.array([np.median(xy[:, 0]), xy[:, 1].max() + 1])
    session.set_regions(session.results["spots"].slide, [Region.box(*low, *(high - low))])
    dock._edit(dock._split)
    found = session.domains["spots"]
    assert found.titles == ["D1", "D2", "D1 2"]
    assert found.n_domains == len(found.colours) == 3
    assert dock.legend.rowCount() == 3
    for titles in (["D1", "D2"], ["D1", "D2"], ["D1", "D2", "D3"]):  # split, recoloured, merged
        dock._edit(dock._undo)
        assert session.domains["spots"].titles == titles
    qtbot.waitUntil(lambda: not dock.busy, timeout=20_000)


def test_edits_that_make_no_sense_are_refused(open_dock, halves, session, qtbot, monkeypatch):
    told = []
    monkeypatch.setattr("napari_he2st.gui.worker.show_error", told.append)
    halves()
    session.set_domains("spots", Domains(HALVES, {}))
    dock = open_dock(DomainsDock)
    dock._edit(dock._merge)
    dock._edit(dock._split)
    dock._edit(dock._agree)
    assert "cannot be merged" in told[0]
    assert "No spots are chosen" in told[1]
    assert "Fewer than two methods" in told[2]
    dock._edit(dock._undo)
    assert "nothing to take back" in told[3]
    qtbot.waitUntil(lambda: not dock.busy, timeout=20_000)


def test_a_consensus_of_two_methods(open_dock, halves, session, qtbot):
    halves()
    dock = open_dock(DomainsDock)
    find(dock, qtbot, session)
    dock.method.combo.setCurrentText("mixture")
    dock.button.click()
    qtbot.waitUntil(lambda: session.domains["spots"].params["method"] == "mixture", timeout=20_000)
    dock._edit(dock._agree)
    assert session.domains["spots"].params["of"] == "kmeans+mixture"
    assert session.domains["spots"].n_domains == 2
    qtbot.waitUntil(lambda: not dock.busy, timeout=20_000)


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
    qtbot.waitUntil(lambda: bool(dock.labels.text.text()), timeout=20_000)
    assert "ARI 1.00, NMI 1.00, homogeneity 1.00, p = 0.005" in dock.labels.text.text()
    assert "70 spots" in dock.labels.text.text()


def test_without_labels_there_is_no_agreement(open_dock, halves, session, qtbot):
    halves(labels=False)
    dock = open_dock(DomainsDock)
    find(dock, qtbot, session)
    assert dock.labels.text.text() == ""


def test_labels_from_a_file_and_from_drawn_regions(open_dock, halves, session, qtbot, tmp_path):
    halves(labels=False)
    session.set_domains("spots", Domains(HALVES, {}))
    dock = open_dock(DomainsDock)
    result = session.results["spots"]
    rows = [f"{name},{'ab'[half]}" for name, half in zip(result.adata.obs_names, HALVES, strict=True)]
    file = tmp_path / "labels.csv"
    file.write_text("\n".join(["spot,label", *rows]))
    dock.labels.use_file(file)
    qtbot.waitUntil(lambda: "labels.csv: ARI 1.00" in dock.labels.text.text(), timeout=20_000)
    dock.labels.source.setCurrentText("drawn regions")
    session.set_regions(result.slide, [around(result.grid.xy[rows]) for rows in (slice(30), slice(40, 70))])
    qtbot.waitUntil(lambda: "drawn regions: ARI 1.00" in dock.labels.text.text(), timeout=20_000)


def test_a_lasso_among_alike_spots_rings_them_on_the_slide_and_back(open_dock, halves, session, viewer, qtbot):
    halves()
    embedding = np.random.default_rng(0).normal(size=(70, 5)).astype(np.float32) + 9 * HALVES[:, None]
    session.set_domains("spots", Domains(HALVES, {}, embedding.astype(np.float32)))
    dock = open_dock(DomainsDock)
    dock.views.setCurrentWidget(dock.views.map)
    qtbot.waitUntil(lambda: dock.views.map.n == 70, timeout=20_000)
    layout = dock.views.map.places
    dock.views.map.choose_within(around(layout[HALVES == 1], 0.1).polygon)
    assert session.spots.tolist() == (HALVES == 1).tolist()
    (ring,) = [layer for layer in viewer.layers if layer.name == "Chosen spots"]
    assert ring.visible
    assert len(ring.data) == dock.views.map.n_chosen == 35
    result = session.results["spots"]
    session.set_regions(result.slide, [around(result.grid.xy[[3]])])
    assert np.flatnonzero(session.spots).tolist() == [3]
    assert dock.views.map.n_chosen == 1
    dock.legend.setCurrentCell(0, 0)
    dock._edit(dock._split)
    assert np.flatnonzero(session.domains["spots"].labels == 2).tolist() == [3]
    assert dock.views.map.n == 70
    session.choose_spots(None)
    assert not ring.visible
    qtbot.waitUntil(lambda: not dock.busy, timeout=20_000)


def test_dots_show_the_markers_of_every_domain(open_dock, halves, session, qtbot):
    halves()
    session.set_domains("spots", Domains(HALVES, {}))
    dock = open_dock(DomainsDock)
    dock.views.setCurrentWidget(dock.views.dots)
    qtbot.waitUntil(lambda: {"LEFT", "RIGHT"} <= set(dock.views.dots.genes), timeout=20_000)
    dock.views.dots.gene_chosen.emit("RIGHT")
    assert session.gene == "RIGHT"
    dock.views.setCurrentIndex(0)
    dock.views.against.setCurrentIndex(1)
    dock.legend.setCurrentCell(0, 0)
    qtbot.waitUntil(lambda: markers_of(dock) == ["LEFT"], timeout=60_000)


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
    qtbot.keyClick(dock.views.table, Qt.Key.Key_Down)
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
    dock.method.combo.setCurrentText("kmeans")
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


def test_sections_that_are_ticked_share_their_domains(open_dock, halves, session, tissue_slide, qtbot, monkeypatch):
    told = []
    monkeypatch.setattr("napari_he2st.gui.worker.show_error", told.append)
    halves()
    dock = open_dock(DomainsDock)
    assert dock.together.isHidden()  # there is nothing to share with
    session.add_slide(tissue_slide)
    for name in ("one", "two"):
        session.add_adata(session.results["spots"].adata.copy(), tissue_slide.name, name=name)
    session.select(slide=tissue_slide.name, result="one")
    assert not dock.together.isHidden()
    assert [dock.others.item(row).text() for row in range(dock.others.count())] == ["spots", "two"]
    dock.others.item(1).setCheckState(Qt.CheckState.Checked)
    dock.button.click()
    qtbot.waitUntil(lambda: bool(told), timeout=60_000)
    assert "one section at a time" in told[0]
    dock.method.combo.setCurrentText("staig")
    qtbot.waitUntil(lambda: "n_looks" in dock.method.options.names, timeout=60_000)
    dock.method.options.set_values(epochs=5, refine=0, encoder="colour-texture")
    dock.n_domains.setValue(2)
    qtbot.waitUntil(dock.button.isEnabled, timeout=60_000)
    dock.button.click()
    qtbot.waitUntil(lambda: "two" in session.domains, timeout=60_000)
    one, other = (session.domains[name] for name in ("one", "two"))
    assert one.titles == other.titles == ["D1", "D2"]
    assert one.params["sections"] == 2
    assert (one.labels == other.labels).mean() > 0.9
    assert "5 epochs of" in dock.status.text.text()
    assert "spots" not in session.domains
    layers = layers_of(dock.viewer)
    assert layers.domains_layer("one").visible
    session.select(slide=session.results["spots"].slide, result="spots")
    assert not any(layers.domains_layer(name).visible for name in ("one", "two"))
    session.select(slide=tissue_slide.name, result="one")
    assert layers.domains_layer("one").visible
    qtbot.waitUntil(lambda: not dock.busy, timeout=60_000)

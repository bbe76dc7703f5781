"""The Compare dock: which results can be compared, what is shown of the comparison, what is saved."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QFileDialog

from napari_he2st.gui.docks.compare import CompareDock
from napari_he2st.gui.workspace import layers_of

pytestmark = pytest.mark.gui

GENES = ["GOOD", "BAD", "FLAT", "FAIR"]


@pytest.fixture
def results(session, slide, square_grid, measured):
    """A measured result and a prediction that is right for GOOD, wrong for BAD, constant for FLAT."""

    def results(*, domains: bool = False) -> None:
        session.add_slide(slide)
        grid, rng = square_grid(), np.random.default_rng(0)
        truth = rng.gamma(2, size=(35, 4)).astype(np.float32)
        guess = truth + rng.normal(0, [0.01, 0.01, 0, 1], size=truth.shape)
        guess[:, 1] = -truth[:, 1]
        guess[:, 2] = 1
        spots, run = measured(grid, truth, GENES), measured(grid, guess, GENES)
        run.uns["he2st"]["kind"] = "predicted"
        if domains:
            spots.obs["label"] = pd.Categorical(np.where(np.arange(35) < 20, "tumour", "stroma"))
            run.obs["domain"] = pd.Categorical(np.where(np.arange(35) < 20, "D1", "D2"))
        session.add_adata(spots, slide.name, name="spots")
        session.add_adata(run, slide.name, name="run")

    return results


@pytest.fixture
def compared(open_dock, results, session, qtbot):
    """A dock after its button was pressed."""

    def compared(**options) -> CompareDock:
        results(**options)
        dock = open_dock(CompareDock)
        dock.button.click()
        qtbot.waitUntil(lambda: session.comparison is not None, timeout=20_000)
        return dock

    return compared


def test_it_says_which_side_is_missing(open_dock, session, slide, scattered_grid, measured):
    dock = open_dock(CompareDock)
    assert "no prediction" in dock.note.text()
    assert not dock.button.isEnabled()
    session.add_slide(slide)
    run = measured(scattered_grid(), np.ones((60, 1)), ["A"])
    run.uns["he2st"]["kind"] = "predicted"
    session.add_adata(run, slide.name)
    assert "no measurement" in dock.note.text()


def test_each_chooser_offers_its_kind(open_dock, fill):
    fill()
    dock = open_dock(CompareDock)
    assert dock.predicted.currentText() == "run (predicted)"
    assert dock.measured.currentText() == "spots (measured)"
    assert "complete" in dock.note.text()


def test_results_on_two_slides_are_not_compared(open_dock, results, session, slide, scattered_grid, measured):
    results()
    other = type(slide)(name="other")
    session.add_slide(other)
    session.add_adata(measured(scattered_grid(), np.ones((60, 1)), ["A"]), "other", name="elsewhere")
    dock = open_dock(CompareDock)
    dock.measured.choose("elsewhere")
    dock.measured.result_chosen.emit("elsewhere")
    assert "lies on section" in dock.note.text()
    assert not dock.button.isEnabled()


def test_genes_are_ranked_by_correlation(compared, session):
    dock = compared()
    assert session.compared == ("run", "spots")
    assert dock.table.genes.names() == ["GOOD", "FAIR", "BAD", "FLAT"]
    text = dock.summary.text()
    assert "3 genes" in text
    assert "35 spots" in text
    assert "do not vary on one side: 1" in text


def test_choosing_a_gene_moves_map_and_scatter(compared, session, qtbot):
    dock = compared()
    session.select(gene="GOOD")
    assert dock.scatter.title == "GOOD: n = 35, r = 1.00"
    qtbot.keyClick(dock.table, Qt.Key.Key_Down)
    qtbot.waitUntil(lambda: session.gene == "FAIR")
    assert dock.scatter.title.startswith("FAIR")
    session.select(gene="FLAT")
    assert "undefined" in dock.scatter.title


def test_a_gene_outside_both_panels_is_named(compared, session):
    dock = compared()
    session.select(gene="CD3E")
    assert dock.scatter.n == 0
    assert "not in both panels" in dock.status.text.text()


def test_side_by_side_follows_the_gene_and_leaves(compared, session, viewer):
    dock, view = compared(), layers_of(viewer).side_by_side
    session.select(gene="GOOD")
    dock.side_by_side.setChecked(True)
    assert view.gene == "GOOD"
    session.select(gene="BAD")
    assert view.gene == "BAD"
    dock.side_by_side.setChecked(False)
    assert view.comparison is None
    assert not viewer.canvas.grid.enabled


def test_groupings_are_compared_where_both_exist(compared):
    assert "ARI 1.00, NMI 1.00" in compared(domains=True).summary.text()


def test_a_late_dock_shows_the_last_comparison(compared, open_dock, session, viewer):
    first = compared()
    first.side_by_side.setChecked(True)
    late = open_dock(CompareDock)
    assert late.table.genes.rowCount() == 4
    assert late.summary.text() == first.summary.text()
    assert late.side_by_side.isChecked()


def test_removing_a_result_removes_its_comparison(compared, session, viewer):
    dock = compared()
    dock.side_by_side.setChecked(True)
    session.remove_result("run")
    assert session.comparison is None
    assert dock.table.genes.rowCount() == 0
    assert not viewer.canvas.grid.enabled


def test_a_new_result_ends_the_side_by_side(compared, session, viewer, slide, measured, square_grid):
    dock = compared()
    dock.side_by_side.setChecked(True)
    session.add_adata(measured(square_grid(), np.ones((35, 1)), ["A"]), slide.name, name="third")
    assert not dock.side_by_side.isChecked()
    assert not viewer.canvas.grid.enabled


@pytest.mark.parametrize(
    ("button", "suffix", "holds"), [("table_button", ".csv", "pcc"), ("report_button", ".html", "GOOD")]
)
def test_scores_are_saved(compared, monkeypatch, tmp_path, qtbot, button, suffix, holds):
    dock = compared()
    monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *_, **__: (str(tmp_path / "scores"), ""))
    getattr(dock, button).click()
    qtbot.waitUntil(lambda: "Written" in dock.status.text.text(), timeout=30_000)
    assert holds in (tmp_path / f"scores{suffix}").read_text()

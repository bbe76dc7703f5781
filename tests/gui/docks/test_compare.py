"""The Compare dock: which results can be compared, what is shown of the comparison, what is saved."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from qtpy.QtCore import Qt
from qtpy.QtGui import QHideEvent
from qtpy.QtWidgets import QAbstractButton, QApplication, QComboBox, QFileDialog, QLineEdit, QListWidget, QTableView

from napari_he2st.core.types import Transform
from napari_he2st.gui.docks.compare import CompareDock
from napari_he2st.gui.workspace import layers_of

pytestmark = pytest.mark.gui

GENES = ["GOOD", "BAD", "FLAT", "FAIR"]


@pytest.fixture
def results(session, slide, square_grid, measured):
    """A measured result and a prediction that is right for GOOD, wrong for BAD, constant for FLAT."""

    def results(*, domains: bool = False, second: bool = False, counts: bool = False) -> None:
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
        if counts:
            run.X = np.abs(np.round(10 * run.X))
            run.uns["he2st"]["scale"] = "counts"
        session.add_adata(spots, slide.name, name="spots")
        if second:
            worse = run.copy()
            worse.X[:, [0, 3]] += rng.normal(0, 5, (35, 2))
            session.add_adata(worse, slide.name, name="worse")
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
        qtbot.waitUntil(lambda: dock.ranking.ranking is not None, timeout=20_000)
        return dock

    return compared


# --- choosing


def test_it_says_which_side_is_missing(open_dock, session, slide, scattered_grid, measured):
    dock = open_dock(CompareDock)
    assert "no prediction" in dock.choice.note.text()
    assert not dock.button.isEnabled()
    session.add_slide(slide)
    run = measured(scattered_grid(), np.ones((60, 1)), ["A"])
    run.uns["he2st"]["kind"] = "predicted"
    session.add_adata(run, slide.name)
    assert "no measurement" in dock.choice.note.text()


def test_what_was_measured_is_the_first_reference(open_dock, fill):
    fill()
    dock = open_dock(CompareDock)
    assert dock.choice.reference.currentText() == "spots (measured)"
    assert [dock.choice.judged.item(row).text() for row in range(dock.choice.judged.count())] == [
        "run (predicted) – not complete"
    ]
    assert not dock.button.isEnabled()


def test_results_on_two_slides_are_not_compared(open_dock, results, session, slide, scattered_grid, measured):
    results()
    other = type(slide)(name="other")
    session.add_slide(other)
    session.add_adata(measured(scattered_grid(), np.ones((60, 1)), ["A"]), "other", name="elsewhere")
    dock = open_dock(CompareDock)
    dock.choice.choose("elsewhere")
    assert "lies on section" in dock.choice.judged.item(0).text()
    assert "Tick a result" in dock.choice.note.text()
    assert not dock.button.isEnabled()


def test_a_tick_decides_what_is_judged(open_dock, results, session):
    results(second=True)
    dock = open_dock(CompareDock)
    assert [result.name for result in dock.choice.results] == ["worse", "run"]
    dock.choice.tick("worse", on=False)
    assert [result.name for result in dock.choice.results] == ["run"]
    session.select(gene="GOOD")
    dock.choice.refill()
    assert [result.name for result in dock.choice.results] == ["run"]
    dock.choice.tick("run", on=False)
    assert not dock.button.isEnabled()


def test_any_two_results_are_compared(open_dock, results, session, qtbot):
    results(second=True)
    dock = open_dock(CompareDock)
    dock.choice.choose("run")
    dock.choice.tick("spots", on=False)
    dock.button.click()
    qtbot.waitUntil(lambda: session.comparison is not None, timeout=20_000)
    assert session.compared == ("worse", "run")
    assert session.comparison.titles == ("worse (predicted)", "run (predicted)")
    assert "worse (predicted)" in dock.genes.scatter.getAxis("left").labelText


def test_scales_are_not_mixed_but_converted(open_dock, results, session, qtbot):
    results(counts=True)
    dock = open_dock(CompareDock)
    assert "counts" in dock.choice.note.text()
    assert "genes they share" in dock.choice.note.text()
    assert not dock.button.isEnabled()
    assert dock.choice.convert.isVisibleTo(dock)
    dock.choice.convert.click()
    qtbot.waitUntil(lambda: session.comparison is not None, timeout=20_000)
    assert session.comparison.scale == "log1p_cp10k_panel"
    assert "Converted" in dock.summary.text()


def test_scales_without_a_way_back_are_refused(open_dock, results, session):
    results(counts=True)
    session.results["spots"].scale = "as_stored"
    session.results["spots"].adata.uns["he2st"]["scale"] = "as_stored"
    dock = open_dock(CompareDock)
    assert "cannot be brought to one scale" in dock.choice.note.text()
    assert not dock.choice.convert.isVisibleTo(dock)
    assert not dock.button.isEnabled()


# --- genes


def test_genes_are_ranked_by_correlation(compared, session):
    dock = compared()
    assert session.compared == ("run", "spots")
    assert dock.genes.table.genes.names() == ["GOOD", "FAIR", "BAD", "FLAT"]
    text = dock.summary.text()
    assert "3 genes" in text
    assert "35 spots (nearest spots paired; without a partner 0 of 35 measured, 0 of 35 predicted)" in text
    assert "do not vary on one side: 1" in text


def test_the_table_has_every_score(compared):
    titles = [column.title for column in compared().genes.table.genes.columns]
    assert titles[:6] == ["gene", "pcc", "from", "to", "spearman", "n"]
    assert {"mse", "mae", "ssim", "rvd", "moran predicted", "moran measured"} <= set(titles)


def test_choosing_a_gene_moves_map_and_scatter(compared, session, qtbot):
    dock = compared()
    session.select(gene="GOOD")
    assert dock.genes.scatter.title.startswith("GOOD: n = 35, r = 1.00, y = ")
    qtbot.keyClick(dock.genes.table, Qt.Key.Key_Down)
    qtbot.waitUntil(lambda: session.gene == "FAIR")
    assert dock.genes.scatter.title.startswith("FAIR")
    session.select(gene="FLAT")
    assert "undefined" in dock.genes.scatter.title


def test_a_gene_outside_both_panels_is_named(compared, session):
    dock = compared()
    session.select(gene="CD3E")
    assert dock.genes.scatter.n == 0
    assert "not in both panels" in dock.status.text.text()


def test_a_spot_of_the_scatter_is_located_and_back(compared, session, viewer, qtbot):
    dock = compared()
    grid = session.comparison.grid
    dock.genes.scatter.choose(7)
    ring = viewer.layers["picked spot"]
    expected = grid.xy[7][::-1] * grid.mpp
    np.testing.assert_allclose(ring.data, [expected])
    np.testing.assert_allclose(viewer.scene.camera.center[-2:], expected)
    assert dock.genes.spot.text().startswith("spot7: r over genes")
    dock._spot.pick(9)  # as a click on the picture does
    assert dock.genes.scatter.marked == 9
    session.select(gene="FAIR")
    assert dock.genes.scatter.marked == 9
    QApplication.sendEvent(dock, QHideEvent())
    assert "picked spot" not in viewer.layers


def test_a_picked_spot_is_marked_in_every_panel(compared, session, viewer):
    dock = compared()
    dock.genes.scatter.choose(7)
    dock.side_by_side.setChecked(True)
    assert "picked spot" not in viewer.layers
    assert [len(layer.data) for layer in viewer.layers[2:9:3]] == [1, 1, 1]
    dock.genes.scatter.choose(8)
    grid = session.comparison.grid
    np.testing.assert_allclose(viewer.layers[2].data, [grid.xy[8][::-1] * grid.mpp])


# --- on the slide


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


def choose(combo: QComboBox, data: str) -> None:
    """Choose an item as a user does."""
    combo.setCurrentIndex(combo.findData(data))
    combo.activated.emit(combo.currentIndex())


def test_the_third_map_is_chosen(compared, session, viewer):
    dock, view = compared(), layers_of(viewer).side_by_side
    session.select(gene="FAIR")
    dock.side_by_side.setChecked(True)
    choose(dock.third, "residual")
    assert view.third == "residual"
    assert "FAIR, residual" in viewer.layers


def test_a_map_lies_over_the_slide(compared, session, viewer):
    dock = compared()
    session.select(gene="FAIR")
    choose(dock.third, "agreement")
    dock.on_slide.setChecked(True)
    layer = viewer.layers["r over genes, agreement"]
    assert not layers_of(viewer).result_layer("run").visible
    np.testing.assert_allclose(layer.features["value"], session.comparison.spots["pcc"].to_numpy(np.float32))
    choose(dock.third, "difference")
    session.select(gene="GOOD")
    assert "GOOD, difference" in viewer.layers
    low, high = viewer.layers["GOOD, difference"].face_contrast_limits
    assert low == -high
    dock.on_slide.setChecked(False)
    assert "GOOD, difference" not in viewer.layers
    assert layers_of(viewer).result_layer("run").visible


def test_a_second_slide_joins_the_panels(compared, session, slide, viewer):
    dock, view = compared(), layers_of(viewer).side_by_side
    session.add_slide(type(slide)(name="IHC"))
    session.select(slide=slide.name, gene="GOOD")
    dock.second.choose("IHC")
    assert "not in register" in dock.second.text.text()
    dock.side_by_side.setChecked(True)
    assert len(view._layers) == 9
    session.register_slide("IHC", slide.name, Transform.scale(1.0, (30.0, 0.0)))
    assert "shifted by (30, 0) µm" in dock.second.text.text()
    assert tuple(viewer.canvas.grid.shape) == (2, 2)
    assert viewer.layers[9].name == "IHC, registered"


def test_a_matrix_registers_the_second_slide(compared, session, slide, tmp_path):
    dock = compared()
    session.add_slide(type(slide)(name="IHC", mpp=1.0))
    dock.second.choose("IHC")
    path = tmp_path / "matrix.csv"
    path.write_text("2,0,100\n0,2,0\n0,0,1\n")
    dock.second.read_matrix(path)
    found = session.registrations["IHC", slide.name]
    np.testing.assert_allclose(found([[10.0, 20.0]]), [[60.0, 20.0]])  # 10 µm = 10 px -> 120 px = 60 µm
    np.testing.assert_allclose(session.registrations[slide.name, "IHC"]([[60.0, 20.0]]), [[10.0, 20.0]])


# --- ranking and domains


def test_several_results_are_ranked(compared, session, qtbot):
    dock = compared(second=True)
    assert dock.ranking.ranking.names == ["run", "worse"]
    assert dock.ranking.distribution.names == ["run", "worse"]
    assert "agrees better" in dock.ranking.text.text() or "told apart" in dock.ranking.text.text()
    assert dock.judged.isVisibleTo(dock)
    assert session.compared[0] == "worse"
    dock.ranking.table.choose(None)
    dock.ranking.table.selectRow(0)
    qtbot.waitUntil(lambda: session.compared[0] == "run")
    assert dock.judged.currentData() == "run"
    choose(dock.judged, "worse")
    assert session.compared[0] == "worse"


def test_a_gene_is_chosen_in_the_distribution(compared, session):
    dock = compared(second=True)
    dock.ranking.distribution.gene_chosen.emit("FAIR")
    assert session.gene == "FAIR"
    assert dock.ranking.distribution.n_rings == 2


def test_groupings_are_compared_where_both_exist(compared, session, qtbot):
    dock = compared(domains=True)
    qtbot.waitUntil(lambda: dock.domains.found is not None, timeout=20_000)
    assert "ARI 1.00, NMI 1.00" in dock.domains.text.text()
    np.testing.assert_array_equal(dock.domains.heat_map.counts, [[0, 15], [20, 0]])
    assert dock.domains.table.genes.names() == ["stroma", "tumour"]
    session.select(result="spots")
    dock.domains.heat_map.cell_chosen.emit(1, 0)
    assert session.spots.sum() == 20


def test_without_groups_it_says_where_to_find_them(compared):
    assert "Domains dock" in compared().domains.text.text()


# --- coming and going


def test_a_late_dock_shows_the_last_comparison(compared, open_dock, session, viewer):
    first = compared()
    first.side_by_side.setChecked(True)
    late = open_dock(CompareDock)
    assert late.genes.table.genes.rowCount() == 4
    assert late.summary.text() == first.summary.text()
    assert late.side_by_side.isChecked()


def test_removing_a_result_removes_its_comparison(compared, session, viewer):
    dock = compared()
    dock.side_by_side.setChecked(True)
    session.remove_result("run")
    assert session.comparison is None
    assert dock.genes.table.genes.rowCount() == 0
    assert not viewer.canvas.grid.enabled


def test_removing_one_of_several_keeps_the_others(compared, session):
    dock = compared(second=True)
    session.remove_result("worse")
    assert list(session.comparisons) == ["run"]
    assert session.compared == ("run", "spots")
    assert not dock.judged.isVisibleTo(dock)


def test_a_new_result_ends_the_side_by_side(compared, session, viewer, slide, measured, square_grid):
    dock = compared()
    dock.side_by_side.setChecked(True)
    session.add_adata(measured(square_grid(), np.ones((35, 1)), ["A"]), slide.name, name="third")
    assert not dock.side_by_side.isChecked()
    assert not viewer.canvas.grid.enabled


def test_keys_go_round_the_tabs(compared, qtbot):
    dock = compared()
    assert dock.tabs.current is dock.genes
    qtbot.keyClick(dock.tabs, Qt.Key.Key_Tab, Qt.KeyboardModifier.ControlModifier)
    assert dock.tabs.current is dock.ranking
    assert not dock.genes.isVisibleTo(dock)
    qtbot.keyClick(dock.tabs, Qt.Key.Key_Backtab, Qt.KeyboardModifier.ControlModifier)
    assert dock.tabs.current is dock.genes


def test_everything_has_a_tooltip(compared):
    dock = compared(second=True, domains=True)
    kinds = (QAbstractButton, QComboBox, QLineEdit, QListWidget, QTableView)
    for widget in dock.findChildren(kinds):
        if widget.objectName().startswith("qt_") or "Header" in type(widget.parent()).__name__:
            continue
        inner = type(widget).__name__ in ("QToolButton", "QTableCornerButton") or isinstance(
            widget.parent(), QComboBox | QLineEdit | QTableView
        )
        assert inner or widget.toolTip(), widget


# --- saving


@pytest.mark.parametrize(("number", "suffix", "holds"), [(0, ".csv", "pcc"), (1, ".html", "GOOD")])
def test_scores_are_saved(compared, monkeypatch, tmp_path, qtbot, number, suffix, holds):
    dock = compared()
    monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *_, **__: (str(tmp_path / "scores"), ""))
    dock.save_button.menu().actions()[number].trigger()
    qtbot.waitUntil(lambda: "Written" in dock.status.text.text(), timeout=30_000)
    assert holds in (tmp_path / f"scores{suffix}").read_text()


def test_figures_are_saved(compared, monkeypatch, tmp_path, qtbot):
    dock = compared()
    monkeypatch.setattr(QFileDialog, "getExistingDirectory", lambda *_, **__: str(tmp_path))
    dock.save_button.menu().actions()[2].trigger()
    qtbot.waitUntil(lambda: "figures written" in dock.status.text.text(), timeout=30_000)
    assert {path.stem for path in tmp_path.glob("*.png")} == {path.stem for path in tmp_path.glob("*.svg")}
    assert (tmp_path / "scatter.svg").read_text().lstrip().startswith("<?xml")

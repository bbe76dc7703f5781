"""Predict dock: choose, plan, run, stop."""

from __future__ import annotations

import numpy as np
import pytest

from napari_he2st.core.progress import Control
from napari_he2st.core.types import Chunk, Region
from napari_he2st.engine.store import read_manifest
from napari_he2st.gui.docks.predict import PredictDock
from napari_he2st.gui.docks.where_box import REGIONS, SPOTS, VIEW, WHOLE
from napari_he2st.gui.prediction import Run

WAIT_MS = 30_000


@pytest.fixture
def dock(make_napari_viewer_proxy, qtbot, tissue_slide, bundle_folder):
    viewer = make_napari_viewer_proxy()
    dock = PredictDock(viewer)
    viewer.window.add_dock_widget(dock)
    dock.session.add_slide(tissue_slide)
    dock.load(str(bundle_folder))
    dock.opened()  # as showing it does
    qtbot.waitUntil(lambda: dock.run_button.isEnabled(), timeout=WAIT_MS)
    yield dock
    qtbot.waitUntil(lambda: not dock.busy, timeout=WAIT_MS)


@pytest.fixture
def slow_run(monkeypatch):
    """Predict a spot at a time, slowly, so that a test can act meanwhile."""
    import time

    def chunks(self: Run, *, control: Control):
        control.start(len(self.grid), "Predicting")
        for row in range(len(self.grid)):
            yield Chunk("expression", np.array([row]), np.ones((1, 3), np.float32))
            control.advance()
            time.sleep(0.01)

    monkeypatch.setattr(Run, "chunks", chunks)


def test_tiles_and_cost_are_known_before_the_run(dock, qtbot):
    assert dock.predictor.models.currentText() == "Three means (3 genes)"
    assert dock.where.pitch.value() == 25.0
    n = len(dock.where.grid)
    assert f"{n:,} tiles" in dock.where.cost.text()
    qtbot.waitUntil(lambda: "about" in dock.where.cost.text(), timeout=WAIT_MS)
    dock.where.preview.setChecked(True)
    assert "Tiles to predict" in dock.viewer.layers
    dock.where.pitch.setValue(50.0)
    assert not dock.run_button.isEnabled()
    qtbot.waitUntil(lambda: dock.run_button.isEnabled(), timeout=WAIT_MS)
    assert len(dock.where.grid) < n


def test_the_whole_slide_is_predicted_and_finished(dock, qtbot):
    dock.run_button.click()
    name = dock.session.result
    result = dock.session.results[name]
    qtbot.waitUntil(lambda: result.adata is not None, timeout=WAIT_MS)
    assert result.kind == "predicted"
    np.testing.assert_allclose(result.values, np.tile([1.0, 2.0, 3.0], (len(result.grid), 1)))
    np.testing.assert_allclose(result.scores, [0.5, 0.3, 0.1])
    assert result.adata.uns["he2st"]["bundle"] == "three-means"
    assert result.warnings == []
    assert dock.layers.result_layer(name).name == "ERBB2, log1p CP10k — predicted"
    assert dock.session.gene == "ERBB2"


def test_what_is_kept_on_disk_is_kept_in_the_precision_that_is_chosen(dock, qtbot, monkeypatch, tmp_path):
    monkeypatch.setenv("HE2ST_CACHE", str(tmp_path))
    assert not dock.precision.isEnabled()
    qtbot.waitUntil(lambda: "about" in dock.where.cost.text(), timeout=WAIT_MS)
    assert "on disk" not in dock.where.cost.text()
    dock.keep.setChecked(True)
    assert "on disk" in dock.where.cost.text()
    stores = []
    for precision in ("float32", "float16"):
        dock.precision.setCurrentText(precision)
        qtbot.waitUntil(dock.run_button.isEnabled, timeout=WAIT_MS)
        dock.run_button.click()
        name = dock.session.result
        qtbot.waitUntil(lambda name=name: dock.session.results[name].adata is not None, timeout=WAIT_MS)
        (new,) = set((tmp_path / "runs").iterdir()) - set(stores)
        stores.append(new)
        assert read_manifest(new)["precision"] == precision


def test_regions_and_view_narrow_the_plan(dock, qtbot):
    whole = len(dock.where.grid)
    dock.where.area.setCurrentText(REGIONS)
    assert dock.where.cost.text() == "Draw a region over tissue."
    dock.session.set_regions("tissue", [Region.box(400, 300, 200, 200)])
    qtbot.waitUntil(lambda: dock.run_button.isEnabled(), timeout=WAIT_MS)
    assert len(dock.where.grid) == 16
    dock.where.area.setCurrentText(VIEW)
    qtbot.waitUntil(lambda: dock.run_button.isEnabled(), timeout=WAIT_MS)
    assert 0 < len(dock.where.grid) <= whole


def test_the_stain_is_previewed_and_recorded(dock, qtbot):
    layer = dock.layers.slide_layer("tissue")
    before = np.asarray(layer.data[-1])
    dock.stain.method.setCurrentIndex(dock.stain.method.findData("reinhard"))
    assert (np.asarray(layer.data[-1]) == before).all()
    dock.stain.preview.setChecked(True)
    qtbot.waitUntil(lambda: (np.asarray(layer.data[-1]) != before).any(), timeout=WAIT_MS)
    dock.stain.preview.setChecked(False)
    qtbot.waitUntil(lambda: not dock.busy, timeout=WAIT_MS)
    assert (np.asarray(layer.data[-1]) == before).all()
    qtbot.waitUntil(lambda: dock.run_button.isEnabled(), timeout=WAIT_MS)
    dock.run_button.click()
    name = dock.session.result
    qtbot.waitUntil(lambda: dock.session.results[name].adata is not None, timeout=WAIT_MS)
    assert dock.session.results[name].adata.uns["he2st"]["colours"] == "reinhard"


def test_the_map_fills_while_it_runs_and_stopping_keeps_it(dock, qtbot, slow_run):
    dock.run_button.click()
    result = dock.session.current_result
    layer = dock.layers.result_layer(result.name)
    qtbot.waitUntil(lambda: np.isfinite(layer.data).sum() > 3, timeout=WAIT_MS)
    assert not dock.run_button.isEnabled()
    assert not dock.status.cancel_button.isHidden()
    dock.status.cancel_button.click()
    qtbot.waitUntil(lambda: result.adata is not None, timeout=WAIT_MS)
    done = np.isfinite(result.values).all(axis=1).sum()
    assert 3 < done < len(result.grid)
    assert np.isfinite(result.adata.X).all(axis=1).sum() == done
    assert result.warnings[0].startswith("Stopped after")
    qtbot.waitUntil(lambda: dock.run_button.isEnabled(), timeout=WAIT_MS)


def test_removing_the_slide_ends_the_run(dock, qtbot, slow_run):
    dock.run_button.click()
    qtbot.waitUntil(lambda: np.isfinite(dock.session.current_result.values).any(), timeout=WAIT_MS)
    dock.session.remove_slide("tissue")
    qtbot.waitUntil(lambda: not dock.busy, timeout=WAIT_MS)
    assert dock.session.results == {}
    assert not dock.run_button.isEnabled()


def test_another_organ_is_pointed_out(dock, qtbot, monkeypatch):
    warned = []
    monkeypatch.setattr("napari_he2st.gui.docks.base.show_warning", warned.append)
    assert dock.origin.doubt.isHidden()
    dock.origin.species.setCurrentText("mouse")
    assert "human, not mouse" in dock.origin.doubt.text()
    dock.run_button.click()
    result = dock.session.current_result
    assert result.warnings == warned
    qtbot.waitUntil(lambda: result.adata is not None, timeout=WAIT_MS)


def test_a_system_without_weights_cannot_run(dock, qtbot):
    qtbot.waitUntil(lambda: dock.predictor.models.findData("ridge") >= 0, timeout=WAIT_MS)
    dock.predictor.models.setCurrentIndex(dock.predictor.models.findData("ridge"))
    assert not dock.run_button.isEnabled()
    assert dock.predictor.rest.shown["Weights"].startswith("none yet")
    assert "has to be trained first" in dock.status.text.text()


def test_the_area_starts_with_the_whole_slide(dock):
    assert dock.where.area.currentText() == WHOLE


def test_measured_spots_are_predicted_where_they_lie(dock, qtbot, measured, scattered_grid):
    dock.where.area.setCurrentText(SPOTS)
    assert "Load measured expression" in dock.where.cost.text()
    assert not dock.run_button.isEnabled()
    grid = scattered_grid(20)
    dock.session.add_adata(measured(grid, np.ones((20, 2)), ["ERBB2", "GAPDH"]), dock.session.slide)
    qtbot.waitUntil(lambda: dock.run_button.isEnabled(), timeout=WAIT_MS)
    dock.run_button.click()
    name = dock.session.result
    qtbot.waitUntil(lambda: dock.session.results[name].adata is not None, timeout=WAIT_MS)
    np.testing.assert_array_equal(dock.session.results[name].adata.obsm["spatial"], grid.xy)

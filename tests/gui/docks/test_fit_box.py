"""Fitting a system to the slide that is open, in the Predict dock."""

from __future__ import annotations

import numpy as np
import pytest

from napari_he2st.core import keys
from napari_he2st.gui.docks.predict import PredictDock

WAIT_MS = 60_000


@pytest.fixture
def dock(make_napari_viewer_proxy, qtbot, tissue_slide, monkeypatch, tmp_path):
    monkeypatch.setenv("HE2ST_CACHE", str(tmp_path))
    viewer = make_napari_viewer_proxy()
    dock = PredictDock(viewer)
    viewer.window.add_dock_widget(dock)
    dock.session.add_slide(tissue_slide)
    dock.opened()
    qtbot.waitUntil(lambda: dock.predictor.models.findData("istar") >= 0, timeout=WAIT_MS)
    yield dock
    qtbot.waitUntil(lambda: not dock.busy, timeout=WAIT_MS)


def test_a_system_of_a_cohort_is_not_fitted_here(dock):
    dock.predictor.models.setCurrentIndex(dock.predictor.models.findData("histogene"))
    assert not dock.fit.isVisibleTo(dock)


def test_spots_have_to_be_there(dock):
    dock.predictor.models.setCurrentIndex(dock.predictor.models.findData("istar"))
    assert dock.fit.isVisibleTo(dock)
    assert not dock.fit.button.isEnabled()
    assert "Load expression" in dock.fit.state.text()


def test_istar_is_fitted_and_then_predicts(dock, qtbot, scattered_grid, measured):
    grid = scattered_grid()
    counts = np.random.default_rng(0).poisson(5, size=(len(grid), 3)).astype(np.float32)
    adata = measured(grid, counts, ["A", "B", "C"])
    adata.layers[keys.COUNTS] = counts
    dock.session.add_adata(adata, dock.session.slide)
    dock.predictor.models.setCurrentIndex(dock.predictor.models.findData("istar"))
    dock.fit.variant.setCurrentText("tiny")
    dock.fit.genes.setValue(3)
    dock.fit.epochs.setValue(2)
    assert dock.fit.button.isEnabled()
    dock.fit.button.click()
    qtbot.waitUntil(lambda: dock.run_button.isEnabled(), timeout=WAIT_MS)
    assert dock.where.pitch.value() == 8
    dock.run_button.click()
    qtbot.waitUntil(lambda: not dock.busy and dock.session.current_result.kind == "predicted", timeout=WAIT_MS)
    result = dock.session.current_result
    assert result.scale == "counts"
    assert np.isfinite(result.values).all()

"""Predict dock with a predictor that gives one result for a slide."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from napari_he2st.gui.docks.predict import PredictDock
from napari_he2st.zoo.bundle import Bundle
from napari_he2st.zoo.manifest import Manifest
from napari_he2st.zoo.slide_level.clam import CLAM

WAIT_MS = 60_000


@pytest.fixture
def classifier(tmp_path) -> Bundle:
    torch.manual_seed(0)
    arguments = {"encoder": "colour-texture", "tile_px": 64, "tile_mpp": 0.5, "n_classes": 2}
    facts = {"genes": ("no", "yes"), "scale": "probability", "tile_px": 64, "mpp": 0.5, "pitch_um": 32.0}
    manifest = Manifest(name="mutated", title="Mutated?", system="clam", arguments=arguments, **facts)
    bundle = Bundle([CLAM(**arguments).eval()], manifest)
    bundle.save(tmp_path / "mutated.he2st")
    return bundle


def test_a_slide_has_one_result_and_a_map(make_napari_viewer_proxy, qtbot, tissue_slide, classifier, tmp_path):
    viewer = make_napari_viewer_proxy()
    dock = PredictDock(viewer)
    viewer.window.add_dock_widget(dock)
    dock.session.add_slide(tissue_slide)
    dock.load(str(tmp_path / "mutated.he2st"))
    qtbot.waitUntil(lambda: dock.run_button.isEnabled(), timeout=WAIT_MS)
    assert "One result" in dock.where.cost.text()
    assert dock.predictor.models.currentText() == "Mutated? (2 classes)"
    assert dock.predictor.card.shown["Classes"] == "2"
    assert not dock.where.area.isVisibleTo(dock)
    assert not dock.where.pitch.isVisibleTo(dock)
    assert dock.live.isHidden()
    assert dock.slide_result.isHidden()
    dock.run_button.click()
    qtbot.waitUntil(lambda: dock.session.result is not None and not dock.busy, timeout=WAIT_MS)
    shown = dock.slide_result.facts.shown
    assert set(shown) == {"yes", "no"}
    assert sum(map(float, shown.values())) == pytest.approx(1, abs=0.01)
    assert not dock.slide_result.isHidden()
    result = dock.session.current_result
    assert result.genes == ["attention"]
    assert dock.layers.result_layer(result.name).name == "attention — predicted"
    qtbot.waitUntil(lambda: dock.run_button.isEnabled(), timeout=WAIT_MS)  # it can be done again
    assert result.scale == "attention"
    assert np.isfinite(result.values).all()
    dock.session.remove_result(result.name)
    assert dock.slide_result.isHidden()

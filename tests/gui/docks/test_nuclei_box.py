"""Nuclei in the window: find, cancel, open, save; then predict them."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from napari.layers import Image
from tests.engine.test_nuclei import _tissue

from napari_he2st.core.types import Nuclei
from napari_he2st.data.export import export
from napari_he2st.data.slides import Slide
from napari_he2st.gui.docks.nuclei_box import REGIONS, VIEW
from napari_he2st.gui.docks.predict import PredictDock
from napari_he2st.gui.docks.slide import SlideDock
from napari_he2st.gui.widgets.save_dialog import Target
from napari_he2st.zoo.bundle import Bundle
from napari_he2st.zoo.cells.ghist import GHIST
from napari_he2st.zoo.manifest import Manifest

WAIT_MS = 60_000
N = 14 * 10


@pytest.fixture
def slide(tmp_path):
    from PIL import Image

    Image.fromarray(_tissue(640, 480)).save(tmp_path / "lattice.png")
    with Slide.open(tmp_path / "lattice.png", mpp=0.5) as opened:
        yield opened


@pytest.fixture
def dock(viewer, session, slide, open_dock, qtbot):
    dock = open_dock(SlideDock)
    session.add_slide(slide)
    qtbot.waitUntil(lambda: not dock.busy, timeout=WAIT_MS)
    return dock


def test_nuclei_are_found_shown_and_saved(dock, session, qtbot, tmp_path):
    box = dock.nuclei
    assert "None yet" in box.state.text()
    assert not box.save_button.isEnabled()
    box.find_button.click()
    qtbot.waitUntil(lambda: session.current_slide.nuclei is not None and not dock.busy, timeout=WAIT_MS)
    assert box.state.text().startswith(f"{N} nuclei")
    layer = dock.viewer.layers["Nuclei of lattice"]
    assert layer.contour == 1
    x, y = session.current_slide.nuclei.centres_px[5]
    assert layer.get_value((y * 0.5, x * 0.5), world=True) == session.current_slide.nuclei.numbers[5]
    box.shown.setChecked(False)
    assert not layer.visible
    box.write(Target(tmp_path / "nuclei.geojson", False))
    qtbot.waitUntil(lambda: (tmp_path / "nuclei.geojson").exists() and not dock.busy, timeout=WAIT_MS)
    assert len(json.loads((tmp_path / "nuclei.geojson").read_text())["features"]) == N
    session.set_nuclei("lattice", Nuclei.of(np.eye(30, dtype=np.int32), 8.0))
    box.open(tmp_path / "nuclei.geojson")
    qtbot.waitUntil(lambda: len(session.current_slide.nuclei.numbers) == N and not dock.busy, timeout=WAIT_MS)
    assert dock.viewer.layers["Nuclei of lattice"].visible


def test_only_where_asked(dock, session, qtbot, monkeypatch):
    warned = []
    monkeypatch.setattr("napari_he2st.gui.docks.base.show_warning", warned.append)
    dock.nuclei.area.setCurrentText(REGIONS)
    dock.nuclei.find_button.click()
    assert "Draw a region" in warned[0]
    dock.nuclei.area.setCurrentText(VIEW)
    dock.viewer.scene.camera.zoom = 20
    dock.nuclei.find_button.click()
    qtbot.waitUntil(lambda: session.current_slide.nuclei is not None, timeout=WAIT_MS)
    assert 0 < len(session.current_slide.nuclei.numbers) < N


def test_it_can_be_cancelled(dock, session, qtbot, monkeypatch):
    import time

    from napari_he2st.engine import nuclei

    def slow(*args):
        time.sleep(0.05)
        return 0

    monkeypatch.setattr(nuclei, "_keep", slow)
    monkeypatch.setattr(nuclei, "TILE_PX", 160)
    dock.nuclei.options.set_values(sensitivity=1.01)  # not what is remembered
    dock.nuclei.find_button.click()
    assert not dock.nuclei.find_button.isEnabled()
    qtbot.waitUntil(lambda: dock.nuclei._task.control.done > 1, timeout=WAIT_MS)
    dock.status.cancel_button.click()
    qtbot.waitUntil(lambda: not dock.busy, timeout=WAIT_MS)
    assert session.current_slide.nuclei is None
    assert dock.nuclei.find_button.isEnabled()


def test_cells_are_predicted_once_nuclei_are_there(dock, session, qtbot, tmp_path):
    torch.manual_seed(0)
    arguments = {"n_genes": 3, "region_px": 64, "dim": 16, "mpp": 0.5, "n_classes": 2}
    member = GHIST(**arguments).eval()
    member.genes = ["A", "B", "C"]
    facts = {"genes": ("A", "B", "C"), "scale": "log1p", "tile_px": 64, "mpp": 0.5, "pitch_um": 8.0}
    Bundle([member], Manifest(name="cells", title="Cells", system="ghist", arguments=arguments, **facts)).save(
        tmp_path / "cells.he2st"
    )
    predict = PredictDock(dock.viewer)
    dock.viewer.window.add_dock_widget(predict)
    predict.load(str(tmp_path / "cells.he2st"))
    qtbot.waitUntil(lambda: "needs nuclei" in predict.where.cost.text(), timeout=WAIT_MS)
    assert not predict.run_button.isEnabled()
    assert not predict.where.pitch.isVisibleTo(predict)
    dock.nuclei.find()
    qtbot.waitUntil(lambda: predict.run_button.isEnabled() and not predict.busy, timeout=WAIT_MS)
    assert predict.where.cost.text().startswith(f"{N} cells")
    predict.run_button.click()
    result = session.current_result
    qtbot.waitUntil(lambda: result.adata is not None, timeout=WAIT_MS)
    assert result.adata.n_obs == N
    assert result.adata.obs["polygon"].str.startswith("POLYGON").all()
    image = dock.layers.result_layer(result.name)
    row = 17
    at = image.world_to_data(result.grid.xy[row, ::-1] * 0.5)
    assert image.data[tuple(np.rint(at).astype(int))] == result.column("A")[row]
    qtbot.waitUntil(lambda: predict.run_button.isEnabled() and not predict.busy, timeout=WAIT_MS)
    for kind, name in (("h5ad", "cells.h5ad"), ("spatialdata", "cells.zarr")):
        export(result.adata, kind, tmp_path / name, slide=session.current_slide.slide)
        _same_picture_once_opened(dock, session, tmp_path / name, image.data, qtbot)


def _same_picture_once_opened(dock, session, path, picture, qtbot):
    """Cells of a file come back to the slide that they were predicted from, and are drawn as they were then."""
    known = set(session.results)
    dock.open(path)
    qtbot.waitUntil(lambda: set(session.results) != known and not dock.busy, timeout=WAIT_MS)
    result = session.current_result
    assert result.kind == "predicted"
    assert list(session.slides) == [result.slide]
    assert result.nuclei is None
    opened = dock.layers.result_layer(result.name)
    assert isinstance(opened, Image)
    shown = opened.data[np.isfinite(opened.data)]
    np.testing.assert_allclose(np.sort(shown), np.sort(picture[np.isfinite(picture)]), rtol=1e-5)

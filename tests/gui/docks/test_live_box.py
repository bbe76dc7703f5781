"""The live view: on, panned, returned, off."""

from __future__ import annotations

import numpy as np
import pytest

from napari_he2st.gui.docks.predict import PredictDock

WAIT_MS = 30_000


@pytest.fixture
def dock(make_napari_viewer_proxy, qtbot, tissue_slide, bundle_folder):
    viewer = make_napari_viewer_proxy()
    dock = PredictDock(viewer)
    viewer.window.add_dock_widget(dock)
    dock.session.add_slide(tissue_slide)
    dock.load(str(bundle_folder))
    dock.opened()
    qtbot.waitUntil(lambda: dock.live.toggle.isEnabled(), timeout=WAIT_MS)
    yield dock
    dock.live.toggle.setChecked(False)
    qtbot.waitUntil(lambda: not dock.busy, timeout=WAIT_MS)


@pytest.fixture
def views(dock, monkeypatch):
    """What the dock takes to be on screen, as the test says; and every view it asked for."""
    from napari_he2st.core.types import Region

    class Views(list):
        now = Region.box(300, 250, 200, 150)

    seen = Views()

    def current_view(_slide):
        seen.append(seen.now)
        return seen.now

    monkeypatch.setattr(dock.layers, "current_view", current_view)
    return seen


def known(dock) -> np.ndarray:
    return np.isfinite(dock.session.current_result.values).all(axis=1)


def test_the_view_is_predicted_and_panning_brings_the_next(dock, qtbot, views):
    from napari_he2st.core.types import Region

    dock.live.toggle.setChecked(True)
    qtbot.waitUntil(
        lambda: dock.session.result is not None and not dock.live.watching and known(dock).any(), timeout=WAIT_MS
    )
    result = dock.session.current_result
    assert result.title == "three-means live (predicted)"
    xy = result.grid.xy
    inside = (xy >= [300, 250]).all(axis=1) & (xy < [500, 400]).all(axis=1)
    assert known(dock)[inside].all()
    assert not known(dock).all()
    layer = dock.layers.result_layer(result.name)
    assert np.isfinite(layer.data).sum() == known(dock).sum()

    views.now = Region.box(500, 250, 200, 150)
    dock.viewer.scene.camera.center = (0, 200, 300)
    right = (xy >= [500, 250]).all(axis=1) & (xy < [700, 400]).all(axis=1)
    qtbot.waitUntil(lambda: known(dock)[right].all(), timeout=WAIT_MS)
    assert len(views) == 2


def test_the_camera_decides_what_is_in_view(dock, qtbot):
    camera = dock.viewer.scene.camera
    qtbot.wait(300)
    camera.zoom *= 4
    qtbot.wait(500)
    dock.live.toggle.setChecked(True)
    qtbot.waitUntil(lambda: dock.session.result is not None and known(dock).any(), timeout=WAIT_MS)
    qtbot.waitUntil(lambda: not dock.live.watching, timeout=WAIT_MS)
    seen = known(dock)
    assert not seen.all()
    limits = dock.layers.limits(dock.session.result)
    assert limits[0] <= 1.0 <= limits[1]
    camera.center = (camera.center[0], camera.center[1] - 60, camera.center[2] - 60)
    qtbot.waitUntil(lambda: known(dock).sum() > seen.sum(), timeout=WAIT_MS)


def test_switching_off_stops_and_on_again_goes_on_in_the_same_map(dock, qtbot, views):
    dock.live.toggle.setChecked(True)
    qtbot.waitUntil(lambda: dock.session.result is not None and known(dock).any(), timeout=WAIT_MS)
    name = dock.session.result
    dock.live.toggle.setChecked(False)
    qtbot.waitUntil(lambda: not dock.live.watching, timeout=WAIT_MS)
    dock.viewer.scene.camera.zoom *= 2
    qtbot.wait(400)
    assert len(views) == 1, "nothing follows while it is off"
    dock.live.toggle.setChecked(True)
    qtbot.waitUntil(lambda: len(views) == 2 and not dock.live.watching, timeout=WAIT_MS)
    assert list(dock.session.results) == [name]


def test_spots_that_see_each_other_are_marked(dock, qtbot, views, monkeypatch):
    from napari_he2st.zoo.base import Slide

    monkeypatch.setattr(dock._bundle.members[0], "unit", Slide())
    dock.live.toggle.setChecked(True)
    qtbot.waitUntil(lambda: dock.session.result is not None and known(dock).any(), timeout=WAIT_MS)
    assert dock.session.result == "three-means live (view only)"
    assert dock.live.state.text().startswith("View only")


def test_removing_the_result_switches_it_off(dock, qtbot, views, monkeypatch):
    from napari_he2st.core.types import Chunk
    from napari_he2st.engine.live import LiveMap

    def slowly(self, view, *, device, control):
        import time

        for row in range(len(self.grid)):
            time.sleep(0.01)
            yield Chunk("expression", np.array([row]), np.ones((1, 3), np.float32))
            control.advance()

    monkeypatch.setattr(LiveMap, "look", slowly)
    dock.live.toggle.setChecked(True)
    qtbot.waitUntil(lambda: dock.session.result is not None and known(dock).any(), timeout=WAIT_MS)
    dock.session.remove_result(dock.session.result)
    qtbot.waitUntil(lambda: not dock.live.toggle.isChecked() and not dock.live.watching, timeout=WAIT_MS)


def test_a_run_switches_it_off(dock, qtbot, views):
    dock.live.toggle.setChecked(True)
    qtbot.waitUntil(lambda: dock.session.result is not None and not dock.live.watching, timeout=WAIT_MS)
    qtbot.waitUntil(lambda: dock.run_button.isEnabled(), timeout=WAIT_MS)
    dock.run_button.click()
    assert not dock.live.toggle.isChecked()
    qtbot.waitUntil(lambda: not dock.busy, timeout=WAIT_MS)


def test_the_chosen_stain_is_heeded(dock, qtbot, views):
    dock.live.toggle.setChecked(True)
    qtbot.waitUntil(
        lambda: dock.session.result is not None and not dock.live.watching and known(dock).any(), timeout=WAIT_MS
    )
    plain = dock.session.current_result
    dock.stain.choose("macenko")
    qtbot.waitUntil(
        lambda: dock.session.current_result is not plain and not dock.live.watching and known(dock).any(),
        timeout=WAIT_MS,
    )
    assert dock.session.current_result.title == "three-means live, macenko (predicted)"

"""The plugin in napari: manifest, readers, workspace, closing."""

from __future__ import annotations

import inspect
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
from npe2 import PluginManifest

import napari_he2st
from napari_he2st.gui import contributions
from napari_he2st.gui.workspace import DOCK_WIDTH_PX, DOCKS, dock_of, layers_of, open_docks, session_of

WAIT_MS = 30_000
MANIFEST = Path(napari_he2st.__file__).parent / "napari.yaml"


@pytest.fixture
def manifest() -> PluginManifest:
    return PluginManifest.from_file(MANIFEST)


def test_every_name_of_the_manifest_exists(manifest):
    manifest.validate_imports()
    for command in manifest.contributions.commands:
        module, name = command.python_name.split(":")
        assert callable(getattr(import_module(module), name)), command.id


def test_napari_hands_its_viewer_to_every_dock(manifest):
    """It knows the argument by the spelling of its annotation."""
    commands = {command.id: command.python_name for command in manifest.contributions.commands}
    assert [widget.display_name for widget in manifest.contributions.widgets] == list(DOCKS)
    for widget in manifest.contributions.widgets:
        module, name = commands[widget.command].split(":")
        parameters = inspect.signature(getattr(import_module(module), name).__init__).parameters.values()
        assert "napari.viewer.Viewer" in [parameter.annotation for parameter in parameters], widget.command


def test_the_manifest_of_the_repository_is_the_packaged_one():
    link = MANIFEST.parents[2] / "napari.yaml"
    if not link.exists():
        pytest.skip("the package is installed without its repository")
    assert link.read_text(encoding="utf-8") == MANIFEST.read_text(encoding="utf-8")


def test_a_slide_can_be_read_without_a_window(tmp_path):
    import tifffile

    path = tmp_path / "small.tif"
    pixels = np.full((128, 192, 3), 200, np.uint8)
    tifffile.imwrite(path, pixels, tile=(64, 64), resolution=(20_000, 20_000), resolutionunit="CENTIMETER")
    read = contributions.slide_reader(str(path))
    (levels, facts, kind), *others = read(str(path))
    assert others == []
    assert kind == "image"
    assert levels[0].shape == (128, 192, 3)
    assert facts["scale"] == pytest.approx((0.5, 0.5))
    assert contributions.slide_reader(["a.tif", "b.tif"]) is None


def test_one_session_belongs_to_one_viewer(make_napari_viewer_proxy):
    one, other = make_napari_viewer_proxy(), make_napari_viewer_proxy()
    assert session_of(one) is session_of(one)
    assert session_of(one) is not session_of(other)


def test_workspace_opens_all_docks_once(make_napari_viewer, qtbot):
    viewer = make_napari_viewer(show=True)
    viewer.window.resize(1366, 768)
    open_docks(viewer)
    docks = [dock_of(viewer, name) for name in DOCKS]
    open_docks(viewer)
    assert [dock_of(viewer, name) for name in DOCKS] == docks
    assert all(dock.session is session_of(viewer) for dock in docks)
    qtbot.waitUntil(lambda: abs(docks[0].width() - DOCK_WIDTH_PX) < 60, timeout=WAIT_MS)
    assert docks[0].isVisible()
    assert docks[0].window().height() <= 768
    qtbot.waitUntil(lambda: not any(dock.busy for dock in docks), timeout=WAIT_MS)


def test_dropping_files_reaches_the_session(make_napari_viewer, qtbot, slide_file):
    viewer = make_napari_viewer()
    viewer.open(slide_file, plugin="napari-he2st")
    dock = dock_of(viewer, "Slide")
    qtbot.waitUntil(lambda: not dock.pixel_size.isHidden(), timeout=WAIT_MS)
    dock.pixel_size.button.click()
    qtbot.waitUntil(lambda: bool(session_of(viewer).slides), timeout=WAIT_MS)
    viewer.open_sample("napari-he2st", "her2st")
    qtbot.waitUntil(lambda: bool(session_of(viewer).results), timeout=WAIT_MS)
    assert len(layers_of(viewer).viewer.layers) == 3
    qtbot.waitUntil(lambda: not dock.busy, timeout=WAIT_MS)


def in_fresh_process(script: str) -> str:
    """Run a script that owns its window; what it prints."""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=170, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.mark.parametrize(("area", "way"), [("Current view", "dock.window().close()"), ("Whole slide", "pass")])
def test_a_paused_run_ends_with_the_window_and_with_the_process(slide_file, bundle_folder, area, way):
    """Without a freeze; closing asks only where a whole slide is predicted."""
    printed = in_fresh_process(f"""
import time, napari, numpy as np
from qtpy.QtWidgets import QApplication, QDialog
from napari_he2st.core.types import Chunk
from napari_he2st.data.slides import Slide
from napari_he2st.gui.prediction import Run
from napari_he2st.gui.workspace import dock_of

def wait(condition):
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        QApplication.processEvents()
        time.sleep(0.01)

def chunks(self, *, control):
    control.start(10_000, "Predicting")
    for _ in range(10_000):
        yield Chunk("expression", np.array([0]), np.ones((1, 3), np.float32))
        control.advance()
        time.sleep(0.01)

def asked(self):
    raise AssertionError("a question was asked")

Run.chunks = chunks
QDialog.exec = QDialog.exec_ = asked
viewer = napari.Viewer()
dock = dock_of(viewer, "Predict")
dock.session.add_slide(Slide.open({str(slide_file)!r}, mpp=0.5))
dock.load({str(bundle_folder)!r})
wait(dock.run_button.isEnabled)
dock.where.area.setCurrentText({area!r})
wait(dock.run_button.isEnabled)
dock.run_button.click()
task = dock._run
wait(lambda: task.control.done > 3)
dock.status.pause_button.click()
start = time.monotonic()
{way}
if {way!r} != "pass":
    wait(lambda: not task.running)
print(task.control.done, time.monotonic() - start)
""")
    done, seconds = printed.split()
    assert int(done) < 10_000
    assert float(seconds) < 5


def test_model_code_loads_after_the_canvas_has_drawn():
    """Loading triton beside a display driver once killed the process; only a fresh one can show it."""
    printed = in_fresh_process("""
import napari, numpy as np
from qtpy.QtWidgets import QApplication
viewer = napari.Viewer()
viewer.add_image(np.random.rand(64, 64))
for _ in range(20):
    QApplication.processEvents()
viewer.screenshot(flash=False)
from napari_he2st.gui.prediction import list_models
from napari_he2st.zoo.catalogue import system
from napari_he2st.zoo.guard import safe_import
assert list_models()
system("ridge")
safe_import("timm")
safe_import("torchvision")
for _ in range(20):
    QApplication.processEvents()
viewer.close()
print("alive")
""")
    assert printed.strip().endswith("alive")

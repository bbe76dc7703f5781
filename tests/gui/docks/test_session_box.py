"""Saving and opening sessions in the Export dock, the offer after a crash, and the script."""

from __future__ import annotations

import os
import runpy
import shutil

import numpy as np
import pytest
from qtpy.QtWidgets import QFileDialog

from napari_he2st.core.types import Region
from napari_he2st.data.samples import sample_section
from napari_he2st.engine.save_session import save_session
from napari_he2st.gui.autosave import left_behind, recovery_folder
from napari_he2st.gui.docks.export import ExportDock
from napari_he2st.gui.docks.measured import on_its_slide
from napari_he2st.gui.docks.slide import SlideDock
from napari_he2st.gui.workspace import keep_safe, layers_of

pytestmark = pytest.mark.gui


@pytest.fixture
def sample(open_dock, qtbot, session):
    """The shipped section in the window, with a region and landmarks."""
    dock = open_dock(SlideDock)
    dock.measured.show_loaded(on_its_slide(sample_section()))
    name = session.slide
    session.set_regions(name, [Region.box(200, 200, 300, 250, "Front")])
    return dock


def restart(session):
    """As if the window had been opened anew."""
    for name in list(session.slides):
        session.remove_slide(name)


def test_a_saved_session_comes_back_as_it_looked(sample, open_dock, session, viewer, tmp_path, qtbot):
    export = open_dock(ExportDock)
    gene = session.results[session.result].genes[3]
    session.select(gene=gene)
    layer = layers_of(viewer).result_layer(session.result)
    layer.opacity, layer.blending = 0.4, "additive"
    layers_of(viewer).set_limits(session.result, "locked", 0.5, 2.5)
    layers_of(viewer).gene_map(session.result).set_threshold(0.75)
    viewer.scene.camera.zoom = 0.7
    centre = tuple(viewer.scene.camera.center)
    export.saved.save(tmp_path / "mine")
    folder = tmp_path / "mine.he2st-session"
    qtbot.waitUntil(lambda: export.saved.folder == folder, timeout=20_000)
    values = session.current_result.values.copy()
    restart(session)
    export.saved.open(folder)
    qtbot.waitUntil(lambda: session.gene == gene and bool(session.results), timeout=20_000)
    qtbot.waitUntil(lambda: not export.busy, timeout=20_000)
    np.testing.assert_array_equal(session.current_result.values, values)
    assert [region.name for region in session.regions[session.slide]] == ["Front"]
    again = layers_of(viewer).result_layer(session.result)
    assert again is not layer
    assert (again.opacity, str(again.blending)) == (0.4, "additive")
    gene_map = layers_of(viewer).gene_map(session.result)
    assert (gene_map.mode, gene_map.limits, gene_map.threshold) == ("locked", (0.5, 2.5), 0.75)
    assert viewer.scene.camera.zoom == pytest.approx(0.7)
    assert tuple(viewer.scene.camera.center) == pytest.approx(centre)


def test_a_moved_slide_is_asked_for(sample, open_dock, session, tmp_path, qtbot, monkeypatch):
    export = open_dock(ExportDock)
    original = session.current_slide.slide.path
    here = tmp_path / original.name
    shutil.copy(original, here)
    restart(session)
    sample.open(here, mpp=0.5)
    qtbot.waitUntil(lambda: bool(session.slides), timeout=10_000)
    save_session(session, tmp_path / "mine")
    restart(session)
    (tmp_path / "away").mkdir()
    here.rename(tmp_path / "away" / "renamed.jpg")
    asked = []

    def answer(_, title, *args):
        asked.append(title)
        return str(tmp_path / "away" / "renamed.jpg"), ""

    monkeypatch.setattr(QFileDialog, "getOpenFileName", answer)
    export.saved.open(tmp_path / "mine.he2st-session")
    qtbot.waitUntil(lambda: bool(session.slides), timeout=10_000)
    assert asked == [f"Where is {here.name}?"]


def test_what_is_no_session_is_told_in_a_notification(open_dock, tmp_path, monkeypatch):
    told = []
    monkeypatch.setattr("napari_he2st.gui.worker.show_error", told.append)
    open_dock(ExportDock).saved.open(tmp_path)
    assert "no session in this folder" in told[0]


def test_work_is_saved_by_itself_and_offered_after_a_crash(sample, open_dock, session, viewer, qtbot):
    safe = keep_safe(viewer, sample.window())
    session.set_landmarks(session.slide, {"spots": np.array([[1.0, 2.0]]), "slide": np.array([[3.0, 4.0]])})
    safe.save()
    qtbot.waitUntil((safe.folder / "session.json").exists, timeout=10_000)
    assert left_behind() == []  # this process is alive
    ended = recovery_folder() / safe.folder.name.replace(f"{os.getpid()}-", "999999999-")
    safe.folder.rename(ended)
    restart(session)
    sample.recovery.look()
    assert not sample.recovery.isHidden()
    sample.recovery.restore()
    qtbot.waitUntil(lambda: bool(session.results), timeout=20_000)
    assert [region.name for region in session.regions[session.slide]] == ["Front"]
    qtbot.waitUntil(lambda: bool(session.landmarks), timeout=10_000)
    np.testing.assert_allclose(session.landmarks[session.slide]["slide"], [[3.0, 4.0]])
    qtbot.waitUntil(sample.recovery.isHidden, timeout=10_000)
    assert not ended.exists()


def test_landmarks_alone_are_saved(sample, session, viewer, qtbot):
    safe = keep_safe(viewer, sample.window())
    safe.save()
    file = safe.folder / "session.json"
    qtbot.waitUntil(file.exists, timeout=10_000)
    qtbot.waitUntil(lambda: not safe.saving, timeout=10_000)
    sample.registration.marks().put("slide", np.array([[30.0, 40.0]]))
    safe.save()
    qtbot.waitUntil(lambda: "30.0" in file.read_text(), timeout=10_000)
    qtbot.waitUntil(lambda: not safe.saving, timeout=10_000)


def test_closing_the_window_leaves_nothing_to_offer(sample, viewer, qtbot):
    safe = keep_safe(viewer, sample.window())
    safe.save()
    qtbot.waitUntil((safe.folder / "session.json").exists, timeout=10_000)
    qtbot.waitUntil(lambda: not safe.saving, timeout=10_000)
    sample.window().close()
    assert not safe.folder.exists()


def test_what_a_crash_left_can_be_forgotten(sample, session):
    save_session(session, recovery_folder() / "999999999-1.he2st-session", quick=True)
    sample.recovery.look()
    sample.recovery.forget()
    assert left_behind() == []
    assert sample.recovery.isHidden()


def test_a_script_does_the_same_again(sample, open_dock, session, tmp_path, monkeypatch):
    export = open_dock(ExportDock)
    export.saved.write_script(tmp_path / "again.py")
    monkeypatch.chdir(tmp_path)
    made = runpy.run_path(str(tmp_path / "again.py"))
    result = session.current_result
    np.testing.assert_array_equal(made["result_1"].obsm["spatial"], result.grid.xy)
    np.testing.assert_array_equal(made["result_1"].to_df().to_numpy(), result.values)
    assert (tmp_path / f"{result.name}_measured.h5ad").exists()


@pytest.mark.slow
def test_several_genes_in_one_smooth_picture_come_back(sample, open_dock, session, viewer, tmp_path, qtbot):
    export = open_dock(ExportDock)
    genes = session.current_result.genes[:2]
    layers_of(viewer).set_smooth(session.result, True)
    layers_of(viewer).show_blend(session.result, genes)
    export.saved.save(tmp_path / "mine")
    folder = tmp_path / "mine.he2st-session"
    qtbot.waitUntil(lambda: export.saved.folder == folder, timeout=20_000)
    restart(session)
    export.saved.folder = None
    export.saved.open(folder)
    qtbot.waitUntil(lambda: export.saved.folder == folder, timeout=20_000)
    layers = layers_of(viewer)
    assert layers.gene_map(session.result).smooth
    assert [part.label for part in layers.blend(session.result).parts] == genes
    assert layers.blend(session.result).layer.visible
    assert not layers.result_layer(session.result).visible

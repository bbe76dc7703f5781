"""Slide dock: opening, asking for the pixel size, tissue, measured sections."""

from __future__ import annotations

import numpy as np
import pytest

from napari_he2st.gui.docks.slide import SlideDock

WAIT_MS = 20_000


@pytest.fixture
def dock(make_napari_viewer_proxy, qtbot):
    viewer = make_napari_viewer_proxy()
    dock = SlideDock(viewer)
    viewer.window.add_dock_widget(dock)
    yield dock
    qtbot.waitUntil(lambda: not dock.busy, timeout=WAIT_MS)


def test_a_slide_without_pixel_size_is_asked_for_it(dock, qtbot, slide_file):
    dock.open(slide_file)
    qtbot.waitUntil(lambda: not dock.pixel_size.isHidden(), timeout=WAIT_MS)
    assert dock.session.slides == {}
    dock.pixel_size.preset.setCurrentIndex(dock.pixel_size.preset.findData("distance"))
    dock.pixel_size.distance_um.setValue(250)
    dock.pixel_size.distance_px.setValue(1000)
    dock.pixel_size.button.click()
    qtbot.waitUntil(lambda: dock.session.slide == "tissue", timeout=WAIT_MS)
    assert dock.session.current_slide.slide.mpp == 0.25
    assert dock.pixel_size.isHidden()
    qtbot.waitUntil(lambda: dock.session.current_slide.mask is not None, timeout=WAIT_MS)
    assert "0.25 µm (given)" in dock.facts.shown["Pixel size"]
    assert "1,000 × 800 px" in dock.facts.shown["Size"]
    assert "% of the image" in dock.facts.shown["Tissue"]
    dock.outline.setChecked(True)
    assert "Tissue of tissue" in dock.viewer.layers


def test_the_pixel_size_can_be_corrected(dock, qtbot, slide_file):
    dock.open(slide_file, mpp=0.5)
    qtbot.waitUntil(lambda: dock.session.slide == "tissue", timeout=WAIT_MS)
    qtbot.waitUntil(lambda: dock.session.current_slide.mask is not None, timeout=WAIT_MS)
    dock.mpp_button.click()
    assert dock.pixel_size.mpp.value() == 0.5
    dock.pixel_size.mpp.setValue(0.46)
    dock.pixel_size.button.click()
    qtbot.waitUntil(lambda: dock.session.current_slide.slide.mpp == 0.46, timeout=WAIT_MS)
    np.testing.assert_allclose(dock.viewer.layers["tissue"].scale, 0.46)
    qtbot.waitUntil(lambda: dock.session.current_slide.mask is not None, timeout=WAIT_MS)


def test_an_unreadable_file_is_told_and_nothing_is_added(dock, qtbot, tmp_path, monkeypatch):
    told = []
    monkeypatch.setattr("napari_he2st.gui.worker.show_error", told.append)
    broken = tmp_path / "broken.svs"
    broken.write_bytes(b"II*\0 not a slide")
    dock.open(broken)
    qtbot.waitUntil(lambda: bool(told), timeout=WAIT_MS)
    assert "broken.svs" in told[0]
    assert dock.session.slides == {}


def test_the_sample_shows_its_spots_on_its_slide(dock, qtbot):
    dock.open_sample()
    qtbot.waitUntil(lambda: bool(dock.session.results), timeout=WAIT_MS)
    result = dock.session.current_result
    assert result.kind == "measured"
    assert "on tissue" in dock.measured.fit.text()
    assert dock.measured.facts.shown["Layout"] == "legacy_st"
    layer = dock.layers.result_layer(result.name)
    slide = dock.layers.slide_layer(result.slide)
    assert layer.name.endswith("— measured")
    assert (slide.extent.world[0] <= layer.extent.world[0]).all()
    assert (layer.extent.world[1] <= slide.extent.world[1]).all()
    assert not dock.mpp_button.isEnabled()


def test_sections_of_a_folder_are_offered(dock, qtbot, her2st):
    dock.open(her2st)
    qtbot.waitUntil(lambda: dock.measured.sections.count() > 1, timeout=WAIT_MS)
    names = [dock.measured.sections.itemText(i) for i in range(dock.measured.sections.count())]
    assert "C5" in names
    assert dock.session.results == {}


def test_a_section_that_does_not_fit_is_corrected_and_put_back(dock, qtbot):
    from napari_he2st.data.samples import sample_section
    from napari_he2st.gui.docks.measured import slide_of

    section = sample_section()
    fits = np.array(section.adata.obsm["spatial"])
    section.adata.obsm["spatial"] = fits[:, ::-1].copy()
    dock.add_section(section, slide_of(section))
    qtbot.waitUntil(lambda: bool(dock.session.results), timeout=WAIT_MS)
    result, box = dock.session.current_result, dock.measured
    assert "x and y exchanged" in box.correct_button.text()
    assert result.warnings
    two_panels = box.picture.pixmap().width()
    box.correct_button.click()
    np.testing.assert_allclose(result.grid.xy, fits)
    layer = dock.layers.result_layer(result.name)
    np.testing.assert_allclose(layer.data, fits[:, ::-1] * result.grid.mpp)
    qtbot.waitUntil(lambda: box.correct_button.isHidden(), timeout=WAIT_MS)
    assert box.picture.pixmap().width() != two_panels
    assert result.warnings == []
    assert result.adata.uns["he2st"]["corrections"] == ["x and y exchanged"]
    box.undo_button.click()
    np.testing.assert_allclose(result.grid.xy, fits[:, ::-1])
    assert "corrections" not in result.adata.uns["he2st"]
    qtbot.waitUntil(lambda: not box.correct_button.isHidden(), timeout=WAIT_MS)
    assert box.undo_button.isHidden()

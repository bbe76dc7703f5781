"""Slide dock: opening, asking for the pixel size, tissue, measured sections."""

from __future__ import annotations

import numpy as np
import pytest
from tests.tiny.formats import write_ome_zarr
from tests.tiny.slides import SCANNER, tissue_image, write_slide

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
    assert "tissue (scale unknown)" in dock.viewer.layers  # to be looked at, and measured on
    dock.pixel_size.button.click()
    qtbot.waitUntil(lambda: dock.session.slide == "tissue", timeout=WAIT_MS)
    assert "tissue (scale unknown)" not in dock.viewer.layers
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


def test_two_clicked_points_tell_the_pixel_size_and_it_is_remembered(dock, qtbot, slide_file, monkeypatch, tmp_path):
    monkeypatch.setenv("HE2ST_CONFIG", str(tmp_path))
    dock.open(slide_file)
    qtbot.waitUntil(lambda: not dock.pixel_size.isHidden(), timeout=WAIT_MS)
    dock.pixel_size.measure_button.click()
    dock.layers.ruler.clicked(np.array([100.0, 100.0]))
    dock.layers.ruler.clicked(np.array([400.0, 500.0]))
    assert dock.pixel_size.distance_px.value() == 500
    dock.pixel_size.distance_um.setValue(200)
    dock.pixel_size.button.click()
    qtbot.waitUntil(lambda: dock.session.slide == "tissue", timeout=WAIT_MS)
    assert dock.session.current_slide.slide.mpp == 0.4
    qtbot.waitUntil(lambda: not dock.busy, timeout=WAIT_MS)
    dock.session.remove_slide("tissue")
    dock.open(slide_file)
    qtbot.waitUntil(lambda: dock.session.slide == "tissue", timeout=WAIT_MS)
    source = dock.session.current_slide.slide.mpp_source
    assert source.endswith("a distance of 200 µm over 500.0 pixels")


def test_other_sources_are_offered_and_judge_the_answer(dock, qtbot, tmp_path):
    path = write_slide(tmp_path / "a.svs", tissue_image(), kind="svs", mpp=0.25)
    dock.open(path)
    qtbot.waitUntil(lambda: dock.session.slide == "a", timeout=WAIT_MS)
    dock.mpp_button.click()
    form = dock.pixel_size
    qtbot.waitUntil(lambda: form.preset.findText("Objective 20×: 0.5 µm") >= 0, timeout=WAIT_MS)
    assert "objective 20× suggests about 0.5 µm, not 0.25" in form.doubts.text()
    form.preset.setCurrentIndex(form.preset.findText("Objective 20×: 0.5 µm"))
    assert form.mpp.value() == 0.5
    assert "Aperio MPP suggests about 0.25 µm, not 0.5" in form.doubts.text()
    assert form.source == "objective 20×"


def test_tissue_is_found_anew_with_other_parameters(dock, qtbot, slide_file):
    dock.open(slide_file, mpp=0.5)
    qtbot.waitUntil(lambda: dock.session.current_slide is not None and dock.session.current_slide.mask is not None)
    first = dock.session.current_slide.mask
    dock.tissue.threshold.setValue(30)
    qtbot.waitUntil(lambda: dock.session.current_slide.mask is not first, timeout=WAIT_MS)
    mask = dock.session.current_slide.mask
    assert mask.params["threshold"] == 30
    assert "threshold 30.0" in dock.tissue.figures.text()
    assert dock.layers.mask_shown("tissue")


def test_the_overview_follows_the_view(dock, qtbot, slide_file):
    dock.open(slide_file, mpp=0.5)
    qtbot.waitUntil(lambda: "tissue" in dock.view.thumbnails, timeout=WAIT_MS)
    dock.view.powers[40].click()
    qtbot.waitUntil(lambda: dock.view.readout.text().startswith("40×"), timeout=WAIT_MS)
    dock.view.map.clicked.emit(0.25, 0.75)
    assert dock.viewer.scene.camera.center[-2:] == pytest.approx((300, 125))


def test_several_slides_are_listed_with_thumbnails(dock, qtbot, tmp_path):
    for seed in range(2):
        dock.open(write_slide(tmp_path / f"{seed}.tif", tissue_image(seed=seed)))
        qtbot.waitUntil(lambda seed=seed: dock.session.slide == str(seed), timeout=WAIT_MS)
    qtbot.waitUntil(lambda: len(dock.view.thumbnails) == 2, timeout=WAIT_MS)
    assert [dock.slides.item(i).text() for i in range(2)] == ["0", "1"]
    assert not dock.slides.item(0).icon().isNull()
    dock.slides.setCurrentRow(0)
    assert dock.session.slide == "0"


def test_an_ome_zarr_folder_is_a_slide(dock, qtbot, tmp_path):
    dock.open(write_ome_zarr(tmp_path / "a.zarr", tissue_image()))
    qtbot.waitUntil(lambda: dock.session.slide == "a", timeout=WAIT_MS)
    assert dock.facts.shown["Format"] == "OME-Zarr 0.5"


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


def test_a_section_that_states_neither_pixel_size_nor_slide_is_asked_for_both(
    dock, qtbot, tmp_path, slide_file, monkeypatch
):
    """Nothing is placed on a slide that merely happens to be open."""
    import anndata as ad

    told = []
    monkeypatch.setattr("napari_he2st.gui.worker.show_error", told.append)
    counts = np.arange(60, dtype=np.float32).reshape(20, 3)
    xy = np.stack(np.meshgrid(np.arange(5), np.arange(4)), -1).reshape(-1, 2) * 40.0 + 300
    adata = ad.AnnData(counts, var={"names": ["ACTB", "GAPDH", "ERBB2"]}, obsm={"spatial": xy})
    adata.var_names = ["ACTB", "GAPDH", "ERBB2"]
    adata.write_h5ad(tmp_path / "bare.h5ad")
    dock.open(slide_file, mpp=0.5)
    qtbot.waitUntil(lambda: dock.session.slide == "tissue", timeout=WAIT_MS)
    dock.open(tmp_path / "bare.h5ad")
    qtbot.waitUntil(lambda: not dock.pixel_size.isHidden(), timeout=WAIT_MS)
    assert told == []
    dock.pixel_size.mpp.setValue(0.5)
    dock.pixel_size.button.click()
    qtbot.waitUntil(lambda: bool(told), timeout=WAIT_MS)
    assert "Place it on the open slide" in told[0]
    assert dock.session.results == {}
    dock.measured.on_current.setChecked(True)
    dock.measured.load_button.click()
    qtbot.waitUntil(lambda: bool(dock.session.results), timeout=WAIT_MS)
    assert dock.session.current_result.slide == "tissue"


def test_a_slide_of_unknown_scale_is_looked_at_alone(dock, qtbot, tmp_path, slide_file):
    dock.open(slide_file, mpp=0.5)
    qtbot.waitUntil(lambda: dock.session.slide == "tissue", timeout=WAIT_MS)
    dock.open(write_slide(tmp_path / "unknown.tif", tissue_image(seed=3), mpp=None))
    qtbot.waitUntil(lambda: "unknown (scale unknown)" in dock.viewer.layers, timeout=WAIT_MS)
    assert not dock.viewer.layers["tissue"].visible
    dock.question.withdraw()
    assert dock.viewer.layers["tissue"].visible


def test_a_section_and_its_slide_have_one_name(dock, qtbot, her2st):
    dock.open(her2st)
    qtbot.waitUntil(lambda: dock.measured.sections.count() > 1, timeout=WAIT_MS)
    dock.measured.sections.setCurrentText("C5")
    dock.measured.load_button.click()
    qtbot.waitUntil(lambda: bool(dock.session.results), timeout=WAIT_MS)
    result = dock.session.current_result
    assert (result.name, result.slide, dock.layers.slide_layer(result.slide).name) == ("C5", "C5", "C5")
    assert list(result.adata.uns["spatial"]) == ["C5"]


def test_only_the_pixel_size_of_a_slide_can_be_remembered(dock, qtbot, slide_file):
    dock.ask_mpp("The section does not say it.", lambda mpp: None)
    assert not dock.pixel_size.isHidden()
    assert dock.pixel_size.remember_box.isHidden()
    dock.open(slide_file)
    qtbot.waitUntil(lambda: "tissue" in dock.pixel_size.question.text(), timeout=WAIT_MS)
    assert not dock.pixel_size.remember_box.isHidden()


def test_the_profile_of_a_slide_is_switched_where_it_has_one(dock, qtbot, slide_file, tmp_path):
    image = tissue_image(600, 500)
    dock.open(write_slide(tmp_path / "scan.tif", image, iccprofile=SCANNER), mpp=0.5)
    qtbot.waitUntil(lambda: dock.session.slide == "scan" and not dock.busy, timeout=WAIT_MS)
    assert dock.profile.isChecked()
    assert not dock.profile.isHidden()
    converted = np.asarray(dock.viewer.layers["scan"].data[0][:])
    dock.profile.setChecked(False)
    qtbot.waitUntil(lambda: dock.session.current_slide.mask is not None and not dock.busy, timeout=WAIT_MS)
    assert dock.session.current_slide.slide.colours == "as stored"
    stored = np.asarray(dock.viewer.layers["scan"].data[0][:])
    assert np.abs(stored.astype(int) - converted).max() > 5
    dock.profile.setChecked(True)
    np.testing.assert_array_equal(dock.viewer.layers["scan"].data[0][:], converted)
    qtbot.waitUntil(lambda: dock.session.current_slide.mask is not None and not dock.busy, timeout=WAIT_MS)
    dock.session.remove_slide("scan")
    dock.open(slide_file, mpp=0.5)
    qtbot.waitUntil(lambda: dock.session.slide == "tissue" and not dock.busy, timeout=WAIT_MS)
    assert dock.profile.isHidden()

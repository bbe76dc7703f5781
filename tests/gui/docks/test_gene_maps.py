"""The maps of the Genes dock: range, colours, several genes, signatures, trust, single spots."""

from __future__ import annotations

import numpy as np
import pytest
from napari.layers import Image, Points
from qtpy.QtCore import Qt
from qtpy.QtTest import QTest
from qtpy.QtWidgets import (
    QToolButton,
)

from napari_he2st.core.types import Domains
from napari_he2st.engine.session_items import Derived
from napari_he2st.gui.docks.genes import GenesDock
from napari_he2st.gui.workspace import layers_of

pytestmark = pytest.mark.gui


@pytest.fixture
def dock(open_dock):
    return lambda: open_dock(GenesDock)


def test_locked_limits_stay_when_the_gene_changes(dock, fill, viewer, session):
    fill()
    layers = layers_of(viewer)
    session.select(result="run", gene="ERBB2")
    display = dock().display
    display.high.setValue(9.5)
    low = layers.limits("run")[0]
    session.select(gene="GAPDH")
    assert layers.limits("run") == (low, 9.5)
    assert display.lock.isChecked()
    display.lock.setChecked(False)
    assert layers.limits("run")[1] < 9.5
    assert display.high.value() == pytest.approx(layers.limits("run")[1], abs=1e-3)


def test_percentiles_set_the_limits(dock, fill, viewer, session):
    fill()
    session.select(result="run", gene="ERBB2")
    display = dock().display
    display.low_percent.setValue(10)
    display.high_percent.setValue(90)
    values = session.results["run"].column("ERBB2")
    np.testing.assert_allclose(layers_of(viewer).limits("run"), np.percentile(values, (10, 90)), rtol=1e-5)


def test_colours_and_opacity_reach_the_layer(dock, fill, viewer, session):
    fill()
    session.select(result="run")
    display = dock().display
    display.maps.setCurrentText("cividis")
    display.maps.activated.emit(display.maps.currentIndex())
    display.opacity.setValue(40)
    layer = layers_of(viewer).result_layer("run")
    assert (layer.colormap.name, layer.opacity) == ("cividis", 0.4)


def test_low_values_can_be_hidden(dock, fill, viewer, session):
    fill()
    session.select(result="run", gene="ERBB2")
    display = dock().display
    values = session.results["run"].column("ERBB2")
    display.hide_low.setChecked(True)
    display.threshold.setValue(2.0)
    layer = layers_of(viewer).result_layer("run")
    assert np.isfinite(layer.data).sum() == (values >= 2.0).sum()
    session.select(gene="GAPDH")
    assert np.isfinite(layer.data).sum() == (session.results["run"].column("GAPDH") >= 2.0).sum()
    display.hide_low.setChecked(False)
    assert np.isfinite(layer.data).all()


def test_hidden_points_are_transparent(dock, fill, viewer, session):
    fill()
    session.select(result="spots", gene="ERBB2")
    display = dock().display
    display.hide_low.setChecked(True)
    display.threshold.setValue(1.0)
    layer, values = layers_of(viewer).result_layer("spots"), session.results["spots"].column("ERBB2")
    np.testing.assert_array_equal(layer.face_color[:, 3] > 0, values >= 1.0)


def test_a_smooth_map_looks_like_the_spots_and_back(dock, fill, viewer, session):
    fill()
    session.select(result="spots", gene="ERBB2")
    genes, layers = dock(), layers_of(viewer)
    layers.set_colormap("spots", "cividis")
    genes.display.high.setValue(3.5)
    genes.display.smooth.setChecked(True)
    smooth = layers.result_layer("spots")
    assert isinstance(smooth, Image)
    assert (smooth.colormap.name, smooth.contrast_limits[1]) == ("cividis", 3.5)
    assert smooth.name == "ERBB2, log1p CP10k — measured"
    session.select(gene="GAPDH")
    assert layers.shown("spots") == "GAPDH"
    genes.display.smooth.setChecked(False)
    assert isinstance(layers.result_layer("spots"), Points)
    assert smooth not in viewer.layers
    session.select(result="run")
    genes.display.smooth.setChecked(True)
    assert layers.result_layer("run").interpolation2d == "linear"


def test_keys_move_the_limits(dock, fill, qtbot, viewer, session):
    fill()
    session.select(result="run", gene="ERBB2")
    genes, layers = dock(), layers_of(viewer)
    qtbot.waitUntil(lambda: genes.display.histogram.counts.sum() > 0)
    low, high = layers.limits("run")
    qtbot.keyClick(genes.display.histogram, Qt.Key.Key_Left)
    assert layers.limits("run")[0] == low
    assert layers.limits("run")[1] < high
    qtbot.keyClick(genes.display.histogram, Qt.Key.Key_Right, Qt.KeyboardModifier.ShiftModifier)
    assert layers.limits("run")[0] > low


def test_several_genes_in_one_picture(dock, fill, qtbot, viewer, session):
    fill()
    session.select(result="run", gene="ERBB2")
    genes, layers = dock(), layers_of(viewer)
    qtbot.keyClick(genes.table, Qt.Key.Key_Plus)
    session.select(gene="GAPDH")
    genes.blend.add.click()
    genes.blend.add.click()
    assert genes.blend.genes == ["ERBB2", "GAPDH"]
    layer = layers.blend("run").layer
    assert layer.name == "ERBB2 (blue) + GAPDH (yellow) — predicted"
    assert layer.visible
    assert not layers.result_layer("run").visible
    session.select(result="spots")
    assert not layer.visible
    assert genes.blend.genes == []
    session.select(result="run")
    assert layer.visible
    assert viewer.layers.selection.active.name == layer.name
    genes.blend.findChildren(QToolButton)[0].click()
    assert len(genes.blend.genes) == 1
    genes.blend.clear.click()
    assert layers.result_layer("run").visible
    assert layer not in viewer.layers


def test_the_held_key_hides_the_maps(dock, fill, viewer):
    fill()
    genes, layers = dock(), layers_of(viewer)
    QTest.keyPress(genes.table, Qt.Key.Key_H)
    assert not layers.result_layer("spots").visible
    QTest.keyRelease(genes.table, Qt.Key.Key_H)
    assert layers.result_layer("spots").visible
    assert "H" in {str(key) for key in viewer.keymap}


def test_how_much_predictions_vary_is_a_second_map(dock, fill, viewer, session):
    fill()
    dock = dock()
    result = session.results["run"]
    session.select(result="run", gene="ERBB2")
    assert dock.spread.isHidden()
    result.std = np.arange(result.values.size, dtype=np.float32).reshape(result.values.shape)
    session.finish("run", None)
    assert not dock.spread.isHidden()
    dock.spread.setChecked(True)
    layer = dock.layers.spread_layer("run")
    assert layer.name == "ERBB2 standard deviation, log1p CP10k — predicted"
    np.testing.assert_array_equal(np.sort(layer.data, axis=None), result.std[:, 0])
    session.select(gene="GAPDH")
    assert layer.name.startswith("GAPDH standard deviation")
    dock.spread.setChecked(False)
    session.select(gene="NOT HERE")
    dock.spread.setChecked(True)
    assert layer.name.startswith("GAPDH standard deviation")
    dock.spread.setChecked(False)
    assert not layer.visible
    session.remove_result("run")
    assert layer not in viewer.layers


def test_a_signature_is_listed_and_shown_like_a_gene(dock, fill, qtbot, viewer, session):
    fill()
    session.select(result="run", gene="GAPDH")
    genes = dock()
    box = genes.signatures
    box.choice.setCurrentIndex(box.choice.findText("HER2 amplicon"))
    assert box.genes.text().startswith("STARD3")
    assert "Kauraniemi" in box.source.text()
    box.score.click()
    qtbot.waitUntil(lambda: session.gene == "HER2 amplicon")
    assert genes.table.genes.names()[0] == "HER2 amplicon"
    assert layers_of(viewer).shown("run") == "HER2 amplicon"
    assert layers_of(viewer).result_layer("run").name == "HER2 amplicon, log1p CP10k score — predicted"
    assert "Mean of ERBB2" in genes.facts.text()
    session.select(gene="GAPDH")
    session.select(gene="HER2 amplicon")
    box.remove.click()
    assert "HER2 amplicon" not in genes.table.genes.names()
    assert session.gene == "ERBB2"


def test_sets_of_a_gmt_file_are_offered(dock, fill, qtbot, session, tmp_path):
    fill()
    session.select(result="run", gene="GAPDH")
    box = dock().signatures
    file = tmp_path / "sets.gmt"
    file.write_text("MINE\tnote\tERBB2\tGAPDH\n")
    box.add_gmt(file)
    assert (box.choice.currentText(), box.genes.text()) == ("MINE", "ERBB2 GAPDH")
    box.score.click()
    qtbot.waitUntil(lambda: session.gene == "MINE")


def test_the_ratio_of_two_genes(dock, fill, qtbot, session):
    fill()
    session.select(result="run", gene="ERBB2")
    box = dock().signatures
    box.below.setText("GAPDH")
    qtbot.keyClick(box.below, Qt.Key.Key_Return)
    qtbot.waitUntil(lambda: session.gene == "ERBB2 / GAPDH")
    result = session.results["run"]
    assert result.unit("ERBB2 / GAPDH") == "log2 ratio"
    np.testing.assert_allclose(
        result.column(session.gene), (result.column("ERBB2") - result.column("GAPDH")) / np.log(2), rtol=1e-4
    )


def test_the_status_bar_tells_of_the_spot_under_the_cursor(dock, fill, viewer, session):
    fill()
    session.select(result="run", gene="ERBB2")
    dock()
    result, layers = session.results["run"], layers_of(viewer)
    layer = layers.result_layer("run")
    at = result.grid.xy[9, ::-1] * result.grid.mpp
    value = result.column("ERBB2")[9]
    assert layer.get_status(at, world=True)["layer_base"] == f"ERBB2 {value:.2f} log1p CP10k (predicted)"
    result.std = np.full_like(result.values, 0.25)
    result.derived["Distance to training"] = Derived(np.full(len(result.grid), 1.5, np.float32), "", "")
    session.set_domains("run", Domains(np.zeros(len(result.grid), np.intp), {}, names=("Tumour",)))
    told = layer.get_status(at, world=True)["layer_base"]
    assert told == f"ERBB2 {value:.2f} log1p CP10k (predicted) ± 0.25    domain Tumour    outside training"
    assert layer.get_status((-500.0, -500.0), world=True)["layer_base"] == "run (predicted)"
    session.select(result="spots")
    points, spots = layers.result_layer("spots"), session.results["spots"]
    at = spots.grid.xy[3, ::-1] * spots.grid.mpp
    assert points.get_status(at, world=True)["layer_base"].endswith("log1p CP10k (measured)")
    layers.show_blend("run", ["ERBB2", "GAPDH"])
    at = result.grid.xy[9, ::-1] * result.grid.mpp
    told = layers.blend("run").layer.get_status(at, world=True)["layer_base"]
    assert told.startswith(f"ERBB2 {value:.2f}, GAPDH ")


def test_a_pinned_spot_lists_its_genes(dock, fill, viewer, session, qtbot):
    fill()
    session.select(result="run", gene="ERBB2")
    genes = dock()
    result, box = session.results["run"], genes.spot
    qtbot.waitUntil(lambda: genes.gene_list.summary is not None)
    fold = box.parentWidget()
    fold.set_open(True)
    box._picker.pick(4)
    best = result.genes[int(result.values[4].argmax())]
    assert box.text.text().partition("Highest</b>: ")[2].partition(">")[2].startswith(f"{best}</a>")
    assert "above their mean" in box.text.text()
    assert "picked spot" in viewer.layers
    box.text.linkActivated.emit("MT-CO1")
    assert session.gene == "MT-CO1"
    assert "MT-CO1" in box.text.text().split("<br>")[1]
    box.unpin.click()
    assert "picked spot" not in viewer.layers
    session.select(result="spots")
    box._picker.pick(2)
    assert box.row == 2
    fold.set_open(False)
    assert box.row is None


def test_how_far_a_slide_is_from_training_is_a_map_with_a_verdict(dock, fill, session, bundle, qtbot, monkeypatch):
    fill()
    session.select(result="run", gene="ERBB2")
    genes, result = dock(), session.results["run"]
    assert "not open" in genes.trust.about.text()
    result.bundle = bundle
    genes.trust.follow()
    assert "keeps no summary" in genes.trust.about.text()
    assert not genes.trust.measure.isEnabled()
    monkeypatch.setitem(bundle.members[0].extras, "training_features", {"encoder": "colour-texture"})
    genes.trust.follow()
    assert "breast, human" in genes.trust.about.text()
    far = np.where(np.arange(len(result.grid)) % 2, 0.5, 2.0).astype(np.float32)
    monkeypatch.setattr("napari_he2st.engine.trust.distance_to_training", lambda *_, **__: far)
    genes.trust.measure.click()
    qtbot.waitUntil(lambda: session.gene == "Distance to training")
    assert genes.trust.verdict.text().startswith("⚠ Outside training: 51%")
    assert result.warnings == [genes.trust.verdict.text()]
    np.testing.assert_array_equal(result.column(session.gene), far)
    session.select(result="spots")
    assert "measured, not predicted" in genes.trust.about.text()

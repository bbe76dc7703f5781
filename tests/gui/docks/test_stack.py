"""The Stack dock: sections in, three dimensions out."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pytest
from qtpy.QtCore import Qt

from napari_he2st.gui.docks.stack import StackDock
from napari_he2st.gui.workspace import layers_of

pytestmark = pytest.mark.gui


@pytest.fixture
def two_sections(session, slide, square_grid, measured):
    """Two measured results with the same genes, the second one shifted."""
    session.add_slide(slide)
    grid = square_grid(6, 9)
    rng = np.random.default_rng(0)
    values = rng.gamma(1.0, 2.0, size=(54, 12)).astype(np.float32)
    for name, shift in (("one", 0.0), ("two", 60.0)):
        noise = rng.normal(0, 0.05, values.shape).astype(np.float32) ** 2
        adata = measured(grid, values + noise, [f"G{i}" for i in range(12)])
        adata.obsm["spatial"] = adata.obsm["spatial"] + shift
        session.add_adata(adata, slide.name, name=name)


def tick(dock, *names):
    for row in range(dock.sections.count()):
        item = dock.sections.item(row)
        item.setCheckState(Qt.CheckState.Checked if item.text() in names else Qt.CheckState.Unchecked)


@pytest.mark.usefixtures("two_sections")
def test_sections_are_aligned_shown_in_3d_and_saved(open_dock, session, viewer, qtbot, tmp_path, monkeypatch):
    dock = open_dock(StackDock)
    tick(dock, "one", "two")
    dock.spacing.setValue(40.0)
    dock.button.click()
    qtbot.waitUntil(lambda: dock.stacked is not None, timeout=60_000)
    (layer,) = [layer for layer in viewer.layers if layer.name == "Stack"]
    assert layer.data.shape == (108, 3)
    assert sorted(set(layer.data[:, 0])) == [0.0, 40.0]
    assert viewer.dims.ndisplay == 3
    assert [layer.name for layer in viewer.layers if layer.visible] == ["Stack"]
    name = session.results["one"].slide
    for ndisplay in (3, 2):  # the overview asks for it in both
        viewer.dims.ndisplay = ndisplay
        assert layers_of(viewer).current_view(name).polygon.shape == (4, 2)
    assert not layer.visible
    assert any(layer.visible for layer in viewer.layers)
    viewer.dims.ndisplay = 3
    assert [layer.name for layer in viewer.layers if layer.visible] == ["Stack"]
    assert dock.table.rowCount() == 1
    assert "→" in dock.table.item(0, 1).text()
    np.testing.assert_allclose(layer.data[:54, 1:], layer.data[54:, 1:], atol=1.0)
    session.select(gene="G3")
    dock.by_gene.setChecked(True)
    assert [layer.name for layer in viewer.layers if layer.metadata.get("he2st") == "stack"] == ["Stack — G3"]
    file = tmp_path / "stack.h5ad"
    dialog = "napari_he2st.gui.widgets.save_dialog.QFileDialog.getSaveFileName"
    monkeypatch.setattr(dialog, lambda *_, **__: (str(file), ""))
    dock.save.click()
    qtbot.waitUntil(file.exists, timeout=20_000)
    qtbot.waitUntil(lambda: not dock.busy, timeout=20_000)
    assert ad.read_h5ad(file).obsm["spatial_3d"].shape == (108, 3)


@pytest.mark.usefixtures("two_sections")
def test_options_of_a_method_are_heeded(open_dock, qtbot):
    dock = open_dock(StackDock)
    tick(dock, "one", "two")
    qtbot.waitUntil(lambda: dock.method.filled == "paste", timeout=60_000)
    dock.method.options.set_values(onto="centre", n_factors=4)
    dock.button.click()
    qtbot.waitUntil(lambda: dock.stacked is not None, timeout=60_000)
    assert dock.stacked.uns["he2st_stack"]["how"].startswith("method=paste, onto=centre")


@pytest.mark.usefixtures("two_sections")
def test_one_section_is_no_stack(open_dock, monkeypatch):
    told = []
    monkeypatch.setattr("napari_he2st.gui.docks.base.show_warning", told.append)
    dock = open_dock(StackDock)
    tick(dock, "one")
    dock.button.click()
    assert told == ["Tick at least two sections"]

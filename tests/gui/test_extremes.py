"""The tissue behind a gene: tiles of the highest and lowest spots."""

from __future__ import annotations

import numpy as np
import pytest
from qtpy.QtCore import Qt

from napari_he2st.core.geometry import world_from_level0
from napari_he2st.data.slides.grid import square_grid
from napari_he2st.gui.docks.genes import GenesDock
from napari_he2st.gui.extremes import EACH, ExtremesDialog
from napari_he2st.gui.workspace import session_of

pytestmark = pytest.mark.gui


def test_tiles_follow_the_gene_and_a_click_goes_there(make_napari_viewer_proxy, tissue_slide, qtbot) -> None:
    viewer = make_napari_viewer_proxy()
    session = session_of(viewer)
    session.add_slide(tissue_slide)
    grid = square_grid(tissue_slide, 60.0)
    result = session.begin_result("run", tissue_slide.name, grid, ["UP", "DOWN"], scale="log1p_cp10k")
    result.values[:, 0] = np.arange(len(grid))
    result.values[:, 1] = -np.arange(len(grid))
    session.finish("run", None)
    session.select(gene="UP")
    dock = GenesDock(viewer)
    viewer.window.add_dock_widget(dock, area="right")
    dock.tiles.click()
    (dialog,) = dock.findChildren(ExtremesDialog)
    qtbot.waitUntil(lambda: bool(dialog.rows))
    last = len(grid) - 1
    assert dialog.rows[0][0] == last
    assert dialog.rows[1][0] == 0
    top = dialog.grids[0]
    assert top.captions[0].text() == f"{last:.2f}"
    assert sum(not picture.pixmap().isNull() for picture in top.pictures) == EACH
    qtbot.mouseClick(top.pictures[0], Qt.MouseButton.LeftButton)
    np.testing.assert_allclose(viewer.scene.camera.center[-2:], world_from_level0(grid.xy[last], grid.mpp))
    session.select(gene="DOWN")
    assert dialog.rows == ()
    qtbot.waitUntil(lambda: bool(dialog.rows))
    assert dialog.rows[0][0] == 0
    dialog.close()
    session.select(gene="UP")
    qtbot.waitUntil(lambda: not dock.busy)

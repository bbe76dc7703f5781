"""Small maps follow the camera and choose genes."""

from __future__ import annotations

import numpy as np
import pytest
from qtpy.QtCore import QPoint, Qt

from napari_he2st.gui.docks.genes import GenesDock
from napari_he2st.gui.gallery import GalleryDialog, coloured, spots_in_view
from napari_he2st.gui.rasters import raster_of
from napari_he2st.gui.workspace import session_of

pytestmark = pytest.mark.gui

GENES = ["A", "B", "C"]


@pytest.fixture
def viewer(make_napari_viewer_proxy):
    return make_napari_viewer_proxy()


@pytest.fixture
def session(viewer, slide, square_grid):
    session = session_of(viewer)
    session.add_slide(slide)
    result = session.begin_result("run", slide.name, square_grid(), GENES, scale="log1p_cp10k")
    result.values[:] = np.random.default_rng(0).gamma(2, size=result.values.shape)
    session.finish("run", None)
    return session


@pytest.fixture
def gallery(viewer, session, qtbot):
    dock = GenesDock(viewer)
    viewer.window.add_dock_widget(dock, name="Genes")
    qtbot.waitUntil(lambda: not dock.busy, timeout=20_000)
    qtbot.keyClick(dock.table, Qt.Key.Key_M)
    (dialog,) = dock.findChildren(GalleryDialog)
    qtbot.waitUntil(lambda: len(dialog.sheet.thumbnails) == 3)
    yield dialog
    dialog.close()


def test_pixels_show_the_spots_that_lie_there(square_grid):
    grid = square_grid()
    x, y = grid.xy.min(axis=0) - 50
    spots = spots_in_view(raster_of(grid), grid, (x, y, 700.0, 500.0))
    assert spots.shape == (143, 200)
    assert spots[5, 5] == 0
    assert spots[-5, -5] == len(grid) - 1
    outside = spots_in_view(raster_of(grid), grid, (0.0, 0.0, 50.0, 50.0))
    assert (outside == len(grid)).all()


def test_unknown_and_outside_are_transparent():
    colours = np.array([[0, 0, 0, 255], [255, 0, 0, 255]], np.uint8)
    pixels = coloured(np.array([0.0, 2.0, np.nan], np.float32), np.array([[0, 1, 2, 3]]), (0.0, 2.0), colours)
    assert pixels[0, :, 3].tolist() == [255, 255, 0, 0]
    assert pixels[0, :2, 0].tolist() == [0, 255]


def test_maps_follow_the_camera(gallery, viewer, qtbot):
    whole = gallery.sheet.thumbnails[0].pixels
    viewer.scene.camera.zoom = 4 * viewer.scene.camera.zoom
    qtbot.waitUntil(
        lambda: (
            gallery.sheet.thumbnails[0].pixels.shape != whole.shape
            or bool((gallery.sheet.thumbnails[0].pixels != whole).any())
        )
    )


def test_a_click_and_arrows_choose_a_gene(gallery, session, qtbot):
    middle = gallery.sheet.cell(1).center()
    qtbot.mouseClick(gallery.sheet, Qt.MouseButton.LeftButton, pos=QPoint(int(middle.x()), int(middle.y())))
    assert session.gene == "B"
    qtbot.keyClick(gallery.sheet, Qt.Key.Key_Right)
    assert session.gene == "C"
    assert gallery.sheet.current == "C"


def test_one_range_for_all(gallery, session):
    own = [thumbnail.about for thumbnail in gallery.sheet.thumbnails]
    gallery.same.setChecked(True)
    ranges = {thumbnail.about.partition(": ")[2] for thumbnail in gallery.sheet.thumbnails}
    assert len(ranges) == 1
    assert len(set(own)) == 3


def test_a_removed_result_empties_the_gallery(gallery, session):
    session.remove_result("run")
    assert gallery.sheet.thumbnails == []

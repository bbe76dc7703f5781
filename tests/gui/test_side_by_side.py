"""Measured, predicted and difference in one canvas."""

from __future__ import annotations

import numpy as np
import pytest

from napari_he2st.core.types import Transform
from napari_he2st.engine.compare import Comparison, compare
from napari_he2st.gui.side_by_side import Second, SideBySide, grid_shape
from napari_he2st.gui.workspace import layers_of, session_of

pytestmark = pytest.mark.gui

GENES = ["ERBB2", "GAPDH"]


@pytest.fixture
def viewer(make_napari_viewer_proxy):
    return make_napari_viewer_proxy()


@pytest.fixture
def slide_layer(viewer, slide):
    session_of(viewer).add_slide(slide)
    return layers_of(viewer).slide_layer(slide.name)


@pytest.fixture
def comparison(viewer, slide_layer, scattered_grid, measured) -> Comparison:
    session, grid = session_of(viewer), scattered_grid()
    values = np.random.default_rng(0).gamma(2, size=(len(grid), 2)).astype(np.float32)
    values[0, 0] = np.nan
    truth, guess = measured(grid, values, GENES), measured(grid, values[::-1], GENES)
    guess.uns["he2st"]["kind"] = "predicted"
    session.add_adata(truth, "section")
    session.add_adata(guess, "section", name="run")
    return compare(guess, truth)


@pytest.fixture
def view(viewer) -> SideBySide:
    return layers_of(viewer).side_by_side


def test_pairs_come_first_and_the_rest_is_hidden(viewer, view, comparison, slide_layer):
    view.enter(comparison, slide_layer, "ERBB2")
    names = [layer.name for layer in viewer.layers]
    assert names[1:9:3] == ["ERBB2, measured", "ERBB2, predicted", "ERBB2, difference"]
    assert all(layer.visible for layer in viewer.layers[:9])
    assert not slide_layer.visible
    assert viewer.canvas.grid.enabled
    assert viewer.canvas.grid.stride == 3
    assert viewer.layers[0].data[0] is slide_layer.data[0]


@pytest.mark.parametrize(("canvas", "shape"), [((600, 800), (1, -1)), ((400, 1200), (1, -1)), ((720, 592), (2, 2))])
def test_two_rows_where_spots_are_clearly_larger_so(canvas, shape):
    assert grid_shape(canvas, (0.0, 0.0, 4000.0, 4000.0), 3) == shape


def test_measured_and_predicted_share_limits_and_the_difference_is_symmetric(view, comparison, slide_layer):
    view.enter(comparison, slide_layer, "ERBB2")
    measured, predicted, difference = view.limits
    assert measured == predicted
    assert difference[0] == -difference[1] < 0
    view.show_gene("GAPDH")
    assert view.limits[0] == view.limits[1]


def test_the_difference_is_predicted_minus_measured(viewer, view, comparison, slide_layer):
    view.enter(comparison, slide_layer, "ERBB2")
    shown = [layer.features["value"].to_numpy() for layer in viewer.layers[1:9:3]]
    np.testing.assert_array_equal(shown[0], comparison.measured[:, 0])
    np.testing.assert_array_equal(shown[1], comparison.predicted[:, 0])
    np.testing.assert_array_equal(shown[2], shown[1] - shown[0])
    assert np.isnan(shown[2][0])


def test_leaving_puts_everything_back(viewer, view, comparison, slide_layer):
    before = list(viewer.layers)
    viewer.scene.camera.zoom = 0.37
    viewer.layers.selection.active = slide_layer
    view.enter(comparison, slide_layer, "ERBB2")
    view.leave()
    assert list(viewer.layers) == before
    assert slide_layer.visible
    assert not viewer.canvas.grid.enabled
    assert viewer.scene.camera.zoom == pytest.approx(0.37)
    assert viewer.layers.selection.active == slide_layer
    assert view.comparison is None


def test_hidden_layers_stay_hidden(viewer, view, comparison, slide_layer):
    slide_layer.visible = False
    view.enter(comparison, slide_layer, "ERBB2")
    view.leave()
    assert not slide_layer.visible


def test_entering_twice_leaves_one_set(viewer, view, comparison, slide_layer):
    view.enter(comparison, slide_layer, "ERBB2")
    view.enter(comparison, slide_layer, "GAPDH")
    assert len(viewer.layers) == 12
    view.leave()
    assert len(viewer.layers) == 3


def test_layers_the_user_deleted_are_no_trouble(viewer, view, comparison, slide_layer):
    view.enter(comparison, slide_layer, "ERBB2")
    del viewer.layers[0]
    view.show_gene("GAPDH")
    view.leave()
    assert viewer.layers[0].name == "section"
    assert len(viewer.layers) == 3


def test_the_third_map_changes(viewer, view, comparison, slide_layer):
    view.enter(comparison, slide_layer, "GAPDH")
    view.show_third("residual")
    assert viewer.layers[7].name == "GAPDH, residual"
    np.testing.assert_allclose(viewer.layers[7].features["value"], comparison.residual("GAPDH"))
    view.show_third("agreement")
    np.testing.assert_allclose(
        viewer.layers[7].features["value"], comparison.spots["pcc"].to_numpy(dtype=np.float32), equal_nan=True
    )


def test_a_picked_spot_is_marked_in_every_panel(viewer, view, comparison, slide_layer):
    view.enter(comparison, slide_layer, "ERBB2")
    view.mark(3)
    expected = comparison.grid.xy[3][::-1] * comparison.grid.mpp
    for ring in viewer.layers[2:9:3]:
        np.testing.assert_allclose(ring.data, [expected])
    view.mark(None)
    assert len(viewer.layers[2].data) == 0


def test_a_second_slide_is_a_panel_of_the_same_world(viewer, view, comparison, slide_layer):
    angle = np.deg2rad(30)
    matrix = np.array([[np.cos(angle), -np.sin(angle), 40], [np.sin(angle), np.cos(angle), -25], [0, 0, 1]])
    second = Second("IHC", slide_layer, Transform(matrix))
    view.enter(comparison, slide_layer, "ERBB2", second=second)
    beside = viewer.layers[9]
    assert beside.name == "IHC, registered"
    assert tuple(viewer.canvas.grid.shape) == (2, 2)
    x, y = 120.0, 80.0  # pixels of the second slide, 0.5 µm each
    world = beside.data_to_world((y, x))
    np.testing.assert_allclose(world[::-1], matrix[:2, :2] @ [x * 0.5, y * 0.5] + matrix[:2, 2])
    view.leave()
    assert len(viewer.layers) == 3

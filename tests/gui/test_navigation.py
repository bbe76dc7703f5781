"""Magnification, jumps, quarter turns and the ruler of a viewer."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from napari.components import ViewerModel

from napari_he2st.engine.session import Session
from napari_he2st.gui.layers import SlideLayers
from napari_he2st.gui.navigation import POWERS


@pytest.fixture
def viewer() -> ViewerModel:
    return ViewerModel()


@pytest.fixture
def layers(viewer, slide) -> SlideLayers:
    layers = SlideLayers(viewer, Session())
    layers.session.add_slide(slide)
    return layers


def press(viewer, key: str) -> None:
    bound = {str(k): function for k, function in viewer.keymap.items()}
    bound[key](viewer)


@pytest.mark.parametrize(("number", "power"), list(enumerate(POWERS, start=1)))
def test_keys_show_the_slide_as_a_microscope_does(viewer, layers, number, power) -> None:
    press(viewer, f"Alt+{number}")
    assert layers.navigator.magnification == pytest.approx(power)
    assert 1 / viewer.scene.camera.zoom == pytest.approx(10 / power)  # µm per screen pixel


def test_going_to_a_place(viewer, layers) -> None:
    layers.navigator.go_to(120, 230)
    assert viewer.scene.camera.center[-2:] == (120, 230)


def test_a_turn_keeps_place_and_scale(viewer, layers) -> None:
    layers.navigator.magnify(20)
    layers.navigator.go_to(120, 230)
    layers.navigator.turn()
    assert layers.navigator.magnification == pytest.approx(20)
    assert viewer.scene.camera.center[-2:] == (230, 120)  # the axes have changed places
    layers.navigator.go_to(50, 60)
    layers.navigator.turn()
    assert viewer.scene.camera.center[-2:] == (50, 60)


def test_the_chosen_slide_is_the_one_on_screen(viewer, layers) -> None:
    other = type(layers.session.current_slide.slide)(name="other", size=(600, 400))
    layers.session.add_slide(other)
    assert [layer.visible for layer in viewer.layers] == [False, True]
    layers.session.select(slide="section")
    assert [layer.visible for layer in viewer.layers] == [True, False]
    viewer.layers["other"].visible = True  # both, if the user wants
    layers.session.select(gene="ERBB2")
    assert viewer.layers["other"].visible


def test_four_quarter_turns_are_none(viewer, layers) -> None:
    orders, pointing = [], []
    for _ in range(4):
        press(viewer, "Alt+R")
        orders.append(tuple(viewer.dims.order))
        pointing.append(tuple(str(v.value if hasattr(v, "value") else v) for v in viewer.scene.camera.orientation2d))
    assert orders == [(1, 0), (0, 1), (1, 0), (0, 1)]
    assert pointing == [("down", "left"), ("up", "left"), ("up", "right"), ("down", "right")]


def waiting(viewer) -> list:
    """Our callbacks among those that napari would call."""
    return [callback for callback in viewer.mouse_drag_callbacks if callback.__module__.startswith("napari_he2st")]


def click(viewer, y: float, x: float, *, moved_px: float = 0) -> None:
    """Press and release on the canvas, through the callbacks that napari would call."""
    event = SimpleNamespace(type="mouse_press", pos=(10, 10), position=(y, x))
    for callback in waiting(viewer):
        steps = callback(viewer, event)
        next(steps)
        if moved_px:
            event.type, event.pos = "mouse_move", (10 + moved_px, 10)
            next(steps)
        event.type = "mouse_release"
        assert next(steps, None) is None


def test_two_clicks_measure(viewer, layers) -> None:
    told = []
    layers.ruler.start(lambda start, end: told.append((start, end)))
    click(viewer, 100, 100)
    click(viewer, 500, 500, moved_px=50)  # a pan in between
    click(viewer, 130, 140)
    ((start, end),) = told
    np.testing.assert_allclose([start, end], [[100, 100], [130, 140]])
    ruler = viewer.layers[-1]
    assert ruler.name == "Ruler: 50.0 µm"
    np.testing.assert_allclose(ruler.data[0], [[100, 100], [130, 140]])
    assert not waiting(viewer)
    layers.ruler.start()
    click(viewer, 0, 0)
    click(viewer, 0, 1500)
    assert [layer.name for layer in viewer.layers if layer.name.startswith("Ruler")] == ["Ruler: 1.50 mm"]


def test_the_ruler_can_be_put_away(viewer, layers) -> None:
    layers.ruler.start()
    assert waiting(viewer)
    layers.ruler.stop()
    assert not waiting(viewer)

"""The overview map and the list of slides."""

from __future__ import annotations

import numpy as np
import pytest
from qtpy.QtCore import QPoint, Qt

from napari_he2st.gui.widgets.overview import MAP_PX, Overview
from napari_he2st.gui.widgets.slide_list import SlideList


@pytest.fixture
def overview(qtbot) -> Overview:
    overview = Overview()
    qtbot.addWidget(overview)
    overview.resize(2 * MAP_PX, 260)
    overview.map.show_slide(np.full((100, 100, 3), 200, np.uint8))
    overview.show()
    return overview


def test_a_click_tells_the_place(overview, qtbot) -> None:
    middle = overview.map.width() // 2
    with qtbot.waitSignal(overview.map.clicked) as told:
        qtbot.mouseClick(overview.map, Qt.MouseButton.LeftButton, pos=QPoint(middle - MAP_PX // 4, MAP_PX // 2))
    np.testing.assert_allclose(told.args, (0.25, 0.5), atol=0.02)
    with qtbot.waitSignal(overview.map.clicked) as told:  # beside the picture
        qtbot.mouseClick(overview.map, Qt.MouseButton.LeftButton, pos=QPoint(1, 1))
    assert told.args[0] == 0


def test_the_frame_is_drawn_around_the_view(overview) -> None:
    overview.map.show_frame(0.25, 0.25, 0.75, 0.75)
    image = overview.map.grab().toImage()
    left = (image.width() - image.height()) // 2
    on_frame = image.pixelColor(left + image.height() // 4, image.height() // 2)
    inside = image.pixelColor(left + image.height() // 2, image.height() // 2)
    assert on_frame.blue() > on_frame.red() + 50
    assert inside.red() == inside.blue() == 200


def test_buttons_ask_for_what_they_say(overview, qtbot) -> None:
    with qtbot.waitSignal(overview.magnify) as told:
        overview.powers[20].click()
    assert told.args == [20.0]
    for button, signal in ((overview.turn_button, overview.turn), (overview.ruler_button, overview.measure)):
        with qtbot.waitSignal(signal):
            button.click()
    overview.show_magnification(20)
    assert overview.readout.text() == "20×  ·  0.5 µm per screen pixel"


def test_slides_have_thumbnails(qtbot) -> None:
    slides = SlideList()
    qtbot.addWidget(slides)
    slides.show_slides(["a", "b"], "b")
    slides.show_thumbnail("b", np.zeros((20, 30, 3), np.uint8))
    assert (slides.count(), slides.currentItem().text()) == (2, "b")
    assert slides.item(0).icon().isNull()
    assert not slides.item(1).icon().isNull()
    with qtbot.waitSignal(slides.chosen) as told:
        slides.setCurrentRow(0)
    assert told.args == ["a"]
    slides.show_slides(["b"], "b")
    assert not slides.item(0).icon().isNull()  # kept

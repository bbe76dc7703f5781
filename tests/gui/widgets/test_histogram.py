"""The histogram with its two handles."""

from __future__ import annotations

import numpy as np
import pytest
from qtpy.QtCore import QPoint, Qt

from napari_he2st.gui.widgets.histogram import RangeHistogram

pytestmark = pytest.mark.gui


@pytest.fixture
def histogram(qtbot) -> RangeHistogram:
    histogram = RangeHistogram()
    qtbot.addWidget(histogram)
    histogram.resize(412, 84)
    histogram.set_values(np.r_[np.linspace(0, 4, 401), np.nan])
    histogram.set_limits(1, 3)
    return histogram


def drag(qtbot, histogram, start, end):
    qtbot.mousePress(histogram, Qt.MouseButton.LeftButton, pos=QPoint(start, 40))
    qtbot.mouseMove(histogram, QPoint(end, 40))
    qtbot.mouseRelease(histogram, Qt.MouseButton.LeftButton, pos=QPoint(end, 40))


def test_it_counts_what_is_known(histogram):
    assert histogram.span == (0, 4)
    assert histogram.counts.sum() == 401


def test_nothing_known_or_all_equal_is_no_error(histogram):
    histogram.set_values(np.full(5, np.nan))
    assert histogram.counts.sum() == 0
    histogram.set_values(np.full(5, 2.0))
    assert histogram.span == (2, 3)
    histogram.grab()


def test_a_large_sample_keeps_the_shape(histogram):
    values = np.random.default_rng(0).normal(size=1_000_000)
    histogram.set_values(values)
    whole = np.histogram(values, bins=64, range=histogram.span)[0] / len(values)
    np.testing.assert_allclose(histogram.counts / histogram.counts.sum(), whole, atol=0.005)


def test_dragging_a_handle_moves_one_limit(histogram, qtbot):
    # 400 px of bars from 6 px on stand for values from 0 to 4
    seen = []
    histogram.limits_dragged.connect(lambda low, high: seen.append((low, high)))
    drag(qtbot, histogram, 106, 156)
    assert seen[-1] == pytest.approx((1.5, 3))
    drag(qtbot, histogram, 306, 400)
    assert histogram.limits == pytest.approx((1.5, 3.94))


def test_handles_do_not_pass_each_other(histogram, qtbot):
    drag(qtbot, histogram, 106, 350)
    assert histogram.limits == (1, 3)


def test_pressing_beside_the_handles_moves_nothing(histogram, qtbot):
    drag(qtbot, histogram, 206, 250)
    assert histogram.limits == (1, 3)


def test_bars_take_the_colours_of_the_map(histogram):
    histogram.set_colours(np.array([[1, 0, 0], [0, 0, 1]], dtype=float))
    picture = histogram.grab().toImage()
    assert picture.pixelColor(40, 66).red() > 200
    assert picture.pixelColor(380, 66).blue() > 200

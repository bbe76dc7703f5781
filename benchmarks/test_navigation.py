"""Panning and zooming a generated slide of 100,000² pixels in the real window: how long the GUI thread is away.

Run with ``xvfb-run … pytest benchmarks/test_navigation.py -s``. A timer of 5 ms ticks while the camera moves; the
gaps between its ticks are what a user feels. Drawing is by software here, which a graphics card does in a fraction.
"""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
from benchmarks.slides import SPARSE_SIZE, write_sparse

from napari_he2st.data.slides import Slide


@pytest.fixture(scope="module")
def slide_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sparse(tmp_path_factory.mktemp("bench") / "large.tif")


def gaps_ms(viewer, navigator, qtbot, across_um: float) -> np.ndarray:
    """Pan by 60 steps through four magnifications; gaps between the ticks of a 5 ms timer, milliseconds."""
    from qtpy.QtCore import QTimer

    navigator.magnify(10)
    qtbot.wait(1000)
    ticks: list[float] = []
    timer = QTimer()
    timer.setInterval(5)
    timer.timeout.connect(lambda: ticks.append(time.perf_counter()))
    timer.start()
    for step in range(60):
        navigator.go_to(across_um / 2 + 40 * step, across_um / 3 + 60 * step)
        if step % 15 == 14:
            navigator.magnify((5, 10, 20, 40)[step // 15])
        qtbot.wait(30)
    timer.stop()
    return np.diff(ticks) * 1000


def told(what: str, gaps: np.ndarray) -> str:
    median, p95, p99 = np.percentile(gaps, [50, 95, 99])
    return (
        f"{what}: gaps of a 5 ms timer: median {median:.0f}, p95 {p95:.0f}, p99 {p99:.0f}, longest {gaps.max():.0f} ms"
    )


def test_panning_and_zooming(slide_path: Path, make_napari_viewer, qtbot) -> None:
    """Against the same camera script over a picture of four pixels, which shows what drawing alone costs."""
    from napari_he2st.gui.workspace import layers_of

    start = time.perf_counter()
    slide = Slide.open(slide_path)
    opened = time.perf_counter() - start
    viewer = make_napari_viewer(show=True)
    layers = layers_of(viewer)
    across_um = SPARSE_SIZE * slide.mpp
    viewer.add_image(np.full((2, 2, 3), 240, np.uint8), rgb=True, scale=(across_um / 2,) * 2, units=("um", "um"))
    drawing = gaps_ms(viewer, layers.navigator, qtbot, across_um)
    viewer.layers.clear()
    layers.session.add_slide(slide)
    gaps = gaps_ms(viewer, layers.navigator, qtbot, across_um)
    print(f"\nopened in {opened:.2f} s, {slide.decoded} tiles decoded")
    print(told("four pixels", drawing))
    print(told("slide", gaps))
    slide.close()
    assert np.percentile(gaps, 95) < 2 * np.percentile(drawing, 95) + 100

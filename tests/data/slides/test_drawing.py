"""Drawing slides: parts of levels by index, tiles made ahead of the view."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from tests.tiny.slides import tissue_image, write_slide

from napari_he2st.core.errors import SlideError
from napari_he2st.data.slides import Slide
from napari_he2st.data.slides.pyramid import Pyramid

TILE = 64
VIEW = np.s_[768:1024, 768:1024]
"""A view of 4 × 4 tiles in the middle, on whole blocks."""


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    return tissue_image(2048, 2048)


@pytest.fixture
def slide(image: np.ndarray, tmp_path: Path) -> Iterator[Slide]:
    with Slide.open(write_slide(tmp_path / "a.tif", image, levels=3, tile=TILE)) as slide:
        yield slide


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int, int]]:
    """(level, column, row) of the tiles in the order in which they are decoded."""
    order: list[tuple[int, int, int]] = []
    decode = Pyramid.decode

    def noted(self: Pyramid, level: int, column: int, row: int, out: np.ndarray | None = None):
        order.append((level, column, row))
        return decode(self, level, column, row, out)

    monkeypatch.setattr(Pyramid, "decode", noted)
    return order


def wait_until(done: Callable[[], bool]) -> None:
    for _ in range(1000):
        if done():
            return
        time.sleep(0.01)
    pytest.fail("it has not happened in 10 seconds")


def settled(decoded: list) -> Callable[[], bool]:
    """Whether nothing has been decoded for a while."""
    seen = [-1]

    def check() -> bool:
        before, seen[0] = seen[0], len(decoded)
        if before != seen[0]:
            time.sleep(0.1)
        return before == seen[0]

    return check


@pytest.mark.parametrize(
    "key",
    [
        np.s_[...],
        np.s_[10:300, 77:500],
        np.s_[10:300:3, 77:500:7],
        np.s_[5],
        np.s_[5, 6, 1],
        np.s_[-1, ..., 0],
        np.s_[100:100, 3:9],
        np.s_[2000:9999],
    ],
)
def test_parts_are_those_of_the_image(slide: Slide, image: np.ndarray, key: object) -> None:
    level = slide.drawn()[0]
    assert (level.shape, level.ndim, level.dtype, level.size) == ((2048, 2048, 3), 3, np.uint8, image.size)
    assert np.array_equal(level[key], image[key])


def test_it_is_an_array_to_numpy(slide: Slide, image: np.ndarray) -> None:
    assert np.array_equal(np.asarray(slide.drawn(ahead=False)[0]), image)


def test_backwards_is_refused(slide: Slide) -> None:
    with pytest.raises(IndexError, match="forwards"):
        slide.drawn()[0][::-1]


def test_what_lies_around_a_view_is_made_ahead(slide: Slide, decoded: list) -> None:
    """So moving by half a view, or changing the magnification by two, decodes nothing that is waited for."""
    levels = slide.drawn()
    levels[1][256:512, 256:512]
    wait_until(settled(decoded))
    n = len(decoded)
    levels = slide.drawn(ahead=False)  # the same tiles
    levels[1][256:512, 384:640]
    levels[1][128:384, 256:512]
    levels[0][640:896, 640:896]
    levels[2][64:320, 64:320]
    assert len(decoded) == n


def test_nothing_is_made_ahead_unless_wanted(slide: Slide, decoded: list) -> None:
    slide.drawn(ahead=False)[0][VIEW]
    time.sleep(0.1)
    assert len(decoded) == 16


def test_tiles_towards_which_the_view_moves_come_first(slide: Slide, decoded: list) -> None:
    level = slide.drawn()[0]
    level[768:1024, 640:896]
    wait_until(settled(decoded))
    decoded.clear()
    level[768:1024, 896:1152]  # two tiles to the right are new, and what is ahead of them
    wait_until(settled(decoded))
    first = [column for at, column, _ in decoded if at == 0][8:12]
    assert min(first) >= 1152 // TILE


def test_a_new_view_ends_what_was_begun_for_the_last(slide: Slide, monkeypatch: pytest.MonkeyPatch) -> None:
    decode, gate, left = Pyramid.decode, threading.Event(), []

    def slow(self: Pyramid, level: int, column: int, row: int, out: np.ndarray | None = None):
        if level == 0 and column < 8:
            left.append((column, row))
            if threading.current_thread() is not threading.main_thread() and len(left) > 16:
                gate.wait(10)
        return decode(self, level, column, row, out)

    monkeypatch.setattr(Pyramid, "decode", slow)
    level = slide.drawn()[0]
    level[:256, :256]
    wait_until(lambda: len(left) == 17)  # the first tile that is made ahead waits at the gate
    level[1536:1792, 1536:1792]
    gate.set()
    time.sleep(0.2)
    assert len(left) == 17


def test_closing_waits_for_the_threads(image: np.ndarray, tmp_path: Path) -> None:
    slide = Slide.open(write_slide(tmp_path / "a.tif", image, levels=3, tile=TILE))
    slide.drawn()[0][VIEW]
    slide.close()
    assert not [t for t in threading.enumerate() if t.name.startswith("draw-tiles")]
    with pytest.raises(SlideError, match="closed"):
        slide.drawn()[0][VIEW]


def test_colours_do_not_mix(slide: Slide, image: np.ndarray) -> None:
    class Inverse:
        key = "inverse"

        def __call__(self, pixels: np.ndarray) -> np.ndarray:
            return 255 - pixels

    other = slide.recoloured(Inverse())
    for _ in range(2):
        assert np.array_equal(slide.drawn()[0][VIEW], image[VIEW])
        assert np.array_equal(other.drawn()[0][VIEW], 255 - image[VIEW])

"""Work in threads reports, stops and fails in words."""

from __future__ import annotations

import time

import pytest
from qtpy.QtWidgets import QWidget

from napari_he2st.core.errors import SlideError
from napari_he2st.core.progress import Control
from napari_he2st.gui import worker
from napari_he2st.gui.worker import run


@pytest.fixture
def told(monkeypatch):
    """Error notifications, which would otherwise need a window."""
    texts: list[str] = []
    monkeypatch.setattr(worker, "show_error", texts.append)
    return texts


def counting(n, *, control):
    control.start(n, "Counting")
    for i in range(n):
        yield i
        control.advance()
        time.sleep(0.002)
    return "counted"


def test_yields_and_result_arrive_in_order(qtbot, told):
    seen, ended = [], []
    task = run(
        counting, 5, name="Counting", control=Control(),
        on_yield=seen.append, on_done=seen.append, on_end=lambda: ended.append(True),
    )  # fmt: skip
    qtbot.waitUntil(lambda: bool(ended))
    assert seen == [0, 1, 2, 3, 4, "counted"]
    assert not task.running
    assert told == []


def test_our_errors_are_told_in_their_own_words(qtbot, told):
    def fail():
        raise SlideError("The slide is cut off", where="a.svs", todo="Copy it again")

    failed = []
    task = run(fail, name="Opening", on_error=failed.append)
    qtbot.waitUntil(lambda: not task.running)
    assert told == ["The slide is cut off: a.svs. Copy it again."]
    assert isinstance(failed[0], SlideError)


@pytest.mark.parametrize("error", [RuntimeError("out of memory"), ValueError("bad shape")])
def test_other_errors_are_told_without_a_traceback(qtbot, told, error, caplog):
    def fail():
        yield 1
        raise error

    ended = []
    run(fail, name="Predicting", on_end=lambda: ended.append(True))
    qtbot.waitUntil(lambda: bool(ended))
    assert told == [f"Predicting failed: {type(error).__name__}: {error}. The log has the details."]
    assert "Traceback" in caplog.text


def test_cancelled_work_ends_without_an_error(qtbot, told):
    done, ended = [], []
    task = run(
        counting, 10_000, name="Counting", control=Control(),
        on_yield=lambda i: task.cancel() if i == 3 else None,
        on_done=done.append, on_end=lambda: ended.append(True),
    )  # fmt: skip
    qtbot.waitUntil(lambda: bool(ended))
    assert task.control.done < 10_000
    assert done == []
    assert told == []


def test_paused_work_waits_and_can_still_be_cancelled(qtbot, told):
    seen, ended = [], []
    task = run(
        counting, 10_000, name="Counting", control=Control(),
        on_yield=seen.append, on_end=lambda: ended.append(True),
    )  # fmt: skip
    qtbot.waitUntil(lambda: len(seen) > 3)
    task.pause()
    qtbot.wait(250)
    count = len(seen)
    qtbot.wait(150)
    assert len(seen) == count
    task.cancel()
    qtbot.waitUntil(lambda: bool(ended), timeout=2000)


@pytest.mark.parametrize("way", ["close", "delete"])
def test_work_ends_with_the_window_and_calls_nobody_back(qtbot, told, way):
    window = QWidget()
    owner = QWidget(window)
    seen = []
    task = run(counting, 10_000, name="Counting", control=Control(), owner=owner, on_yield=seen.append)
    qtbot.waitUntil(lambda: len(seen) > 1)
    if way == "close":
        window.close()
    else:
        window.deleteLater()
    qtbot.waitUntil(lambda: not task.running, timeout=2000)
    assert task.control.done < 10_000

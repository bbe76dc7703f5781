"""Batches on several cores: in order, bounded, and ended with their caller."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest
import torch
from tests.tiny import predictors
from tests.tiny.predictors import bundle_of

from napari_he2st.engine.predict import predict
from napari_he2st.engine.workers import in_order


@pytest.fixture
def threads():
    """Set how many threads torch may use, for this test."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def slow_square(number: int) -> int:
    time.sleep(0.002 * (number % 3))
    return number * number


@pytest.mark.parametrize("n_workers", [1, 2, 5])
def test_results_come_in_order_and_not_far_ahead(n_workers: int) -> None:
    taken: list[int] = []

    def items():
        for number in range(40):
            taken.append(number)
            yield number

    for number, result in enumerate(in_order(slow_square, items(), n_workers)):
        assert result == number * number
        assert len(taken) <= number + 1 + n_workers
    assert len(taken) == 40


def test_each_worker_has_one_core_and_afterwards_all_is_as_before(threads) -> None:
    threads(3)
    seen = list(in_order(lambda _: (torch.get_num_threads(), threading.current_thread().name), range(20), 2))
    assert {n for n, _ in seen} == {1}
    assert len({name for _, name in seen}) == 2
    assert torch.get_num_threads() == 3
    fresh: list[int] = []
    thread = threading.Thread(target=lambda: fresh.append(torch.get_num_threads()))
    thread.start()
    thread.join()
    assert fresh == [3]


def test_an_error_comes_through_and_a_caller_that_stops_ends_the_workers() -> None:
    def fail(number: int) -> int:
        if number == 3:
            raise ValueError("three")
        return number

    results = in_order(fail, range(10), 2)
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ValueError, match="three"):
        next(results)
    results = in_order(slow_square, range(100), 2)
    next(results)
    results.close()
    assert not [t for t in threading.enumerate() if t.name.startswith("he2st-model")]


def test_prediction_is_the_same_with_any_number_of_workers(slide, grid, threads) -> None:
    found = []
    for n in (1, 4):
        threads(n)
        chunks = list(predict(bundle_of(predictors.Colour), slide, grid, batch_size=8, device="cpu"))
        assert [len(chunk.index) for chunk in chunks[:-1]] == [8] * (len(chunks) - 1)
        found.append((np.concatenate([c.index for c in chunks]), np.concatenate([c.mean for c in chunks])))
    for one, other in zip(*found, strict=True):
        np.testing.assert_array_equal(one, other)

"""The batch size of a long run is the fastest of some, that of a short one the usual."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tests.tiny.predictors import Colour, bundle_of

from napari_he2st.engine import probe
from napari_he2st.engine.device import auto_batch_size, auto_workers
from napari_he2st.engine.predict import predict
from napari_he2st.zoo.base import Slide, Spots

CPU = torch.device("cpu")
USUAL = auto_batch_size(CPU)
WORKERS = auto_workers(CPU)
LONG = np.arange(30 * WORKERS * 64 * 4, dtype=np.intp)


def probed(monkeypatch: pytest.MonkeyPatch, seconds: dict[int, float], rows=LONG, unit=None) -> tuple[int, list]:
    """The size that is found on a machine where a tile of a batch of some size takes so long; what was run."""
    clock, runs = [0.0], []
    monkeypatch.setattr(probe.time, "process_time", lambda: clock[0])

    def runner(some, size):
        def run(plan):
            runs.append((size, len(plan)))
            clock[0] += seconds[size] * len(plan)
            yield from plan

        return SimpleNamespace(unit=unit or Spots(), plan=list(some), run=run)

    return probe.best_batch_size(runner, rows, CPU), runs


@pytest.mark.parametrize(
    ("seconds", "best"),
    [
        ({4: 0.8, 16: 1.0}, 4),
        ({4: 1.2, 16: 1.0, 64: 0.7}, 64),
        ({4: 1.2, 16: 1.0, 64: 1.1}, 16),
        ({4: 1.0, 16: 0.99}, 4),
    ],
)
def test_sizes_are_tried_until_one_gains_next_to_nothing(monkeypatch, seconds, best) -> None:
    found, runs = probed(monkeypatch, seconds)
    assert found == best
    assert {size for size, _ in runs} == set(seconds)
    assert sum(n for _, n in runs) * 30 <= len(LONG), "the probe is a small part of the run"


def test_short_runs_and_spots_that_see_each_other_are_not_probed(monkeypatch) -> None:
    assert probed(monkeypatch, {}, rows=LONG[:-1]) == (USUAL, [])
    assert probed(monkeypatch, {}, unit=Slide()) == (USUAL, [])


def test_a_long_run_of_a_real_model_is_probed_and_says_the_same(slide, grid, monkeypatch) -> None:
    monkeypatch.setattr(probe, "_WORTH", 1e-9)
    sizes = []
    plain = probe._seconds
    monkeypatch.setattr(
        probe, "_seconds", lambda run, device: sizes.append(len(run.plan[0].rows)) or plain(run, device)
    )
    auto = np.concatenate([chunk.mean for chunk in predict(bundle_of(Colour), slide, grid, device="cpu")])
    assert {4, 16} <= set(sizes)
    fixed = np.concatenate([c.mean for c in predict(bundle_of(Colour), slide, grid, device="cpu", batch_size=8)])
    np.testing.assert_allclose(auto, fixed, atol=1e-6)

"""The batch size at which a model is fastest here, found by trying."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from napari_he2st.engine.device import auto_batch_size, auto_workers
from napari_he2st.zoo.base import Spots

if TYPE_CHECKING:
    from napari_he2st.engine.run import Runner

_TRIED = {"cpu": (4, 16, 64), "mps": (32, 64, 128), "cuda": (64, 256, 1024)}
"""In turn, until one is no better: what takes long by itself is fastest in small batches, which stay in the processor's
cache, and what takes next to no time in large ones."""

_WORTH = 30
"""A probe is made where the run is at least this many times as long, so that it costs 3 %."""

_BETTER = 0.97
"""Time, against that of the size before, at which the next one is taken: less of a gain is noise."""


def best_batch_size(
    runner: Callable[[NDArray[np.intp], int], Runner], rows: NDArray[np.intp], device: torch.device
) -> int:
    """Spots per batch: the usual number, or the fastest of some where the run is long.

    Parameters
    ----------
    runner
        Makes a run of some rows with a batch size, which has to compute everything anew.
    rows
        Grid rows to predict.
    device
        Where.
    """
    usual = auto_batch_size(device)
    sizes = _TRIED.get(device.type, (usual,))
    some = rows[len(rows) // 2 :][: max(sizes) * auto_workers(device)]
    if len(rows) < _WORTH * len(some) * (len(sizes) + 1) or not isinstance(runner(rows[:1], 1).unit, Spots):
        return usual
    best, *larger = sizes
    _seconds(runner(some, best), device)  # warms up
    fastest = _seconds(runner(some, best), device)
    for size in larger:
        taken = _seconds(runner(some, size), device)
        if taken > _BETTER * fastest:
            break
        best, fastest = size, taken
    return best


def _seconds(run: Runner, device: torch.device) -> float:
    """Seconds that a run takes; on a CPU those of this process, whatever else goes on."""
    clock = time.process_time if device.type == "cpu" else time.perf_counter
    start = clock()
    for _ in run.run(run.plan):
        pass
    return clock() - start

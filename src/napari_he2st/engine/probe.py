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

_TRIED = {"cpu": (4, 8, 16), "mps": (32, 64, 128), "cuda": (64, 256, 1024)}
_WORTH = 30
"""A probe is made where the run is at least this many times as long, so that it costs 3 %: with the starter on two
cores batches of 4 took 15 to 25 % less time than the usual ones of 8."""

_BETTER = 0.97
"""Time, against that of the usual size, at which another one is taken: less of a gain is noise."""


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
    n_workers = auto_workers(device)
    n_probed = max(sizes) * n_workers
    if len(rows) < _WORTH * n_probed * (len(sizes) + 1) or not isinstance(runner(rows[:1], 1).unit, Spots):
        return usual
    middle = rows[len(rows) // 2 :][:n_probed]
    _seconds(runner(middle, usual))  # warms up
    taken = {size: _seconds(runner(middle, size)) for size in sizes}
    best = min(taken, key=lambda size: taken[size])
    return best if taken[best] < _BETTER * taken.get(usual, np.inf) else usual


def _seconds(run: Runner) -> float:
    start = time.perf_counter()
    for _ in run.run(run.plan):
        pass
    return time.perf_counter() - start

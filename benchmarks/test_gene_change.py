"""A gene change, from the session's event to the layer: main-thread CPU beside a bare copy of the values.

Run with ``xvfb-run -a pytest benchmarks/test_gene_change.py``; each line of the report gives CPU milliseconds,
the limit, and the ratio to copying the gene's values once.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import pytest

from napari_he2st.core.types import Grid
from napari_he2st.gui.docks.genes import GenesDock
from napari_he2st.gui.workspace import session_of

GENES = ["A", "B"]
REPEATS = 15


def square(n: int) -> Grid:
    side = int(n**0.5)
    index = np.indices((side, side)).reshape(2, -1).T
    return Grid(index[:, ::-1] * 100.0, 50, "square", 50, 0.5, index, (side, side), np.ones(len(index), bool))


def irregular(n: int) -> Grid:
    xy = np.random.default_rng(0).uniform(0, 40_000, (n, 2))
    index = np.stack([np.arange(n), np.zeros(n, np.intp)], axis=1)
    return Grid(xy, 30, "irregular", 20, 0.5, index, (n, 1), np.ones(n, bool))


def cpu_ms(call: Callable[[int], object]) -> float:
    """Least CPU time of the calling thread over some repeats, milliseconds."""
    best = np.inf
    for repeat in range(REPEATS):
        start = time.thread_time()
        call(repeat)
        best = min(best, time.thread_time() - start)
    return best * 1e3


@pytest.mark.gui
@pytest.mark.parametrize(
    ("lattice", "n", "limit_ms"),
    [
        (square, 100_000, 10),
        (square, 1_000_000, 10),
        (irregular, 20_000, 50),
        (irregular, 100_000, 10),
        (irregular, 1_000_000, 30),
    ],
)
def test_gene_change(make_napari_viewer, qtbot, figure, lattice, n, limit_ms):
    viewer = make_napari_viewer()
    session = session_of(viewer)
    grid = lattice(n)
    dock = GenesDock(viewer)
    viewer.window.add_dock_widget(dock, name="Genes")
    result = session.begin_result("run", "", grid, GENES, scale="log1p_cp10k")
    result.values[:] = np.random.default_rng(1).gamma(2, size=result.values.shape)
    session.finish(result.name, None)
    qtbot.waitUntil(lambda: not dock.status.bar.isVisibleTo(dock.status), timeout=60_000)
    session.select(gene=GENES[1])  # so that every repeat is a change
    buffer = np.empty(len(grid), dtype=np.float32)
    copy = cpu_ms(lambda repeat: np.copyto(buffer, result.values[:, repeat % 2]))
    change = cpu_ms(lambda repeat: session.select(gene=GENES[repeat % 2]))
    kind = type(viewer.layers[0]).__name__
    what = f"window: gene change, {n:,} {lattice.__name__} spots as {kind}"
    figure(what, change, "ms of CPU", at_most=limit_ms, beside=f"{change / copy:.1f} × a copy")

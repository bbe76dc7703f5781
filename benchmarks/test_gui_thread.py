"""What the GUI thread is kept from while a model loads and while a run goes on.

Run with ``xvfb-run … pytest benchmarks/test_gui_thread.py -s``, the loading first, in a process that has not loaded
the model yet. A timer of 5 ms ticks; the gaps between its ticks are what a user feels. Our own callbacks are timed in
CPU time of the GUI thread, without the draw, which napari does when they have returned. The camera script runs twice
with and twice without a run, in turns.
"""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
from benchmarks.test_gene_change import GENES, irregular, square
from benchmarks.test_navigation import gaps_ms, told

from napari_he2st.core.types import Chunk
from napari_he2st.data.samples import sample_section
from napari_he2st.data.slides import Slide
from napari_he2st.gui.docks.genes import GenesDock
from napari_he2st.gui.docks.predict import PredictDock
from napari_he2st.gui.workspace import layers_of, session_of

CHUNKS, SPOTS = 200, 64
WAIT_MS = 120_000


@pytest.fixture(autouse=True)
def cold_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No features are known, so that the model has to work."""
    monkeypatch.setenv("HE2ST_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def section(make_napari_viewer, qtbot):
    """A window with the sample's slide."""
    path = sample_section().slide_path
    assert path is not None
    viewer = make_napari_viewer(show=True)
    with Slide.open(path, mpp=0.69) as slide:
        session_of(viewer).add_slide(slide)
        layers_of(viewer)
        qtbot.wait(2000)
        yield viewer, slide


@pytest.mark.gui
def test_loading_a_model_and_a_run_beside_the_window(section, qtbot, figure) -> None:
    from qtpy.QtCore import QTimer

    viewer, slide = section
    ticks: list[float] = []
    timer = QTimer()
    timer.setInterval(5)
    timer.timeout.connect(lambda: ticks.append(time.perf_counter()))
    dock = PredictDock(viewer)
    viewer.window.add_dock_widget(dock, name="Predict")
    qtbot.wait(500)
    timer.start()
    dock.load("starter")
    dock.opened()
    qtbot.waitUntil(dock.run_button.isEnabled, timeout=WAIT_MS)
    qtbot.waitUntil(lambda: not dock.busy, timeout=WAIT_MS)
    timer.stop()
    loading = np.diff(ticks)
    print()
    print(told("loading the starter", loading * 1000))

    layers = layers_of(viewer)
    across_um = slide.size[0] * slide.mpp
    rounds: dict[bool, list[np.ndarray]] = {False: [], True: []}
    for _ in range(2):
        for runs in (False, True):
            if runs:
                dock.run_button.click()
                qtbot.waitUntil(lambda: dock.predicting, timeout=WAIT_MS)
            rounds[runs].append(gaps_ms(viewer, layers.navigator, qtbot, across_um))
            if runs:
                assert dock.predicting, "the run outlasts the camera script"
                assert dock._run is not None
                dock._run.cancel()
                qtbot.waitUntil(lambda: not dock.busy, timeout=WAIT_MS)
    gaps = {runs: np.concatenate(rounds[runs]) for runs in rounds}
    for runs, name in ((False, "without"), (True, "with a run")):
        print(told(name, gaps[runs]))
    with_run, without = (float(np.percentile(gaps[runs], 99)) for runs in (True, False))
    beside = f"{with_run:.0f} ms against {without:.0f} ms"
    figure("window: p99 of a 5 ms timer during a run", with_run / without, "×", at_most=2.0, beside=beside)
    figure("window: longest stutter while the starter loads", loading.max(), "s", at_most=0.4)


@pytest.mark.gui
@pytest.mark.parametrize("lattice", [square, irregular])
def test_filling_a_result(make_napari_viewer, qtbot, figure, lattice) -> None:
    """Batches of a run arriving in a result of 100,000 spots that is shown."""
    viewer = make_napari_viewer()
    session = session_of(viewer)
    grid = lattice(100_000)
    dock = GenesDock(viewer)
    viewer.window.add_dock_widget(dock, name="Genes")
    result = session.begin_result("run", "", grid, GENES, scale="log1p_cp10k")
    session.select(gene=GENES[0])
    rng = np.random.default_rng(0)
    taken = []
    for number in range(CHUNKS):
        rows = np.arange(number * SPOTS, (number + 1) * SPOTS, dtype=np.intp)
        chunk = Chunk("expression", rows, rng.gamma(2, size=(SPOTS, len(GENES))).astype(np.float32))
        start = time.thread_time()
        session.fill(result.name, chunk)
        taken.append(1000 * (time.thread_time() - start))
        qtbot.wait(5)
    what = f"window: filling a result of {len(grid):,} {lattice.__name__} spots, the longest of {CHUNKS} batches"
    figure(what, max(taken), "ms of CPU", at_most=20, beside=f"median {np.median(taken):.1f} ms")

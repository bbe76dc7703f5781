"""``he2st predict`` killed without warning."""

from __future__ import annotations

import json
import logging
import signal
import subprocess
import sys
import time
from pathlib import Path

import anndata
import numpy as np
import pytest

from napari_he2st.cli.app import main

KILLS = 20
log = logging.getLogger(__name__)


@pytest.fixture(scope="module")
def colour_bundle(sample: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A linear predictor from the colours of the tile."""
    path = tmp_path_factory.mktemp("bundle") / "colour.he2st"
    fields = 'fields=[["colour-texture",112]]'
    with pytest.raises(SystemExit) as stop:
        main(["train", "ridge", "--data", sample, "--panel", "hvg:50", "--argument", fields, "-o", str(path)])
    assert not stop.value.code
    return path


@pytest.fixture
def start(sample: str, colour_bundle: Path):
    """Start the command that predicts the sample every few micrometres, in a process of its own."""
    running = []

    def begin(out: Path, pitch_um: float) -> subprocess.Popen:
        options = ["--model", colour_bundle, "--pitch", pitch_um, "--store", f"{out}.store", "-o", out]
        run = "from napari_he2st.cli.app import main; main()"
        command = [sys.executable, "-c", run, "predict", sample, *map(str, options)]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        running.append(process)
        return process

    yield begin
    for process in running:
        process.kill()
        process.wait()


def wait_for_batches(store: Path, process: subprocess.Popen) -> None:
    """Until the first batch of a run is on disk."""
    while not any(file.stat().st_size for file in (store / "journal").glob("*.bin")):
        assert process.poll() is None, process.stderr.read().decode()
        time.sleep(0.01)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_killed_at_random_moments_it_goes_on_and_nothing_changes(start, tmp_path: Path) -> None:
    pitch_um = 30.0
    whole, parts = tmp_path / "whole.h5ad", tmp_path / "parts.h5ad"
    process = start(whole, pitch_um)
    wait_for_batches(Path(f"{whole}.store"), process)
    began = time.monotonic()
    assert process.wait() == 0
    duration = time.monotonic() - began

    rng = np.random.default_rng(0)
    store = Path(f"{parts}.store")
    killed = 0
    for number in range(KILLS):
        process = start(parts, pitch_um)
        if number:
            time.sleep(rng.uniform(0, 1.5))  # while it starts, or reads what is there
        else:
            wait_for_batches(store, process)
        time.sleep(rng.uniform(0, duration / KILLS))
        process.send_signal(signal.SIGKILL)
        killed += process.wait() == -signal.SIGKILL
        sealed = json.loads((store / "he2st-store.json").read_text())["sealed"]
        waiting = sum(file.stat().st_size for file in (store / "journal").glob("*.bin"))
        log.info("kill %d: shards complete %s, journal %d bytes", number + 1, sealed, waiting)
    assert killed == KILLS
    assert start(parts, pitch_um).wait() == 0
    first, second = anndata.read_h5ad(whole), anndata.read_h5ad(parts)
    np.testing.assert_array_equal(first.X, second.X)
    assert np.isfinite(second.X).all()

"""``he2st predict`` killed without warning."""

from __future__ import annotations

import logging
import os
import signal
import time
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from pathlib import Path

import anndata
import numpy as np
import pytest

from napari_he2st.cli.app import main

KILLS = 20
PITCH_UM = 80.0
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
def start(sample: str, colour_bundle: Path, monkeypatch: pytest.MonkeyPatch):
    """Start the command that predicts the sample, in a process of its own, forked so that it starts at once."""
    running = []

    def begin(out: Path) -> BaseProcess:
        monkeypatch.setenv("HE2ST_CACHE", f"{out}.cache")  # one run must not find the features of the other
        options = ["--model", colour_bundle, "--pitch", PITCH_UM, "--store", f"{out}.store", "-o", out]
        process = get_context("fork").Process(target=main, args=(["predict", sample, *map(str, options)],))
        process.start()
        running.append(process)
        return process

    yield begin
    for process in running:
        process.kill()
        process.join()


def written(store: Path) -> int:
    """Bytes of finished batches in the journals of a run."""
    return sum(file.stat().st_size for file in (store / "journal").glob("*.bin"))


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs processes that can be forked")
def test_killed_at_random_moments_it_goes_on_and_nothing_changes(start, tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole.h5ad", tmp_path / "parts.h5ad"
    began = time.monotonic()
    process = start(whole)
    process.join()
    assert process.exitcode == 0
    duration = time.monotonic() - began

    rng = np.random.default_rng(0)
    store = Path(f"{parts}.store")
    for number in range(1, KILLS + 1):
        before = written(store)
        process = start(parts)
        while number % 2 and written(store) == before:  # every other one dies once it has gone on
            time.sleep(0.005)
        time.sleep(rng.uniform(0, duration / KILLS))
        assert process.is_alive()
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        assert process.exitcode == -signal.SIGKILL
        log.info("kill %d of %d: %d bytes of finished batches", number, KILLS, written(store))
    assert written(store) > 0
    process = start(parts)
    process.join()
    assert process.exitcode == 0
    first, second = anndata.read_h5ad(whole), anndata.read_h5ad(parts)
    np.testing.assert_array_equal(first.X, second.X)
    assert np.isfinite(second.X).all()

"""Memory over time while a slide is predicted: ``python -m benchmarks.memory`` draws ``docs/images/memory.png``.

Each slide is predicted by a process of its own, on one core, with the starter, into a store; its resident memory is
read every 50 ms. The zero is what the process takes with the model loaded and one batch predicted.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import psutil
from benchmarks.conftest import DOCS, record
from benchmarks.slides import write_real, write_sparse
from numpy.typing import NDArray

LIMIT_MB = 300
_ENOUGH_TILES = 1200

_RUN = """
import sys
import numpy as np, torch
from pathlib import Path
torch.set_num_threads(1)
from napari_he2st.data.slides import Slide
from napari_he2st.data.slides.grid import square_grid
from napari_he2st.data.slides.tissue import tissue_mask
from napari_he2st.engine.predict import predict
from napari_he2st.zoo.catalogue import load

path, store, n = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
bundle = load("starter")
with Slide.open(path) as slide:
    grid = square_grid(slide, bundle.manifest.pitch_um, mask=tissue_mask(slide))
    grid = grid.take(np.arange(0, len(grid), max(1, len(grid) // n)))
    run = predict(bundle, slide, grid, store=store, device="cpu")
    next(run)
    run.close()
with Slide.open(path) as slide:
    print("ready", len(grid), flush=True)
    sys.stdin.readline()
    done = sum(len(chunk.index) for chunk in predict(bundle, slide, grid, store=Path(f"{store}-again"), device="cpu"))
    print("done", done, flush=True)
"""


def curve(
    path: Path, folder: Path, n_tiles: int = _ENOUGH_TILES
) -> tuple[NDArray[np.float64], NDArray[np.float64], int]:
    """Seconds, megabytes beyond model and batch, and the number of tiles that were predicted."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HE2ST_CACHE": str(folder / "cache")}
    command = [sys.executable, "-c", _RUN, str(path), str(folder / "store"), str(n_tiles)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        _, n = process.stdout.readline().split()
        watched = psutil.Process(process.pid)
        zero, start = watched.memory_info().rss, time.monotonic()
        process.stdin.write("\n")
        process.stdin.flush()
        seconds, rss = [0.0], [zero]
        os.set_blocking(process.stdout.fileno(), False)
        while process.poll() is None and not process.stdout.readline():
            time.sleep(0.05)
            seconds.append(time.monotonic() - start)
            rss.append(watched.memory_info().rss)
    return np.array(seconds), (np.array(rss) - zero) / 1e6, int(n)


def main() -> None:
    """Measure both slides, keep their peaks, draw the picture."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 3), layout="constrained")
    failed = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        real = Path(os.environ.get("HE2ST_BENCH_SLIDE") or write_real(folder / "real.tif"))
        for name, path in (("20,480²", real), ("100,000²", write_sparse(folder / "sparse.tif"))):
            (folder / name).mkdir()
            seconds, megabytes, n = curve(path, folder / name)
            axes.plot(seconds, megabytes, label=f"{name} pixels, {n:,} spots")
            try:
                record(f"memory: peak beyond model and batch, {name} pixels", megabytes.max(), "MB", at_most=LIMIT_MB)
            except AssertionError as missed:
                failed.append(missed)
    axes.axhline(LIMIT_MB, color="0.5", linestyle="--", linewidth=1)
    axes.set(xlabel="seconds", ylabel="MB beyond model and batch", ylim=(0, None))
    axes.legend(frameon=False)
    figure.savefig(DOCS / "images" / "memory.png", dpi=120)
    for missed in failed:
        print(missed)


if __name__ == "__main__":
    main()

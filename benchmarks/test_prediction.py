"""Whole-slide prediction with the starter, against its own models on tiles that are ready in memory.

Run with ``HE2ST_DATA=… pytest benchmarks/test_prediction.py -s``. The ratio is spots per CPU-second of the
whole run (reading, resampling, batches, model, store) over spots per CPU-second of the bare model, in one run.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from benchmarks.test_reading import slide_path as slide_path

from napari_he2st.data.slides import Slide
from napari_he2st.data.slides.grid import square_grid
from napari_he2st.data.slides.tissue import tissue_mask
from napari_he2st.engine.features import Scene, encode, encoder_on, encoder_tile, slide_statistics
from napari_he2st.engine.predict import predict
from napari_he2st.zoo.catalogue import load

BATCH = 16
PITCH_UM = 200.0
CPU = torch.device("cpu")


def bare_rate(path: Path, mpp: float | None, n_batches: int = 6) -> float:
    """Spots per CPU-second of the encoders and the regression, on tiles of this slide that are in memory."""
    bundle = load("starter")
    model = bundle.members[0]
    with Slide.open(path, mpp=mpp) as slide:
        scene = Scene(slide, square_grid(slide, PITCH_UM, mask=tissue_mask(slide)), bundle.manifest.mpp, CPU)
        centres = scene.grid.xy[:: max(1, len(scene.grid) // BATCH)][:BATCH]
        ready = {
            name: torch.from_numpy(next(iter(slide.read_tiles(centres, *encoder_tile(scene, spec)))).tiles).permute(
                0, 3, 1, 2
            )
            for name, spec in model.inputs.items()
        }
    with torch.inference_mode():
        for number in range(n_batches + 1):
            if number == 1:
                start = time.process_time()
            features = {n: encode(encoder_on(spec.encoder, CPU), ready[n]) for n, spec in model.inputs.items()}
            model.predict(**model.prepare(**features))
    return n_batches * len(centres) / (time.process_time() - start)


def whole_slide_rate(path: Path, mpp: float | None, store: Path) -> tuple[float, int]:
    """Spots per CPU-second over a whole slide's tissue, its statistics known, and the number of spots."""
    bundle = load("starter")
    with Slide.open(path, mpp=mpp) as slide:
        grid = square_grid(slide, PITCH_UM, mask=tissue_mask(slide))
        scene = Scene(slide, grid, bundle.manifest.mpp, CPU)
        for spec in bundle.members[0].inputs.values():
            slide_statistics(scene, spec.encoder, *encoder_tile(scene, spec))
        start = time.process_time()
        done = sum(len(c.index) for c in predict(bundle, slide, grid, batch_size=BATCH, store=store, device="cpu"))
        return done / (time.process_time() - start), done


@pytest.fixture(params=["pyramid", "aperio"])
def slide(request: pytest.FixtureRequest) -> tuple[Path, float | None]:
    if request.param == "pyramid":
        return request.getfixturevalue("slide_path"), None
    folder = os.environ.get("HE2ST_DATA")
    if not folder:
        pytest.skip("needs the real slides that HE2ST_DATA names")
    return Path(folder) / "wsi" / "tcga-cr-7395-01a-01-ts1.svs", 0.5


def test_whole_slide_against_the_bare_model(slide: tuple[Path, float | None], tmp_path: Path) -> None:
    torch.set_num_threads(1)
    path, mpp = slide
    before = bare_rate(path, mpp)
    rate, n = whole_slide_rate(path, mpp, tmp_path / "store")
    bare = max(before, bare_rate(path, mpp))
    print(f"\n{path.name}: {n} spots, {rate:.1f} per CPU-s, bare model {bare:.1f}: {rate / bare:.2f}")
    assert rate / bare > 0.7


MEMORY = """
import resource, sys, torch
from pathlib import Path
torch.set_num_threads(1)
from benchmarks.test_prediction import bare_rate, whole_slide_rate
mpp = float(sys.argv[2]) if sys.argv[2] != "-" else None
bare_rate(Path(sys.argv[1]), mpp, 1)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
_, n = whole_slide_rate(Path(sys.argv[1]), mpp, Path(sys.argv[3]))
print(n, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
"""


def test_peak_memory_beyond_model_and_batch(slide: tuple[Path, float | None], tmp_path: Path) -> None:
    path, mpp = slide
    arguments = [sys.executable, "-c", MEMORY, str(path), "-" if mpp is None else str(mpp), str(tmp_path / "store")]
    done = subprocess.run(arguments, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[1])
    n, mib = done.stdout.split()
    print(f"\n{path.name}: {n} spots, {float(mib):.0f} MiB beyond model and one batch")
    assert float(mib) <= 300

"""Whole slides: what reading, batches and the store cost beside decoding alone, and beside the bare model.

Run with ``HE2ST_DATA=… pytest benchmarks/test_prediction.py -s``. Everything runs on one core, and a figure is a ratio
of CPU seconds measured in one run: the slide's tiles decoded once, or the bare models on tiles that are ready in
memory, over the whole run (mask, grid, reading, resampling, batches, model, store).
"""

from __future__ import annotations

import importlib.util
import statistics
import time
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from benchmarks.conftest import peers
from benchmarks.slides import TILE
from benchmarks.test_reading import cpu_seconds, raw_decode
from benchmarks.test_reading import slide_path as slide_path

from napari_he2st.data.slides import Slide
from napari_he2st.data.slides.grid import square_grid
from napari_he2st.data.slides.pyramid import tile_buffer
from napari_he2st.data.slides.tissue import tissue_mask
from napari_he2st.engine.device import OPENVINO, auto_batch_size
from napari_he2st.engine.features import Scene, encoder_tile, slide_statistics
from napari_he2st.engine.predict import predict
from napari_he2st.zoo.base import Predictor
from napari_he2st.zoo.bundle import Bundle
from napari_he2st.zoo.catalogue import load
from napari_he2st.zoo.inputs import Tiles
from napari_he2st.zoo.manifest import Manifest

CPU = torch.device("cpu")
GENES = tuple(f"G{i}" for i in range(1000))
N_SPOTS, N_READY = 400, 64


@pytest.fixture(autouse=True)
def one_core(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """A core, and a cache in which nothing is known yet."""
    monkeypatch.setenv("HE2ST_CACHE", str(tmp_path / "cache"))
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


class Nothing(Predictor):
    """Looks at no tile."""

    inputs = {"tiles": Tiles(px=224, mpp="native")}

    def forward(self, tiles):
        return torch.zeros(len(tiles), len(GENES))


def nothing() -> Bundle:
    model = Nothing()
    model.genes = list(GENES)
    facts: dict[str, Any] = {"name": "nothing", "title": "Nothing", "system": "mean", "arguments": {}}
    return Bundle([model], Manifest(**facts, genes=GENES, scale="log1p_cp10k", tile_px=224, mpp=0.5, pitch_um=112.0))


@pytest.mark.parametrize("batch_size", ["auto", 64])
def test_whole_slide_with_a_model_that_does_nothing(figure, slide_path: Path, tmp_path: Path, batch_size) -> None:
    """All positions, so that the mask, whose cost is fixed, weighs as on a slide full of tissue."""
    decode_s, run_s, n_spots, decoded = does_nothing(slide_path, tmp_path, batch_size, tissue=False)
    what = f"whole slide, a model that does nothing: share of raw decode, batches of {batch_size}"
    figure(what, decode_s * decoded / run_s, at_least=0.45, beside=f"{n_spots / run_s:,.0f} patches per CPU-s")


def test_tissue_with_a_model_that_does_nothing_against_peers(figure, slide_path: Path, tmp_path: Path) -> None:
    """The tissue alone, as the peers do it: each in units of what decoding allows in its own run."""
    known = [row["share"] for row in peers().values() if row["what"] == "whole slide" and "share" in row]
    if not known:
        pytest.skip("needs the figures that make bench-peers writes")
    decode_s, run_s, n_spots, _ = does_nothing(slide_path, tmp_path, "auto", tissue=True)
    share = n_spots * (224 / TILE) ** 2 * decode_s / run_s
    what = "whole slide, a model that does nothing: tissue alone, times the best peer"
    figure(what, share / max(known), at_least=4, beside=f"{n_spots / run_s:,.0f} patches per CPU-s")


def does_nothing(
    path: Path, folder: Path, batch_size: int | Literal["auto"], *, tissue: bool
) -> tuple[float, float, int, int]:
    """Seconds of CPU to decode one tile, and of the whole run; patches, and tiles that were decoded."""
    bundle, n_spots = nothing(), 0

    def run() -> int:
        nonlocal n_spots
        with Slide.open(path) as slide:
            mask = tissue_mask(slide)
            grid = square_grid(slide, 112.0, mask=mask if tissue else None)
            n_spots = len(grid)
            store = folder / f"{time.monotonic_ns()}"
            for _ in predict(bundle, slide, grid, device="cpu", store=store, batch_size=batch_size):
                pass
            return slide.decoded

    raw = raw_decode(path, buffer=tile_buffer(TILE, TILE))
    n_tiles, n_decoded = raw(), run()
    decode_s, run_s = (statistics.median(cpu_seconds(work) for _ in range(3)) for work in (raw, run))
    return decode_s / n_tiles, run_s, n_spots, n_decoded


def ready_tiles(slide: Slide, scene: Scene, spec: Any) -> torch.Tensor:
    """Some tiles of the slide as the encoder of an input gets them."""
    centres = scene.grid.xy[np.linspace(0, len(scene.grid) - 1, N_READY).astype(int)]
    read = slide.read_tiles(centres, *encoder_tile(scene, spec), batch_size=N_READY)
    return torch.from_numpy(next(iter(read)).tiles).permute(0, 3, 1, 2)


def bare_rate(bundle: Bundle, slide: Slide, scene: Scene, size: int) -> float:
    """Spots per CPU-second of encoders and regression on tiles that are in memory, in batches of a size."""
    model = bundle.members[0]
    ready = {name: ready_tiles(slide, scene, spec) for name, spec in model.inputs.items()}

    def run(rows: slice) -> None:
        features = {name: scene.encode(spec.encoder, ready[name][rows]) for name, spec in model.inputs.items()}
        with torch.inference_mode():
            model.predict(**model.prepare(**features))

    run(slice(0, size))
    start = time.process_time()
    for first in range(0, N_READY, size):
        run(slice(first, first + size))
    return N_READY / (time.process_time() - start)


def ratio(bundle: Bundle, path: Path, mpp: float | None, store: Path, device: str) -> tuple[float, float]:
    """Spots per CPU-second over a part of a slide against the bare model's best, and the former."""
    with Slide.open(path, mpp=mpp) as slide:
        grid = square_grid(slide, bundle.manifest.pitch_um, mask=tissue_mask(slide))
        scene = Scene(slide, grid, bundle.manifest.mpp, CPU, compiled=device == OPENVINO)
        for spec in bundle.members[0].inputs.values():
            slide_statistics(scene, spec.encoder, *encoder_tile(scene, spec))
        rows = np.arange(min(N_SPOTS, len(grid)), dtype=np.intp)
        sizes = (2, auto_batch_size(CPU), 8, 16)
        before = max(bare_rate(bundle, slide, scene, size) for size in sizes)
        start = time.process_time()
        done = sum(len(c.index) for c in predict(bundle, slide, grid, rows=rows, store=store, device=device))
        rate = done / (time.process_time() - start)
        bare = statistics.mean([before, max(bare_rate(bundle, slide, scene, size) for size in sizes)])
    return rate / bare, rate


@pytest.mark.parametrize("device", ["cpu", OPENVINO])
@pytest.mark.parametrize(("where", "limit"), [("native", 0.97), ("resampling", 0.93)])
def test_starter_against_the_bare_model(
    figure, slide_path: Path, tmp_path: Path, where: str, limit: float, device: str
) -> None:
    if device == OPENVINO and importlib.util.find_spec(OPENVINO) is None:
        pytest.skip("needs the extra openvino")
    bundle = load("starter")
    mpp = bundle.manifest.mpp if where == "native" else None
    share, rate = ratio(bundle, slide_path, mpp, tmp_path / "store", device)
    what = f"whole slide, starter on {device}: share of the bare model, {where} pixel size"
    figure(what, share, at_least=limit, beside=f"{rate:.1f} spots per CPU-s, each of 4 fields")

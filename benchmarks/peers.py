"""The same work by other programs, in an environment of their own: ``python benchmarks/peers.py SLIDE peers.json``.

Of every program that is installed there: patches of 224 px per CPU-second, as a share of what decoding the touched
tiles once costs in the same run. Readers read a block of 28 × 28 patches one by one; LazySlide and TIAToolbox go
through the whole slide (mask, tiles, reading, batches, their store) with a model that does nothing.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import imagecodecs
import numpy as np
import tifffile

PX, MPP, SIDE, FIRST = 224, 0.5, 28, 2048


def cpu_seconds(call: Callable[[], object]) -> float:
    start = time.process_time()
    call()
    return time.process_time() - start


def raw_patches_per_second(path: Path) -> float:
    """What decoding alone allows: a patch is as many tiles as its area has."""
    with tifffile.TiffFile(path) as tif:
        page = tif.pages[0]
        spans = list(zip(page.dataoffsets, page.databytecounts, strict=True))
        per_patch = PX**2 / (page.tilewidth * page.tilelength)
    buffer = np.empty((page.tilelength, page.tilewidth, 3), dtype=np.uint8)

    def run() -> None:
        file = os.open(path, os.O_RDONLY)
        for offset, size in spans:
            imagecodecs.jpeg8_decode(os.pread(file, size, offset), outcolorspace="RGB", out=buffer)
        os.close(file)

    return len(spans) / per_patch / min(cpu_seconds(run) for _ in range(3))


def positions() -> list[tuple[int, int]]:
    return [(FIRST + PX * x, FIRST + PX * y) for y in range(SIDE) for x in range(SIDE)]


def openslide(path: Path) -> int:
    slide = importlib.import_module("openslide").OpenSlide(path)
    for xy in positions():
        np.asarray(slide.read_region(xy, 0, (PX, PX)).convert("RGB"))
    return SIDE**2


def tiffslide(path: Path) -> int:
    slide = importlib.import_module("tiffslide").TiffSlide(path)
    for xy in positions():
        slide.read_region(xy, 0, (PX, PX), as_array=True)
    return SIDE**2


def fastslide(path: Path) -> int:
    slide = importlib.import_module("fastslide").FastSlide.from_file_path(str(path))
    for xy in positions():
        slide.read_region(xy, 0, (PX, PX))
    return SIDE**2


def lazyslide(path: Path) -> int:
    import lazyslide as zs
    import torch
    from wsidata import open_wsi

    class Nothing(torch.nn.Module):
        def forward(self, tiles):
            return torch.zeros(len(tiles), 16)

    def transform(tile):
        return torch.as_tensor(np.asarray(tile))

    wsi = open_wsi(str(path))
    zs.pp.find_tissues(wsi)
    zs.pp.tile_tissues(wsi, PX, mpp=MPP)
    options = {"device": "cpu", "batch_size": 32, "num_workers": 0, "key_added": "nothing_tiles"}
    zs.tl.feature_extraction(wsi, Nothing(), transform=transform, **options)
    return len(wsi["tiles"])


def tiatoolbox(path: Path) -> int:
    import torch
    import zarr
    from tiatoolbox.models.engine.io_config import IOPatchPredictorConfig
    from tiatoolbox.models.engine.patch_predictor import PatchPredictor
    from tiatoolbox.models.models_abc import ModelABC
    from tiatoolbox.wsicore.wsireader import WSIReader

    class Nothing(ModelABC):
        def __init__(self):
            super().__init__()
            self.unused = torch.nn.Parameter(torch.zeros(1))

        def forward(self, tiles):
            return torch.zeros(len(tiles), 2)

        @staticmethod
        def infer_batch(model, batch, *, device):
            return np.zeros((len(batch), 2), np.float32)

    mask = WSIReader.open(path).tissue_mask(method="otsu", resolution=1.25, units="power")
    config = IOPatchPredictorConfig(
        input_resolutions=[{"units": "mpp", "resolution": MPP}],
        patch_input_shape=[PX, PX],
        stride_shape=[PX, PX],
    )
    with tempfile.TemporaryDirectory() as folder:
        predictor = PatchPredictor(model=Nothing(), batch_size=32, num_workers=0)
        out = predictor.run(
            images=[path],
            masks=[mask],
            patch_mode=False,
            ioconfig=config,
            save_dir=Path(folder) / "out",
            output_type="zarr",
            device="cpu",
            auto_get_mask=False,
        )
        found = zarr.open(str(out[path] if path in out else out[str(path)]), mode="r")
        return len(found["coordinates"])


PEERS: dict[str, tuple[str, Callable[[Path], int]]] = {
    "openslide": ("reading", openslide),
    "tiffslide": ("reading", tiffslide),
    "fastslide": ("reading", fastslide),
    "lazyslide": ("whole slide", lazyslide),
    "tiatoolbox": ("whole slide", tiatoolbox),
}
PACKAGES = {"openslide": "openslide-python"}


def main(path: Path, target: Path) -> None:
    """Measure every peer that is installed; what cannot be run says why."""
    known = {}
    for name, (what, run) in PEERS.items():
        try:
            version = importlib.metadata.version(PACKAGES.get(name, name))
            count = 0

            def work(run: Callable[[Path], int] = run) -> None:
                nonlocal count
                count = run(path)

            importlib.import_module(name)
            raw = raw_patches_per_second(path)
            seconds = cpu_seconds(work)
            known[name] = {"version": version, "what": what, "patches": count, "per_cpu_s": round(count / seconds, 1)}
            known[name]["share"] = round(count / seconds / raw, 4)
        except Exception as error:  # noqa: BLE001 - a peer may raise anything, and is then said not to have run
            known[name] = {"what": what, "why": f"{type(error).__name__}: {str(error).splitlines()[0][:120]}"}
        print(name, known[name], flush=True)
    target.write_text(json.dumps(known, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))

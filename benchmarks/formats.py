"""Opens every file of a folder of slides with this package and with its peers, and writes a table for the manual.

``python benchmarks/formats.py FOLDER docs/formats.json``; peers (openslide, tiffslide, fastslide) are tried where
they are installed.
"""

from __future__ import annotations

import importlib
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from napari_he2st.core.errors import He2stError
from napari_he2st.data.slides import Slide, probe

SIDE = 512


def by_us(path: Path) -> dict[str, Any]:
    """Open a file and read its middle; where its pixel size comes from."""
    start = time.perf_counter()
    try:
        facts = probe(path)
        with Slide.open(path, mpp=facts["mpp"] or 1.0) as slide:
            width, height = slide.size
            slide.read(width / 2, height / 2, SIDE, SIDE, mpp=slide.mpp)
    except He2stError as error:
        return {"opened": False, "why": str(error).replace(str(path), path.name)}
    seconds = time.perf_counter() - start
    source = facts["mpp_source"] or "; ".join(facts["mpp_notes"]) or "not stated: asked for"
    said = "–" if facts["mpp"] is None else f"{facts['mpp']:.4g} µm"
    return {"opened": True, "format": facts["format"], "mpp": said, "source": source, "ms": round(1000 * seconds)}


def by_peer(name: str, path: Path) -> str:
    """How a peer does: milliseconds, or what it says."""
    try:
        module = importlib.import_module(name)
    except ImportError:
        return "not installed"
    start = time.perf_counter()
    try:
        if name == "openslide":
            slide = module.OpenSlide(path)
            np.asarray(slide.read_region(tuple(side // 2 for side in slide.dimensions), 0, (SIDE, SIDE)))
        elif name == "tiffslide":
            slide = module.TiffSlide(path)
            slide.read_region(tuple(side // 2 for side in slide.dimensions), 0, (SIDE, SIDE), as_array=True)
        else:
            slide = module.FastSlide.from_file_path(str(path))
            slide.read_region(tuple(side // 2 for side in slide.dimensions), 0, (SIDE, SIDE))
    except Exception as error:  # noqa: BLE001 - a peer may raise anything
        return f"no ({type(error).__name__})"
    return f"{round(1000 * (time.perf_counter() - start))} ms"


def main(folder: Path, target: Path) -> None:
    """Try every file that is no text."""
    rows = []
    for path in sorted(file for file in folder.iterdir() if file.suffix not in {".md", ".txt", ".tsv"}):
        by_us(path)  # imports
        peers = {name: by_peer(name, path) and by_peer(name, path) for name in ("openslide", "tiffslide", "fastslide")}
        rows.append({"file": path.name, "us": by_us(path), **peers})
    target.write_text(json.dumps(rows, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))

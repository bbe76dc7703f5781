"""Serial sections brought into register by every method that needs no weights; writes ``docs/alignment.json``.

HE2ST_DATA=FOLDER python benchmarks/alignment.py [METHOD ...]
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import torch

from napari_he2st.core.atomic import atomic_write
from napari_he2st.core.errors import He2stError
from napari_he2st.core.schema import facts_of
from napari_he2st.data.slides import Slide
from napari_he2st.data.truth import read_section
from napari_he2st.engine.align import align, quality
from napari_he2st.engine.methods import methods

PAIRS = (
    ("her2st", "C2", "C3"),
    ("her2st", "C3", "C4"),
    ("her2st", "C4", "C5"),
    ("st_mouse_olfactory_bulb_2k", "MOB1", "MOB2"),
)
NEEDS_WEIGHTS = ("loki",)
MORE: dict[str, tuple[str, dict[str, Any]]] = {
    "paste, centre": ("paste", {"onto": "centre"}),
    "paste2, overlap found": ("paste2", {"overlap": None}),
}
MEASURES = ("overlap", "gene_correlation", "residual_um")


def score(method: str, options: dict[str, Any], folder: str, first: str, second: str) -> dict[str, float]:
    """Quality of one pair before and after, and processor seconds."""
    read = [read_section(Path(os.environ["HE2ST_DATA"]) / folder, name) for name in (first, second)]
    slides = [Slide.open(s.slide_path, mpp=facts_of(s.adata)["mpp"]) for s in read]
    sections = [s.adata for s in read]
    began = time.process_time()
    found = align(sections, method, slides=slides, **options)
    spent = time.process_time() - began
    row = quality(sections, found).iloc[0]
    kept = [*MEASURES, *(f"{name}_before" for name in MEASURES)]
    return {**{name: round(float(row[name]), 4) for name in kept}, "seconds": round(spent, 2)}


def main() -> None:
    """Score the named methods, or all, and keep what was known of the others."""
    torch.set_num_threads(1)
    file = Path(__file__).parent.parent / "docs" / "alignment.json"
    every = {name: (name, {}) for name in methods("alignment") if name not in NEEDS_WEIGHTS} | MORE
    for title in sys.argv[1:] or every:
        method, options = every[title]
        for folder, first, second in PAIRS:
            try:
                found: Any = score(method, options, folder, first, second)
            except He2stError as error:
                found = {"refused": error.what}
            print(title, first, second, found, flush=True)
            known = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
            known.setdefault(title, {})[f"{first} → {second}"] = found
            with atomic_write(file, force=True) as aside:
                aside.write_text(json.dumps(known, indent=1, sort_keys=True) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

"""Domains against a pathologist's labels, for every method that needs no image; writes ``docs/domains.json``.

    HE2ST_DATA=FOLDER python benchmarks/domains.py [METHOD ...]

The number of domains is the number of labels, never a setting that was chosen by the score. "undetermined" spots do
not count.
"""

from __future__ import annotations

import json
import os
import sys
import time
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from napari_he2st.analysis.metrics.ari import ari
from napari_he2st.analysis.metrics.nmi import nmi
from napari_he2st.data.truth import read_section
from napari_he2st.engine.methods import methods
from napari_he2st.engine.segment import segment

SECTIONS = ("B1", "C1", "D1", "F1", "G2")
SEEDS = (0, 1, 2)
NEEDS_TILES = ("gist", "spaicl", "stimage")
SHORTENED: dict[str, dict[str, Any]] = {
    "const": {"epochs": 100},
    "iimpact": {"iterations": 4000, "burn_in": 2000},
    "mucost": {"epochs": 200},
    "spamgcn": {"epochs": 200},
    "staig": {"epochs": 100},
    "stformer": {"epochs": 3, "n_genes": 300, "n_tokens": 64, "n_niche_tokens": 64},
    "stmvgae": {"epochs": 60, "epochs_after": 30, "encoder_dims": (200, 100, 30), "decoder_dims": (100, 200)},
}
"""Settings that keep a run within minutes on one core; the table says so."""


@cache
def labelled(section: str) -> tuple[Any, Any]:
    """A section, and its labels with "none" where nothing was determined."""
    adata = read_section(Path(os.environ["HE2ST_DATA"]) / "her2st", section).adata
    given = adata.obs["label"].astype(object)
    return adata, given.where(given.notna() & (given != "undetermined"), "none").to_numpy()


def score(name: str) -> dict[str, Any]:
    """Median and range of both scores over sections and seeds."""
    scores = []
    began = time.perf_counter()
    for section in SECTIONS:
        adata, given = labelled(section)
        n = len(set(given) - {"none"})
        for seed in SEEDS:
            found = segment(adata, name, n_domains=n, seed=seed, **SHORTENED.get(name, {}))
            scores.append((ari(found.labels, given), nmi(found.labels, given)))
    aris, nmis = np.array(scores).T
    seconds = (time.perf_counter() - began) / len(scores)
    return {
        "ari": float(np.median(aris)),
        "ari_range": [float(aris.min()), float(aris.max())],
        "nmi": float(np.median(nmis)),
        "nmi_range": [float(nmis.min()), float(nmis.max())],
        "seconds": seconds,
        "settings": ", ".join(f"{key}={value}" for key, value in SHORTENED.get(name, {}).items()) or "default",
    }


def main() -> None:
    """Score the named methods, or all, and keep what was known of the others."""
    torch.set_num_threads(1)
    file = Path(__file__).parent.parent / "docs" / "domains.json"
    known = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    for name in sys.argv[1:] or [name for name in methods("domains") if name not in NEEDS_TILES]:
        known[name] = score(name)
        print(name, known[name], flush=True)
        file.write_text(json.dumps(known, indent=1, sort_keys=True) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

"""Domains against a pathologist's labels, for every method; writes ``docs/domains.json``.

    HE2ST_DATA=FOLDER python benchmarks/domains.py [METHOD ...]

By expression and position on five sections, and with the image on the one labelled section that has one. The number
of domains is the number of labels, never a setting that was chosen by the score. "undetermined" spots do not count.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from napari_he2st.analysis.metrics.ari import ari
from napari_he2st.analysis.metrics.nmi import nmi
from napari_he2st.core.atomic import atomic_write
from napari_he2st.core.errors import He2stError
from napari_he2st.core.schema import facts_of
from napari_he2st.data.slides import Slide
from napari_he2st.data.truth import read_section
from napari_he2st.engine.methods import method, methods
from napari_he2st.engine.segment import segment

SECTIONS = {"expression": ("B1", "C1", "D1", "F1", "G2"), "image": ("A1",)}
SEEDS = (0, 1, 2)
ENCODER = "efficientnet-lite0"
SHORTENED: dict[str, dict[str, Any]] = {
    "const": {"epochs": 100},
    "gist": {"epochs": 60, "n_genes": 1000},
    "iimpact": {"iterations": 4000, "burn_in": 2000},
    "mucost": {"epochs": 100},
    "spamgcn": {"epochs": 200},
    "staig": {"epochs": 100},
    "stformer": {"epochs": 5, "n_genes": 300, "n_tokens": 64, "n_niche_tokens": 64},
    "transformerst": {"epochs": 50},
    "stmvgae": {"epochs": 40, "epochs_after": 20, "encoder_dims": (200, 100, 30), "decoder_dims": (100, 200)},
}
"""Settings that keep a run within minutes on one core; the table says so."""

SEES = {"const": {"use_image": True}}
"""Settings by which a method looks at the image, where it does not by itself."""

VARIANTS = {"transformerst": "domains"}
"""Named settings of systems whose first task is another."""

_DRAWN_WIDTH_PX = 6954  # of the picture that A1's positions are of; the one at hand is smaller


@cache
def labelled(section: str) -> tuple[Any, Any]:
    """A section, and its labels with "none" where nothing was determined."""
    adata = read_section(Path(os.environ["HE2ST_DATA"]) / "her2st", section).adata
    given = adata.obs["label"].astype(object)
    return adata, given.where(given.notna() & (given != "undetermined"), "none").to_numpy()


@cache
def pictured() -> tuple[Any, Any, Slide]:
    """A1 on its picture, with the black around the tissue made white."""
    from skimage.io import imread, imsave

    adata, given = labelled("A1")
    (file,) = (Path(os.environ["HE2ST_DATA"]) / "her2st" / "app").rglob("A1*.png")
    image = imread(file)[..., :3]
    image[image.max(axis=2) < 10] = 255
    shrunk = image.shape[1] / _DRAWN_WIDTH_PX
    adata = adata.copy()
    adata.obsm["spatial"] = adata.obsm["spatial"] * shrunk
    mpp = facts_of(adata)["mpp"] / shrunk
    adata.uns["he2st"] = {**facts_of(adata), "mpp": mpp}
    white = Path(tempfile.mkdtemp()) / "A1.png"
    imsave(white, image, check_contrast=False)
    return adata, given, Slide.open(white, mpp=mpp)


def ways(name: str) -> list[str]:
    """What a method can group by: expression alone, with the image, or both in turn."""
    found = method("domains", name)
    if found.entry is not None:
        return ["expression", "image"]
    system = found.build(SEES.get(name, {}), VARIANTS.get(name, "default"))
    seen = [key for key in system.inputs if key != "cells"]
    return [*(["expression"] if set(seen) <= system.optional else []), *(["image"] if seen else [])]


def score(name: str, way: str) -> dict[str, Any]:
    """Median and range of both scores over sections and seeds, and processor seconds of a run."""
    scores, spent, told, refused = [], [], [], []
    options, variant = dict(SHORTENED.get(name, {})), VARIANTS.get(name, "default")
    if way == "image":
        options |= {"on": ENCODER} if method("domains", name).entry is not None else SEES.get(name, {})
    for section in SECTIONS[way]:
        adata, given, slide = pictured() if way == "image" else (*labelled(section), None)
        n = len(set(given) - {"none"})
        for seed in SEEDS:
            began = time.process_time()
            try:
                found = segment(adata, name, n_domains=n, seed=seed, slide=slide, variant=variant, **options)
            except He2stError as error:
                refused.append(error.what)
                print(name, way, section, seed, error.what, flush=True)
                continue
            spent.append(time.process_time() - began)
            told.append(found.params)
            scores.append((ari(found.labels, given), nmi(found.labels, given)))
            print(name, way, section, seed, *scores[-1], f"{spent[-1]:.1f} s", flush=True)
    if not scores:
        return {"refused": refused[0]}
    aris, nmis = np.array(scores).T
    return {
        "ari": float(np.median(aris)),
        "ari_range": [float(aris.min()), float(aris.max())],
        "nmi": float(np.median(nmis)),
        "nmi_range": [float(nmis.min()), float(nmis.max())],
        "seconds": float(np.median(spent)),
        **{
            fact: float(np.median([params[fact] for params in told]))
            for fact in ("epochs", "seconds_per_epoch")
            if "seconds_per_epoch" in told[0]
        },
        "settings": ", ".join(f"{key}={value}" for key, value in options.items()) or "default",
        **({"runs_refused": [len(refused), len(refused) + len(scores), refused[0]]} if refused else {}),
    }


def main() -> None:
    """Score the named methods, or all, and keep what was known of the others."""
    torch.set_num_threads(1)
    file = Path(__file__).parent.parent / "docs" / "domains.json"
    for name in sys.argv[1:] or methods("domains"):
        for way in ways(name):
            found = score(name, way)
            known = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
            known.setdefault(name, {})[way] = found
            with atomic_write(file, force=True) as aside:
                aside.write_text(json.dumps(known, indent=1, sort_keys=True) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

"""Does a system learn? Trained briefly on three real sections, scored on a fourth one of the same patient.

``HE2ST_DATA=… python -m benchmarks.learning [SYSTEM …]`` trains each system of ``learning.toml`` (all of them
without a name) on her2st C2, C3 and C4 and predicts C5, over the 250 genes most variable in the training
sections. A system learns if its squared error is below that of the training mean and its mean Pearson
correlation is above 0 (p < 0.01 when spots are permuted). A system that is fitted to the slide it predicts learns one
half of the spots of C5 and is scored on the other. The figures go into ``docs/learning.json``, which the
manual's table of the zoo shows; times are those of one core, however busy the machine.

``python -m benchmarks.learning --choose SYSTEM …`` trains on C2 and C3, predicts C4 and keeps nothing: settings are
chosen by what it prints.
"""

from __future__ import annotations

import json
import os
import sys
import time
import tomllib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from anndata import AnnData
from numpy.typing import NDArray

from napari_he2st.analysis.paired import permuted_pcc
from napari_he2st.core.schema import facts_of, provenance
from napari_he2st.data.slides import Slide
from napari_he2st.data.truth import Section, read_section
from napari_he2st.engine.features import Given
from napari_he2st.engine.predict import predict
from napari_he2st.engine.train import train
from napari_he2st.engine.training_data import TrainingSection, expression_target
from napari_he2st.zoo.bundle import Bundle
from napari_he2st.zoo.catalogue import card_of, system

SETTINGS = Path(__file__).with_name("learning.toml")
FIGURES = Path(__file__).parents[1] / "docs" / "learning.json"
TRAINED, SCORED = ("C2", "C3", "C4"), "C5"
N_GENES = 250
STAINS = ["haematoxylin", "eosin", "residual"]


def learn(
    slug: str, settings: dict[str, Any], folder: Path, trained: Sequence[str] = TRAINED, held_out: str = SCORED
) -> dict[str, Any]:
    """Train a system, predict the held-out section, and say how it did."""
    validate = settings.get("validate", [])
    variant = card_of(slug).variants[settings["variant"]] if "variant" in settings else {}
    arguments = {**variant, **settings.get("arguments", {})}
    own = system(slug)(n_genes=N_GENES, **arguments).fitted == "slide"
    scored = read_section(folder / "her2st", held_out)
    sections = halves(scored) if own else [*(read_section(folder / "her2st", name) for name in trained), scored]
    if "stains" in settings:
        sections = [stained(section, settings["stains"], pitch_px=settings["pitch_px"]) for section in sections]
    start = time.process_time()
    bundle = train(
        slug,
        [section for section in sections[:-1] if section.name not in validate],
        validate=[section for section in sections[:-1] if section.name in validate],
        arguments=arguments,
        recipe=settings.get("recipe"),
        panel="all" if "stains" in settings else f"hvg:{N_GENES}",
        seed=0,
        device="cpu",
    )
    minutes = (time.process_time() - start) / 60
    model = bundle.members[0]
    opened = [TrainingSection.open(section) for section in sections]
    spec, fitted = replace(model.targets["expression"], scale=bundle.manifest.scale), model.extras["scale"]
    *seen, measured = (expression_target(s, bundle.genes, spec, fitted).numpy() for s in opened)
    start = time.process_time()
    with Slide.open(sections[-1].slide_path, mpp=opened[-1].grid.mpp) as slide:
        predicted = prediction_of(bundle, slide, opened[-1], settings)
    seconds = (time.process_time() - start) / len(measured) * 1000
    mse, base = (float(np.nanmean((p - measured) ** 2)) for p in (predicted, np.concatenate(seen).mean(axis=0)))
    pcc, p_value = permuted_pcc(predicted, measured)
    return {
        "parameters": sum(p.numel() for p in model.parameters()) + sum(b.numel() for b in model.buffers()),
        "pcc": round(pcc, 3),
        "p": round(p_value, 4),
        "mse": round(mse, 4),
        "mse_mean": round(base, 4),
        "minutes": round(minutes, 1),
        "s_per_1000": round(seconds, 1),
        "learns": bool(mse < base and pcc > 0 and p_value < 0.01),
        "scored": "other spots of the section" if own else "another section",
        "settings": settings,
    }


def halves(section: Section) -> list[Section]:
    """Two sections with half of the spots each, drawn at random."""
    order = np.random.default_rng(0).permutation(section.adata.n_obs)
    middle = len(order) // 2
    parts = np.sort(order[:middle]), np.sort(order[middle:])
    return [
        replace(section, name=f"{section.name}-{i}", adata=section.adata[part].copy()) for i, part in enumerate(parts)
    ]


def stained(section: Section, side: int, pitch_px: int) -> Section:
    """A section whose "genes" are three stains on a lattice of ``side``² cells in its middle.

    There are no pairs of H&E and multiplex slides at hand, so the stains are unmixed from the H&E itself (Ruifrok and
    Johnston 2001), 0 … 1: what a system learns from them is little, but it is of real images.
    """
    from skimage.color import rgb2hed

    grid = (np.stack(np.meshgrid(np.arange(side), np.arange(side)), axis=-1).reshape(-1, 2) + 0.5) * pitch_px
    middle = np.median(section.adata.obsm["spatial"], axis=0)
    xy = grid + np.round(middle - side * pitch_px / 2)
    with Slide.open(section.slide_path, mpp=facts_of(section.adata)["mpp"]) as slide:
        corner, width = np.round(xy[0] - pitch_px / 2).astype(int), side * pitch_px
        pixels = slide.read(*corner.tolist(), width, width, mpp=slide.mpp)
    stains = np.clip(rgb2hed(pixels) * 4, 0, 1).reshape(side, pitch_px, side, pitch_px, 3).mean(axis=(1, 3))
    adata = AnnData(stains.reshape(-1, 3).astype(np.float32))
    adata.var_names, adata.obs_names = STAINS, [f"cell{i}" for i in range(side**2)]
    adata.layers["counts"] = adata.X.copy()
    adata.obsm["spatial"] = xy
    facts = facts_of(section.adata)
    pitch_um = pitch_px * facts["mpp"]
    where = {"pitch_um": pitch_um, "spot_um": pitch_um, "lattice": "square", "library": section.name}
    adata.uns["he2st"] = provenance("measured", mpp=facts["mpp"], scale="intensity", **where)
    return replace(section, adata=adata)


def prediction_of(
    bundle: Bundle, slide: Slide, section: TrainingSection, settings: dict[str, Any]
) -> NDArray[np.float32]:
    """Prediction of a section: from its image; or, for systems that impute genes, in turn from all other genes."""
    parts = settings.get("impute", 1)
    predicted = np.full((len(section.grid), len(bundle.genes)), np.nan, dtype=np.float32)
    for part in range(parts):
        columns = np.arange(part, len(bundle.genes), parts)
        genes = [bundle.genes[column] for column in columns]
        others = section.adata[:, ~section.adata.var_names.isin(genes)] if parts > 1 else None
        run = {"genes": genes, "given": Given(others), "device": "cpu", **settings.get("predict", {})}
        for chunk in predict(bundle, slide, section.grid, **run):
            predicted[np.ix_(chunk.index, columns)] = chunk.mean
    return predicted


def main() -> None:
    """Train the named systems and keep their figures, or print those that settings are chosen by."""
    torch.set_num_threads(1)
    settings = tomllib.loads(SETTINGS.read_text(encoding="utf-8"))
    folder = Path(os.environ["HE2ST_DATA"])
    choose = "--choose" in sys.argv
    sections = (TRAINED[:-1], TRAINED[-1]) if choose else (TRAINED, SCORED)
    for slug in [name for name in sys.argv[1:] if name != "--choose"] or settings:
        figures = learn(slug, settings[slug], folder, *sections)
        print(slug, {name: value for name, value in figures.items() if name != "settings"}, flush=True)
        if not choose:
            known = json.loads(FIGURES.read_text(encoding="utf-8")) if FIGURES.exists() else {}
            known[slug] = figures
            FIGURES.write_text(json.dumps(dict(sorted(known.items())), indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

"""Do the systems for single cells learn? Expression with a known cause, in the real nuclei of a glioma.

``HE2ST_DATA=… python -m benchmarks.cells [SYSTEM …]`` takes the nuclei of the first region of
``tcga_glioma_rois_nuclei`` and gives each cell counts of 30 genes whose rates follow from the size, darkness, shape
and crowding of its nucleus and from the darkness of those around it, times noise (all of it fixed by a seed). Each
system of ``cells.toml`` learns the cells in the left part of the picture and predicts those in the right part, which
it has not seen. It learns if its squared error is below that of the training mean and its mean Pearson correlation is
above 0 (p < 0.01 when cells are permuted). ``ceiling`` is the correlation of the logarithms of the rates with the
counts, for orientation. The figures go into ``docs/cells.json``.

``python -m benchmarks.cells --choose [SYSTEM …]`` divides the left part alone in the same way and keeps nothing: the
settings in ``cells.toml`` were chosen by what it prints, save those it names, and the right part was scored with these
(once; SpatialEx and SpatialEx+ again after a fault in them was mended).
"""

from __future__ import annotations

import json
import os
import sys
import time
import tomllib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from napari_he2st.analysis.paired import permuted_pcc
from napari_he2st.core.schema import provenance
from napari_he2st.core.types import Nuclei
from napari_he2st.data.slides import Slide
from napari_he2st.data.truth import Section
from napari_he2st.engine.features import Given
from napari_he2st.engine.predict import predict
from napari_he2st.engine.train import train
from napari_he2st.engine.training_data import TrainingSection, expression_target

SETTINGS = Path(__file__).with_name("cells.toml")
FIGURES = Path(__file__).parents[1] / "docs" / "cells.json"
MPP = 0.5
N_GENES, N_TYPES = 30, 4
SCORED = (620, 680, 1024)
CHOSEN = (400, 440, 620)
"""Columns, px: cells left of the first are learned; those between the others, which are not seen, are predicted."""


@dataclass(frozen=True)
class Tissue:
    """Nuclei of a picture with the expression that they were given."""

    path: Path
    nuclei: Nuclei
    counts: NDArray[np.float32]
    rates: NDArray[np.float64]
    types: NDArray[np.intp]

    def section(self, rows: NDArray[np.intp], name: str) -> Section:
        """Some of the cells as a measured section."""
        grid = self.nuclei.grid(MPP).take(rows)
        genes = pd.DataFrame(index=[f"G{i}" for i in range(N_GENES)])
        adata = ad.AnnData(self.counts[rows], obs=pd.DataFrame(index=list(grid.names)), var=genes)
        adata.layers["counts"] = adata.X.copy()
        adata.obsm["spatial"] = grid.xy
        facts = {"pitch_um": grid.pitch_um, "spot_um": grid.spot_um, "lattice": "irregular", "library": name}
        adata.uns["he2st"] = provenance("measured", mpp=MPP, scale="counts", **facts)
        return Section(name, adata, self.path, layout="generated")

    def reference(self, rows: NDArray[np.intp]) -> ad.AnnData:
        """Dissociated cells: other draws of the counts of some cells, with their types."""
        counts = np.random.default_rng(7).poisson(self.rates[rows]).astype(np.float32)
        obs = pd.DataFrame({"cell_type": [f"T{t}" for t in self.types[rows]]}, index=[f"c{i}" for i in rows])
        adata = ad.AnnData(counts, obs=obs, var=pd.DataFrame(index=[f"G{i}" for i in range(N_GENES)]))
        adata.layers["counts"] = adata.X.copy()
        return adata


def tissue(folder: Path) -> Tissue:
    """The picture, its nuclei, and expression that follows from them."""
    from scipy.spatial import cKDTree
    from skimage.color import rgb2hed
    from skimage.io import imread
    from skimage.measure import label, regionprops_table
    from sklearn.cluster import KMeans

    path = min((folder / "imgs").glob("*.png"))
    labels = label(imread(folder / "segs" / path.name) > 0, connectivity=1).astype(np.int32)
    labels[np.isin(labels, np.flatnonzero(np.bincount(labels.ravel()) < 30))] = 0
    nuclei = Nuclei.of(labels, MPP)
    stain = rgb2hed(imread(path)[..., :3])[..., 0]
    found = regionprops_table(labels, stain, properties=("area", "mean_intensity", "eccentricity"))
    tree = cKDTree(nuclei.centres_px)
    around = tree.query_ball_point(tree.data, 25 / MPP)
    crowd, dark = np.log([len(near) for near in around]), found["mean_intensity"]
    darkness = [dark[near].mean() for near in around]
    z = np.stack([np.log(found["area"]), dark, found["eccentricity"], crowd, darkness], axis=1)
    z = (z - z.mean(axis=0)) / z.std(axis=0)
    rng = np.random.default_rng(0)
    weights = 0.4 * rng.normal(size=(z.shape[1], N_GENES))
    rates = np.exp(rng.uniform(1.5, 3, N_GENES) + z.clip(-2.5, 2.5) @ weights)
    counts = rng.poisson(rates * np.exp(0.2 * rng.normal(size=rates.shape))).astype(np.float32)
    types = KMeans(N_TYPES, random_state=0, n_init=4).fit_predict(z)
    return Tissue(path, nuclei, counts, rates, types)


def learn(slug: str, settings: dict[str, Any], cells: Tissue, columns: tuple[int, int, int] = SCORED) -> dict[str, Any]:
    """Train a system on the left part, predict the right part, and say how it did."""
    x = cells.nuclei.centres_px[:, 0]
    left, right = np.flatnonzero(x < columns[0]), np.flatnonzero((x > columns[1]) & (x < columns[2]))
    rng = np.random.default_rng(1)
    left = np.sort(rng.permutation(left)[: settings.get("cells", len(left))])
    given = Given(nuclei=cells.nuclei, cells=cells.reference(left) if settings.get("reference") else None)
    start = time.process_time()
    section = cells.section(left, "left")
    how = {"arguments": settings.get("arguments"), "recipe": settings.get("recipe"), "panel": "all"}
    bundle = train(settings.get("system", slug), [section], given=given, seed=0, device="cpu", **how)
    minutes = (time.process_time() - start) / 60
    opened = [TrainingSection.open(part) for part in (section, cells.section(right, "right"))]
    model = bundle.members[0]
    spec, fitted = replace(model.targets["expression"], scale=bundle.manifest.scale), model.extras["scale"]
    seen, measured = (expression_target(part, bundle.genes, spec, fitted).numpy() for part in opened)
    predicted = np.full_like(measured, np.nan)
    with Slide.open(cells.path, mpp=MPP) as slide:
        for chunk in predict(bundle, slide, cells.nuclei.grid(MPP).take(right), device="cpu", given=given):
            predicted[chunk.index] = chunk.mean
    mse, base = (float(np.mean((p - measured) ** 2)) for p in (predicted, seen.mean(axis=0)))
    pcc, p_value = permuted_pcc(predicted, measured)
    ceiling, _ = permuted_pcc(np.log(cells.rates[right]), measured)
    return {
        "parameters": sum(p.numel() for p in model.parameters()),
        "cells": [len(left), len(right)],
        "pcc": round(pcc, 3),
        "p": round(p_value, 4),
        "ceiling": round(ceiling, 3),
        "mse": round(mse, 4),
        "mse_mean": round(base, 4),
        "minutes": round(minutes, 1),
        "learns": bool(mse < base and pcc > 0 and p_value < 0.01),
        "settings": settings,
    }


def main() -> None:
    """Train the named systems and keep their figures, or print those that settings are chosen by."""
    torch.set_num_threads(1)
    settings = tomllib.loads(SETTINGS.read_text(encoding="utf-8"))
    cells = tissue(Path(os.environ["HE2ST_DATA"]) / "tcga_glioma_rois_nuclei")
    choose = "--choose" in sys.argv
    for slug in [name for name in sys.argv[1:] if name != "--choose"] or settings:
        figures = learn(slug, settings[slug], cells, CHOSEN if choose else SCORED)
        print(slug, {name: value for name, value in figures.items() if name != "settings"}, flush=True)
        if not choose:
            known = json.loads(FIGURES.read_text(encoding="utf-8")) if FIGURES.exists() else {}
            known[slug] = figures
            FIGURES.write_text(json.dumps(dict(sorted(known.items())), indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

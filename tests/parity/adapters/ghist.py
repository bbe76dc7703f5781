"""GHIST: network with and without a reference, types pushed to a composition, tiles."""

from __future__ import annotations

import torch
from tests.parity.fill import fill_model, inputs_of
from torch import Tensor

from napari_he2st.zoo.cells.ghist import GHIST, adjust_types, tile_starts

_TYPES = ("B", "Myeloid", "T", "Malignant", "Epithelial")
_SWAPPED = ("B", "Myeloid", "Malignant")


def run(case: dict) -> dict:
    x = inputs_of(case)
    if "logits" in x:
        return _refine(x)
    config = case["config"]
    model = GHIST(
        config["n_genes"],
        n_classes=config["n_classes"],
        n_types=config.get("n_ref", 1),
        dim=config["emb_dim"],
        with_reference=config["use_sc"],
    ).eval()
    fill_model(model, case)
    nuclei = torch.zeros(len(x["x"]), *x["x"].shape[2:], dtype=torch.int64)
    for tile, number, r0, r1, c0, c1 in x["boxes"].tolist():
        nuclei[tile, r0:r1, c0:c1] = number
    found = model(x["x"], nuclei, x.get("ref"))
    n_cells = found["tile"].bincount(minlength=len(nuclei)).tolist()
    measured = torch.cat([x["expr"][tile, :n] for tile, n in enumerate(n_cells)])
    out = {**found, "map": found["map"][:, :, ::8, ::8]}
    out["ct_from_gt"], out["fv_from_gt"] = model.types_of(measured)
    return {name: out[name] for name in case["outputs"]}


def _refine(x: dict) -> dict:
    logits = 0.3 * x["logits"]
    number = {name: i for i, name in enumerate(_TYPES)}

    def adjusted(group: tuple[str, ...], **options: object) -> Tensor:
        torch.manual_seed(0)
        return adjust_types(logits, x["est"], x["out"], [number[name] for name in group], **options)

    start = logits.argmax(dim=1)
    immune = adjusted(("B", "Myeloid", "T"), ignored=[2], alpha=2)
    towards = [number[name] for name in _SWAPPED]
    changed = (immune != start).nonzero()[:, 0]
    return {
        "argmax": start,
        "immune": immune,
        "swapped": changed,
        "swapped_target": changed[torch.isin(immune[changed], torch.tensor(towards))],
        "invasive": adjusted(("Malignant", "Epithelial"), alpha=10000, invasive=True, targets=towards),
        "coords_700": tile_starts(700),
        "coords_512": tile_starts(512),
    }

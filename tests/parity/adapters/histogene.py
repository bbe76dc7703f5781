"""HisToGene: network, order of pixels, super-resolution raster."""

from __future__ import annotations

import torch
from tests.parity.fill import corner, fill_model, inputs_of

from napari_he2st.zoo.regression.histogene import HisToGene, flatten_tiles, super_resolution_raster


def run(case: dict) -> dict:
    return _patches(case) if "image" in case["inputs"] else _network(case)


def _network(case: dict) -> dict:
    config, x = case["config"], inputs_of(case)
    model = HisToGene(
        config["n_genes"],
        dim=config["dim"],
        depth=config["n_layers"],
        dropout=config["dropout"],
        tile_px=config["patch_size"],
        bins=config["n_pos"],
    ).eval()
    fill_model(model, case)
    out = model(x["patches"], x["centers"])
    return {"pred": corner(out, case["outputs"]["pred"]), "pred_mean": out.mean(), "pred_std": out.std(correction=0)}


def _patches(case: dict) -> dict:
    x, r = inputs_of(case), case["config"]["r"]
    image = x["image"].permute(2, 0, 1)

    def cut(centres: torch.Tensor) -> torch.Tensor:
        return flatten_tiles(torch.stack([image[:, j - r : j + r, i - r : i + r] for i, j in centres.tolist()]))

    points, positions = super_resolution_raster(x["centers"], step_px=r, faithful=True)
    patches = cut(x["centers"])
    return {
        "patch_probe": patches[:, :12],
        "patch_mid": patches[:, 20000:20012],
        "sr_positions": positions,
        "sr_centers": points,
        "sr_patch_probe": cut(points)[:, 5000:5012],
    }

"""STPath: network, frames, coordinates, names of organs and technologies."""

from __future__ import annotations

import torch
from tests.parity.fill import fill_model, inputs_of
from torch import Tensor
from torch.nn import functional as F

from napari_he2st.zoo.blocks.frames import in_frames
from napari_he2st.zoo.generation.stpath import STPath, organ_id, technology_id, to_extent

_KNOWN = 4
_FIRST_SLIDE = 5


def run(case: dict) -> dict:
    x = inputs_of(case)
    if case["state"]:
        return _network(case, x)
    if "X" in x:
        return _frames(x["X"])
    if x:
        return {name: to_extent(coords) for name in case["outputs"] for coords in x.values()}
    config = case["config"]
    return {
        "organ": [organ_id(name, faithful=True) for name in config["organs"]],
        "tech": [technology_id(name, faithful=True) for name in config["techs"]],
    }


def _network(case: dict, x: dict) -> dict:
    config = case["config"]
    model = STPath(
        config["n_genes"] - 2,
        feature_dim=config["feature_dim"],
        dim=config["d_model"],
        depth=config["n_layers"],
        heads=config["n_heads"],
        mlp_ratio=config["mlp_ratio"],
        dropout=config["dropout"],
        attention_dropout=config["attn_dropout"],
        activation=config["activation"],
        n_technologies=config["n_tech"],
        n_organs=config["n_organs"],
    ).eval()
    fill_model(model, case)
    spots = {"image": x["img_tokens"], "coords": x["coords"] * 100, "tech": x["tech"], "organ": x["organ"]}
    masked = model.masked(spots["image"])
    context = F.pad(x["gene_noise"][:_KNOWN, 2:], (2, 0))
    slide = (torch.arange(len(masked)) >= _FIRST_SLIDE).long()
    return {
        "masked": model(genes=masked, **spots),
        "hidden": model.hidden(genes=masked, **spots),
        "context": model(genes=torch.cat([context, masked[_KNOWN:]]), **spots),
        "two_slides": model(genes=masked, slide=slide, **spots),
    }


def _frames(points: Tensor) -> dict:
    mask = torch.ones(points.shape[:2], dtype=torch.bool)
    mask[1, 5:7] = False
    projected, centre = in_frames(points, mask)
    return {
        "abs_first": projected[:, 0].abs(),
        "sorted_frames": projected.sort(1).values,
        "center": centre,
        "mean_over_frames": projected.mean(1),
    }

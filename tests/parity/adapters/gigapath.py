"""Prov-GigaPath: slide encoder and its table of positions."""

from __future__ import annotations

import torch
from tests.parity.fill import fill_model, inputs_of

from napari_he2st.zoo.slide_level.gigapath import SlideEncoder, sine_table


def run(case: dict) -> dict:
    config, x = case["config"], inputs_of(case)
    if "grid_size" in config:
        table = sine_table(torch.arange(config["grid_size"] ** 2), config["grid_size"], config["embed_dim"])
        rows = [torch.zeros(1, config["embed_dim"], dtype=table.dtype)] if config["cls_token"] else []
        return {"pe": torch.cat([*rows, table])}
    model = SlideEncoder(
        config["in_chans"],
        dim=config["embed_dim"],
        depth=config["depth"],
        mlp_ratio=config.get("mlp_ratio", 4),
        dropout=config["dropout"],
        n_grids=config["slide_ngrids"],
        tile_px=config["tile_size"],
        max_slide_px=config["max_wsi_size"],
    ).eval()
    fill_model(model, case)
    states = model.states(x["x"], x["coords"])
    width = case["outputs"]["states"].shape[-1]
    return {
        "cls": model(x["x"], x["coords"]),
        "n_states": len(states),
        "states": torch.stack([model.norm(state)[:, 0, :width] for state in states]),
        "global_pool": model(x["x"], x["coords"], average=True),
        "pos_index": model.positions(x["coords"]),
        "segment_length": model.segments,
    }

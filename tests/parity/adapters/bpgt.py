"""BPGT: gene encoder, what is known of the genes, loss, and its TransMIL."""

from __future__ import annotations

import numpy as np
from tests.parity.fill import corner, fill_model, inputs_of

from napari_he2st.zoo.blocks.transmil import TransMIL
from napari_he2st.zoo.slide_level.bpgt import (
    GeneEncoder,
    comparative_loss,
    mutual_information,
    organ_encoding,
    shared_mask,
    structure,
    with_ones,
)

_SIZES = {"dino": 256, "dino_b": 300, "hipt": 192}


def run(case: dict) -> dict:
    x, config = inputs_of(case), case["config"]
    if "organ" in x:
        labels, organs = x["y"].numpy() * (x["thin"].numpy() > 0.8), x["organ"].numpy()
        shared = {name: mutual_information(labels, organs, node=name == "mi_cls") for name in ("mi", "mi_cls")}
        return {**shared, "pe": organ_encoding(labels, organs)}
    if "margin" in config:
        return {"loss": comparative_loss(x["x"], x["y"], margin=config["margin"])}
    return _genes(case, x) if "adj" in x else _tiles(case, x["x"])


def _tiles(case: dict, x: np.ndarray) -> dict:
    config = case["config"]
    width = next(shape[1] for key, shape, _ in case["state"] if key == "_fc1.0.weight")
    model = TransMIL(width, config["n_classes"], dim=_SIZES[config["model_size"]], with_position=True).eval()
    fill_model(model, case)
    logits, slide, tiles = model(x)
    like = case["outputs"]["h_feat"]
    return {"logits": logits, "h_cls": slide, "h_feat": corner(tiles[0], like), "h_feat_shape": list(tiles.shape)}


def _genes(case: dict, x: dict) -> dict:
    config = case["config"]
    upper = np.triu(x["adj"].numpy(), 1)
    adjacency, mask, organs = upper + upper.T, x["mask"].numpy(), x["pe"].numpy()
    mask = (mask + mask.T) / 2
    node = config["if_cls_token"]
    model = GeneEncoder(config["in_dim"], config["num_layer"], len(mask), organs.shape[1], with_node=node).eval()
    fill_model(model, case)
    out, attention = model(x["h"], adjacency, mask, organs)
    return {
        "out": corner(out, case["outputs"]["out"]),
        "out_stats": np.array([float(out.mean()), float(out.std(correction=0))]),
        "attn": attention,
        "laplacian": structure(adjacency, node=node),
        "mask_used": shared_mask(mask),
        "pe_used": with_ones(organs) if node else organs,
    }

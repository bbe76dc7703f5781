"""TRIPLEX: both published versions, the options for positions, and the expression."""

from __future__ import annotations

import numpy as np
import torch
from scipy.sparse import eye_array
from tests.parity.fill import corner, fill_model, inputs_of

from napari_he2st.analysis.graphs import lattice_graph, row_normalised
from napari_he2st.core.types import Grid
from napari_he2st.zoo.blocks.slide_encoder import SlideEncoder
from napari_he2st.zoo.regression.triplex import TRIPLEX, fusion_loss
from napari_he2st.zoo.scale import scale_of

PLACES = {"APEG": "grid", "MLP": "mlp", "spatialformer": "fourier", "None": "none", None: "none"}
ENCODERS = {512: "timm:resnet18", 1024: "timm:vit_large_patch16_224", 768: "timm:vit_base_patch16_224"}


def run(case: dict) -> dict:
    x, config = inputs_of(case), case["config"]
    if "count" in x:
        return _expression(case, x)
    if "GlobalEncoder" in case["class"]:
        return _slide_encoder(case, x)
    return _network(case, x) if "pos_layer" in config else _cvpr(case, x)


def _model(case: dict, **options: object) -> TRIPLEX:
    config = case["config"]
    dim = config["emb_dim"]
    model = TRIPLEX(
        config["num_genes"],
        encoder=ENCODERS[dim],
        fusion_depth=config["depth1"],
        fusion_heads=config["num_heads1"],
        fusion_mlp_dim=int(config["mlp_ratio1"] * dim),
        slide_depth=config["depth2"],
        slide_heads=config["num_heads2"],
        slide_mlp_dim=int(config["mlp_ratio2"] * dim),
        neighbour_depth=config["depth3"],
        neighbour_heads=config["num_heads3"],
        kernel=config["kernel_size"],
        faithful=True,
        **options,
    ).eval()
    fill_model(model, case)
    return model


def _network(case: dict, x: dict) -> dict:
    config = case["config"]
    model = _model(
        case, place=PLACES[config["pos_layer"]], neighbour_mlp_dim=int(config["mlp_ratio3"] * config["emb_dim"])
    )
    given = (x["img"], x["mask"], x["neighbor_emb"], x["position"], x["global_emb"][0], torch.arange(len(x["img"])))
    tokens, out = model.tokens(*given), model(*given)
    values = {
        "logits": out["fusion"],
        "unclamped": model.fc(tokens["fusion"]),
        **{f"{name}_token": tokens[ours] for name, ours in NAMES.items()},
        "loss": fusion_loss(out, x["label"]),
    }
    for name, value in {"logits": out["fusion"], "fusion": tokens["fusion"], "global": tokens["slide"]}.items():
        values |= {f"{name}_mean": value.mean(), f"{name}_std": value.std(correction=0)}
    return {name: corner(values[name], like) for name, like in case["outputs"].items() if name in values}


NAMES = {"fusion": "fusion", "target": "target", "neighbor": "neighbour", "global": "slide"}


def _cvpr(case: dict, x: dict) -> dict:
    model = _model(
        case, place="dense", packed=False, project=False, clamp=False, neighbour_mlp_dim=case["config"]["mlp_ratio3"]
    )
    given = (x["x"], x["mask"], x["neighbor"], x["position"], x["x_total"][0], torch.arange(len(x["x"])))
    out = model(*given)
    values = {
        "output": out["fusion"],
        **{f"out_{name}": out[ours] for name, ours in NAMES.items()},
        "global_token": model.tokens(*given)["slide"],
        "pegh": model.global_encoder.pos_layer(x["x_total"][0], x["position"]),
        "output_mean": out["fusion"].mean(),
        "output_std": out["fusion"].std(correction=0),
    }
    return {name: corner(values[name], like) for name, like in case["outputs"].items() if name in values}


def _slide_encoder(case: dict, x: dict) -> dict:
    config = case["config"]
    model = SlideEncoder(
        config["emb_dim"],
        depth=config["depth"],
        heads=config["heads"],
        mlp_dim=config["mlp_dim"],
        dropout=config["dropout"],
        kernel=config["kernel_size"],
        place=PLACES[config["pos_method"] if "pos_method" in config else config["pos_layer"]],
        packed=True,
    ).eval()
    fill_model(model, case)
    return {"global": model(x["global_emb"], x["position"][None])}


def _expression(case: dict, x: dict) -> dict:
    index = x["pos"].numpy().astype(np.intp)
    n = len(index)
    grid = Grid(index[:, ::-1] * 100.0, 100.0, "square", 55.0, 1.0, index, tuple(index.max(0) + 1), np.ones(n, bool))
    plain = scale_of("log1p_cp10k_panel").transform(x["count"].numpy().astype(float), {})
    around = row_normalised(lattice_graph(grid, 8) + eye_array(n, format="csr"))
    return {"plain": plain, "smooth": around @ plain}

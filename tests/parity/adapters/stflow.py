"""STFlow: network, objective, flow and its pieces."""

from __future__ import annotations

import json
import re

import torch
from tests.parity.fill import corner, fill_model, inputs_of

from napari_he2st.zoo.blocks.flow import between, flow, step
from napari_he2st.zoo.blocks.losses import nan_mse
from napari_he2st.zoo.generation.stflow import STFlow


def run(case: dict) -> dict:
    x = inputs_of(case)
    return _network(case, x) if case["state"] else _interpolant(case, x)


def _network(case: dict, x: dict) -> dict:
    config = case["config"]
    model = STFlow(
        config["n_genes"],
        feature_dim=config["feature_dim"],
        dim=config["hidden_dim"],
        edge_dim=config["pairwise_hidden_dim"],
        depth=config["n_layers"],
        heads=config["n_heads"],
        dropout=config["dropout"],
        attention_dropout=config["attn_dropout"],
        neighbours=config["n_neighbors"],
        activation=config["activation"],
        faithful=True,
    ).eval()
    fill_model(model, case)
    features, coords = x["img_features"].clone(), x["coords"] * 200
    features[1, 9:], coords[1, 9:] = 0, 0  # what fills up the shorter slide
    predicted = model(x["noisy_exp"], features, coords, x["t"])
    clean = x["labels"].masked_fill((features.sum(-1) == 0)[..., None], torch.nan)
    states = flow(lambda e, t: model(e, features[:1], coords[:1], t), x["x0"], torch.linspace(0.01, 1, 5))
    return {
        "prediction": predicted,
        "loss": nan_mse(predicted, clean),
        "sample": states[-1],
        "trajectory": torch.stack(states[:-1])[:, 0, :4],
        "time_emb": corner(model.fourier_proj(x["t"]), case["outputs"]["time_emb"]),
    }


def _interpolant(case: dict, x: dict) -> dict:
    start = x["prior_counts"].log1p()
    durations = json.loads(re.search(r"d_t=(\[.*?\])", case["call"])[1])
    noisy = between(start, x["x1"], x["t"])
    return {"prior": start, "x_t": noisy, "step": step(noisy, x["x1"], torch.tensor(durations))}

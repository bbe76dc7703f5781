"""SEQUOIA: its three networks, the map of windows, and its figures."""

from __future__ import annotations

import numpy as np
import torch
from tests.parity.fill import fill_model, inputs_of

from napari_he2st.zoo.slide_level.sequoia import N_GROUPS, SEQUOIA, mean_correlation, smape, window_map


def run(case: dict) -> dict:
    x = inputs_of(case)
    if "y" in x:
        x["y"][:, 5] = 1
        labels, predicted = x["y"].numpy(), x["p"].numpy()
        return {"mean_corr": mean_correlation(labels, predicted), "smape": smape(labels, predicted)}
    model = _model(case)
    if "feat" in x:
        return _sliding(model, x)
    if model.network == "he2rna":
        bags = x["x"] * (x["keep"] > 0)[:, None] if "keep" in x else x["x"]
        pred = model(bags)
        return {"pred": pred, "pred_k5": model(bags, 5), "pred_relu": pred.relu()}
    if x["x"].ndim == 2:
        return _window(model, x["x"])
    return {"pred": model(x["x"])}


def _model(case: dict) -> SEQUOIA:
    config, kind = case["config"], case["class"]
    if "HE2RNA" in kind:
        model = SEQUOIA(
            config["output_dim"],
            network="he2rna",
            feature_dim=config["input_dim"],
            widths=tuple(config["layers"]),
            ks=tuple(config["ks"]),
            dropout=config["dropout"],
        )
    elif "ViS" in kind:
        model = SEQUOIA(
            config["num_outputs"],
            feature_dim=config["input_dim"],
            depth=config["depth"],
            heads=config["nheads"],
            mixing_dims=tuple(config[f"dimensions_{part}"] for part in "fsc"),
        )
    else:
        model = SEQUOIA(
            config["num_outputs"],
            network="vit",
            feature_dim=config["dim"],
            depth=config["depth"],
            heads=config["heads"],
            dim_head=config["dim_head"],
            hidden_dim=config["mlp_dim"],
        )
    model.faithful = True
    fill_model(model.eval(), case)
    return model


def _window(model: SEQUOIA, x: torch.Tensor) -> dict:
    """Without a batch axis every tile becomes a window of its own, in which it is repeated."""
    repeated = model(x[:, None].expand(-1, N_GROUPS, -1)[:4])
    return {
        "pred_2d_all_rows": repeated,
        "pred_2d_row0": model._of_window(x[None])[0],
        "pred_batched": model(x[None])[0],
        "pred_repeat_first": repeated[0],
    }


def _sliding(model: SEQUOIA, x: dict) -> dict:
    grid = np.argwhere(x["keep"].numpy() > 0.25)
    features = x["feat"][grid[:, 0], grid[:, 1]]
    found = {f"pred_stride{n}": window_map(features, grid, model._of_window, stride=n)[:, [0, 3]] for n in (1, 10)}
    return {"grid": grid, **found}

"""SpatialEx: both networks, hypergraph, panel mapper, pseudo-spots."""

from __future__ import annotations

import numpy as np
import torch
from tests.parity.fill import corner, fill_model, inputs_of
from torch.nn import functional as F

from napari_he2st.zoo.cells.spatialex import PanelMapper, SpatialEx, hypergraph, pseudo_spots


def run(case: dict) -> dict:
    x, config = inputs_of(case), case.get("config", {})
    if "xy" in x:
        return _spots(300 * x["xy"].numpy(), x["e"].numpy())
    if case["class"].startswith("Regression"):
        return _mapper(case, x)
    model = SpatialEx(
        config["out_dim"],
        feature_dim=config["in_dim"],
        dim=config["hidden_dim"],
        depth=config["num_layers"],
        plus="Plus" in case["class"],
        dropout=config.get("dropout", 0.1),
    ).eval()
    fill_model(model, case)
    graph = hypergraph(x["coord"])
    pred, state = model(x["he"], graph)
    out = {"G": graph.to_dense(), "pred": pred, "enc": state}
    out["loss_pre"] = F.mse_loss(x["agg"] @ pred, x["y"])
    backwards = torch.arange(len(pred)).flip(0)
    out["dgi_loss_reversed"], out["h1"] = model.common(x["he"], graph, backwards)
    return {name: corner(torch.as_tensor(out[name]), like) for name, like in case["outputs"].items()}


def _mapper(case: dict, x: dict) -> dict:
    shapes = {key: shape for key, shape, _ in case["state"]}
    after, hidden = shapes["mlp.3.weight"]
    model = PanelMapper(shapes["mlp.0.weight"][1], after, hidden).eval()
    fill_model(model, case)
    source, *target = x.values()
    pred = model(source)
    out = dict.fromkeys(case["outputs"], pred)
    return out | ({name: F.mse_loss(pred, target[0]) for name in out if "loss" in name or "mse" in name})


def _spots(xy: np.ndarray, counts: np.ndarray) -> dict:
    out = {}
    for name, everywhere in (("all", True), ("in", False)):
        owner, centres = pseudo_spots(xy, everywhere=everywhere)
        out |= {f"spot_{name}": owner, f"coor_{name}": centres}
        total = np.zeros((len(centres), counts.shape[1]), counts.dtype)
        np.add.at(total, owner[owner >= 0], counts[owner >= 0])
        out[f"sum_{name}"] = total
    return out

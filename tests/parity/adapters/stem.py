"""Stem: network, respaced schedules, samplers, training terms."""

from __future__ import annotations

import re

from tests.parity.fill import corner, fill_model, inputs_of
from torch import Tensor

from napari_he2st.zoo.blocks.diffusion import ancestral, ddim, spaced_steps
from napari_he2st.zoo.generation.stem import Stem


def run(case: dict) -> dict:
    x, wanted = inputs_of(case), case["outputs"]
    config = case["config"].get("model", case["config"])
    model = Stem(
        config["input_size"],
        feature_dim=config["label_size"],
        dim=config["hidden_size"],
        depth=config["depth"],
        heads=config["num_heads"],
        mlp_ratio=config.get("mlp_ratio", 4.0),
        faithful=True,
    ).eval()
    fill_model(model, case)
    if "eps_and_v" not in wanted:
        return _sampling(case, model, x)
    return {
        "eps_and_v": model(x["x_t"], x["t"], x["y"]),
        "time_embed": corner(model.time_embed(x["t"]), wanted["time_embed"]),
        "cond": corner(model.label_embed(x["y"]), wanted["cond"]),
    }


def _sampling(case: dict, model: Stem, x: dict) -> dict:
    """Samplers and terms; which output is which is told by its name."""
    spacing = next(str(v) for k, v in case["config"].items() if re.search("resp|spac|step", k))
    whole = model.schedule
    short = whole.respaced(spaced_steps(len(whole), spacing))
    condition = x["y"]
    found = {}
    for name, like in case["outputs"].items():
        if re.search("ddim", name):
            value = ddim(short, lambda e, t: model(e[:, None], t, condition)[:, 0], _flat(x["x_T"]))
        elif re.search("q_sample|noised|x_t$", name):
            value = whole.noised(_flat(x["x_0"]), x["t"], _flat(x["noise"]))
        elif re.search("sample|ancestral|loop", name):
            noise = x["step_noise"].flatten(2) if x["step_noise"].ndim > 3 else x["step_noise"]
            value = ancestral(short, lambda e, i: model.moments(short, e, i, condition), _flat(x["x_T"]), noise)
        elif re.search("beta", name):
            value = short.betas
        elif re.search("alpha", name):
            value = short.alpha_bar
        elif re.search("mse|vb|loss", name):
            squared, bound = model.terms(_flat(x["x_0"]), condition, x["t"], _flat(x["noise"]))
            value = {"mse": squared, "vb": bound}.get(name, squared + bound).mean(1)
        else:
            value = short.times
        found[name] = value.reshape(like.shape)
    return found


def _flat(x: Tensor) -> Tensor:
    return x.flatten(1)

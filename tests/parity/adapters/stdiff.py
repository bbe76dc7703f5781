"""stDiff: network, schedule, imputation with given noise."""

from __future__ import annotations

import re

import torch
from tests.parity.fill import corner, fill_model, inputs_of

from napari_he2st.zoo.blocks.diffusion import Schedule
from napari_he2st.zoo.generation.stdiff import StDiff, as_condition


def run(case: dict) -> dict:
    x = inputs_of(case)
    config = case["config"].get("model", case["config"])
    model = StDiff(
        config["input_size"],
        dim=config["hidden_size"],
        depth=config["depth"],
        heads=config["num_heads"],
        mlp_ratio=config["mlp_ratio"],
        n_conditions=config["classes"],
        faithful=True,
    ).eval()
    fill_model(model, case)
    return _sampling(case, model, x) if "x_T" in x else _network(case, model, x)


def _network(case: dict, model: StDiff, x: dict) -> dict:
    condition = 2 * x["y"] - 1
    return {
        "noise": model(x["x"], x["t"], condition),
        "first_two_cells_only": model(x["x"][:2], x["t"][:2], condition[:2]),
        "time_emb": corner(model.time_emb(x["t"]), case["outputs"]["time_emb"]),
    }


def _sampling(case: dict, model: StDiff, x: dict) -> dict:
    config, counts = case["config"], x["gt"]
    make = {"cosine": Schedule.cosine, "linear": Schedule.linear}[config["schedule"]]
    schedule, whole = make(config["num_steps"]), make(1500)
    known = torch.ones_like(counts, dtype=torch.bool)
    known[:, config["masked_genes"]] = False
    condition = as_condition(counts, known)
    batches = torch.arange(len(counts)).split(config["batch_size"])
    drawn = torch.cat([x["x_T"][None], x["step_noise"]])
    sampled = [model.sample(condition[rows], known[rows], drawn[:, rows], schedule) for rows in batches]
    places = [0, 1, 750, 1498, 1499]
    times = [int(t) for t in re.search(r"t=\[([\d,]+)\]", case["outputs_meaning"]["add_noise"])[1].split(",")]
    return {
        "betas": schedule.betas,
        "alphas_cumprod": schedule.alpha_bar,
        "posterior_mean_coef1": schedule.clean_share,
        "posterior_mean_coef2": schedule.noisy_share,
        "betas_1500": whole.betas[places],
        "alphas_cumprod_1500": whole.alpha_bar[places],
        "add_noise": whole.noised(counts, torch.tensor(times), x["x_T"]),
        "sample": torch.cat(sampled),
    }

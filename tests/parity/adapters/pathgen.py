"""PathGen: network, schedules, sampling with given noise, objective."""

from __future__ import annotations

import re

import torch
from tests.parity.fill import fill_model, inputs_of

from napari_he2st.zoo.blocks.diffusion import Schedule
from napari_he2st.zoo.generation.pathgen import PathGen


def run(case: dict) -> dict:
    x = inputs_of(case)
    config = case["config"].get("model", case["config"])
    model = PathGen(
        sum(config["omic_sizes"]),
        group_sizes=config["omic_sizes"],
        dim=config["size"],
        time_dim=config["time_dim"],
        max_time=config["max_time"],
        widths=config["model_size_omic"],
        heads=config["num_heads"],
        dropout=config["dropout"],
        faithful=True,
    ).eval()
    fill_model(model, case)
    return _sampling(case, model, x) if "x_T" in x else _network(model, x)


def _network(model: PathGen, x: dict) -> dict:
    groups = [x[f"x_omic{i}"] for i in range(len(model.group_sizes))]
    noise = model(x["x_path"], torch.cat(groups)[None], x["t"])[0]
    named = {f"noise{i}": part for i, part in enumerate(noise.split(model.group_sizes))}
    return {**named, "time_emb": model.time_code(x["t"])}


def _sampling(case: dict, model: PathGen, x: dict) -> dict:
    schedule = Schedule.linear(case["config"]["T"])
    at, parts = (int(re.search(pattern, case["call"])[1]) for pattern in (r"p_losses at t=(\d+)", r"gc=(\d+)"))
    step, noise, clean = torch.tensor([at]), x["step_noise"][:1], x["x_0"][None]
    noisy = schedule.noised(clean, step, noise)
    loss = model.noise_loss(model(x["x_path"], noisy, step), noise, torch.ones_like(clean, dtype=torch.bool))
    return {
        "betas": schedule.betas,
        "alphas_cumprod": schedule.alpha_bar,
        "betas_cosine": Schedule.cosine(case["config"]["T"]).betas,
        "betas_1000": Schedule.linear(1000).betas[[0, 1, 500, 999]],
        "sample": model.sample(x["x_path"], torch.cat([x["x_T"][None], x["step_noise"]])[:, None], schedule)[0],
        "q_sample": noisy[0],
        "loss": loss / parts,
    }

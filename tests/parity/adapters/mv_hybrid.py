"""MV-Hybrid: backbone, and the two mixers of its first layer."""

from __future__ import annotations

import torch
from tests.parity.fill import fill_model, inputs_of

from napari_he2st.zoo.regression.mv_hybrid import MVHybrid


def run(case: dict) -> dict:
    config, x = case["config"], inputs_of(case)["x"]
    frequency = "none" if not config["if_einfft"] else "mamba" if config.get("einfft_mamba_only") else "all"
    dim = config["embed_dim"]
    model = MVHybrid(
        dim=dim,
        depth=config["depth"],
        heads=config["num_heads"],
        mlp_ratio=config["mlp_ratio"],
        patch_px=config["patch_size"],
        qkv_bias=config["qkv_bias"],
        einfft=frequency,
    ).eval()
    fill_model(model, case)
    cls, patch = model.tokens(x)
    first = model.blocks["blocks"][0]
    return {
        "cls": cls,
        "patch": patch[:, ::4, :96],
        "out": model(x),
        "mixer0": first.mixer(torch.linspace(-1, 1, 10 * dim).view(2, 5, dim))[..., :64],
        "einfft0": first.channel_mixer(torch.linspace(-2, 2, 10 * dim).view(2, 5, dim))[..., :64],
    }

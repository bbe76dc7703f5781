"""CONCH's image tower."""

from __future__ import annotations

from tests.parity.fill import fill_model, inputs_of

from napari_he2st.zoo.encoders.conch import Conch


def run(case: dict) -> dict:
    vision = case["config"]["vision_cfg"]
    network = Conch(
        px=vision["image_size"],
        patch_px=vision["patch_size"],
        dim=case["config"]["embed_dim"],
        dim_caption=case["config"]["embed_dim_caption"],
        heads=vision["attn_pooler_heads"],
        n_contrast=vision["n_queries_contrast"],
        n_caption=vision["n_queries_caption"],
    ).eval()
    fill_model(network, case)
    feature = network(inputs_of(case)["x"])
    return {"no_head": feature, "projected": network.project(feature)}

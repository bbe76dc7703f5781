"""ST-GCHB: graph, network, all its losses."""

from __future__ import annotations

import re

from tests.parity.fill import corner, fill_model, inputs_of

from napari_he2st.zoo.blocks.contrast import soft_clip_losses
from napari_he2st.zoo.retrieval.st_gchb import STGCHB, hsic, normalised_hsic, objectives


def run(case: dict) -> dict:
    x = inputs_of(case)
    if "X" in x:
        return {
            "hsic": hsic(x["X"], x["Y"]),
            "nhsic": normalised_hsic(x["X"], x["Y"]),
            "hsic_xx": hsic(x["X"], x["X"]),
            "align": soft_clip_losses(x["A"], x["B"]).mean(),
        }
    config = case["config"]
    neighbours = re.search(r"k=(\d+)", case["call"])
    model = STGCHB(
        config["ft_size_spot"],
        n_components=config["ft_size_spot"],
        image_dim=config["ft_size_image"],
        graph_dim=config["embedding_dim_spot"],
        dim=config["projection_dim"],
        k=int(neighbours[1]) if neighbours else 6,
    ).eval()
    fill_model(model, case)
    adjacency = model.graph(x["coord"])
    seen = model(x["x"], x["g"], adjacency)
    (image, image_h, image_z), (_, spot_h, spot_z) = seen["images"], seen["spots"]
    graph, reversed_rows = model.spot_dgi_model["model"], x["g"].flip(0)
    return {
        "adj": adjacency,
        "image_feature": corner(image, case["outputs"]["image_feature"]),
        "gene_embed": spot_h,
        "image_embed": image_h,
        "spot_proj": spot_z,
        "image_proj": image_z,
        "dgi_logits": graph.logits(x["g"], reversed_rows, adjacency),
        "dgi_loss": graph.loss(x["g"], reversed_rows, adjacency),
        "hsic": hsic(x["g"][:, :16], spot_h),
        "nhsic": normalised_hsic(x["g"][:, :16], spot_z),
        **objectives(seen),
    }

"""Gene-DML: network, losses, k-means and smoothing."""

from __future__ import annotations

import re

import numpy as np
import torch
from scipy.sparse import eye_array
from tests.parity.fill import corner, fill_model, inputs_of

from napari_he2st.analysis.graphs import lattice_graph, row_normalised
from napari_he2st.core.types import Grid
from napari_he2st.zoo.regression.gene_dml import GeneDML, absolute_cosine, kmeans


def run(case: dict) -> dict:
    x = inputs_of(case)
    return _network(case, x) if case["state"] else _parts(x, re.findall(r"\d+x\d+", case["inputs"]["e"]["meaning"]))


SETTINGS = {
    "her2st": {},
    "stnet": {"neighbour_heads": 8, "slide_depth": 3, "slide_mlp_dim": 2048},
    "skin": {
        "neighbour_heads": 16,
        "neighbour_mlp_dim": 1024,
        "slide_depth": 2,
        "slide_heads": 16,
        "slide_mlp_dim": 1024,
    },
}


def _network(case: dict, x: dict) -> dict:
    config = case["config"]
    depth = 1 + max(int(m[1]) for key, _, _ in case["state"] if (m := re.search(r"model\.blocks\.(\d+)\.", key)))
    model = GeneDML(
        config["spot_embedding"],
        dim=config["image_embedding"],
        vit_depth=depth,
        projection_dim=config["projection_dim"],
        temperature=config["temperature"],
        cluster_temperature=config["cld_t"],
        cluster_weight=config["lambda_cld"],
        faithful=True,
        **SETTINGS[config["data_name"]],
    ).eval()
    fill_model(model, case)
    n_slides = int(x["pid"].max()) + 1
    slides = [model.slide_tokens(x[f"wsi{i}"], x[f"pos{i}"]) for i in range(n_slides)]
    tokens = torch.stack([slides[p][s] for p, s in zip(x["pid"].tolist(), x["sid"].tolist(), strict=True)])
    out = model(x["patch"], x["neighbor"], x["mask"], tokens)
    parts = model.losses(out, x["exp"], int(re.search(r"\bk=(\d+)", case["call"])[1]))
    return {
        "loss": parts["contrastive"] + parts["prediction"] + config["lambda_cld"] * parts["cluster"],
        "contrastive": parts["contrastive"],
        "prediction": parts["prediction"],
        "cld": parts["cluster"],
        **{f"pred_{scale}": out[scale] for scale in ("target", "neighbor", "global", "fusion")},
        "global_embedding_slide0": corner(slides[0], case["outputs"]["global_embedding_slide0"]),
    }


def _parts(x: dict, names: list[str]) -> dict:
    labels, centroids = kmeans(x["x"], 3)
    index = np.array([name.split("x") for name in names], dtype=np.intp)
    n = len(index)
    grid = Grid(index * 100.0, 100.0, "square", 55.0, 1.0, index, (9, 9), np.ones(n, dtype=bool))
    around = row_normalised(lattice_graph(grid, 8) + eye_array(n, format="csr"))
    return {
        "labels": labels,
        "centroids": centroids,
        "cos": absolute_cosine(x["x"]),
        "smooth": around @ x["e"].numpy(),
    }

"""stLearn: weights of neighbours, what is imputed, features of tiles."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from tests.parity.fill import fill_model, inputs_of

from napari_he2st.zoo.domains import stlearn

TERMS = {
    "weights_matrix_all": ["physical", "morphology", "gene"],
    "weights_matrix_pd_md": ["physical", "morphology"],
    "weights_matrix_pd_gd": ["physical", "gene"],
    "weights_matrix_gd_md": ["gene", "morphology"],
    "physical_distance": ["physical"],
    "gene_expression_correlation": ["gene"],
    "morphological_distance": ["morphology"],
}


def run(case: dict) -> dict:
    x = inputs_of(case)
    return _tiles(case, x) if "image" in x else _sme(case, {name: value.numpy() for name, value in x.items()})


def _sme(case: dict, x: dict) -> dict:
    faithful = not case["commit"].startswith("0.4")
    step = stlearn.array_step(x["array_row"], x["array_col"], x["imagerow"], x["imagecol"], faithful=faithful)
    xy = np.stack([x["imagecol"], x["imagerow"]], axis=1)
    weights = stlearn.Weights(xy, x["morph"], x["pca"], case["config"]["rate"] * step)
    every = TERMS["weights_matrix_all"]
    imputed = weights.impute(x["x"], every)
    out = {"unit": step, "imputed": imputed, "w_all": weights.product(every)}
    out |= {"pd": weights.term("physical"), "md": weights.term("morphology"), "gd": weights.term("gene")}
    out |= {"impute0_all": stlearn.fill_zeros(x["x"], imputed), "normalised_all": stlearn.average(x["x"], imputed)}
    for name, terms in TERMS.items():
        out[f"norm_{name}"] = stlearn.average(x["x"], weights.impute(x["x"], terms))
    for method in ("mean", "median", "sum"):
        for similarity in ("cosine", "euclidean", "pearson", "spearman"):
            rates = 2 if method == "sum" else 1
            out[f"adjust_{method}_{similarity}"] = stlearn.adjust(
                x["pca"], x["morph"], xy, 130, rates=rates, method=method, similarity=similarity
            )
    return out | {f"disk_{method}": stlearn.disk(x["pca"], xy, 130, method=method) for method in ("mean", "median")}


def _tiles(case: dict, x: dict) -> dict:
    config = case["config"]
    image, half = Image.fromarray(x["image"].numpy()), config["crop_size"] / 2
    size = (config["target_size"],) * 2
    tiles = []
    for row, column in zip(x["row"].tolist(), x["col"].tolist(), strict=True):
        box = (max(column - half, 0), max(row - half, 0), column + half, row + half)
        tile = image.crop(box)
        tile.thumbnail(size, Image.Resampling.LANCZOS)
        tiles.append(np.asarray(tile.resize(size)))
    stack = np.stack(tiles)
    name = config["cnn_base"]
    network = stlearn.backbone(name).eval()
    fill_model(network, case)
    sizes = stlearn.SIZES.get(name, (256, 224))
    features = stlearn.morphology(network, torch.from_numpy(stack).permute(0, 3, 1, 2), sizes)
    return {
        "tile_sub": stack[:, ::23, ::23],
        "tile_mean": stack.mean(axis=(1, 2)),
        "feat": features[:, : case["outputs"]["feat"].shape[1]],
        "feat_mean": features.mean(1),
        "feat_std": features.std(1, correction=0),
    }

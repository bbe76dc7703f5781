"""HyperST: prediction, alignment and the Lorentz model."""

from __future__ import annotations

import re

from tests.parity.fill import corner, fill_model, inputs_of

from napari_he2st.zoo.blocks.losses import nan_mse
from napari_he2st.zoo.regression import hyperst


def run(case: dict) -> dict:
    x = inputs_of(case)
    return _network(case, x) if case["state"] else _lorentz(case, x)


def _network(case: dict, x: dict) -> dict:
    config, wanted = case["config"], case["outputs"]
    depth = len({key for key, *_ in case["state"] if re.fullmatch(r"gene_decoder\.blocks\.\d+\.norm\.weight", key)})
    model = hyperst.HyperST(
        config["num_outputs"],
        feature_dim=config["image_dim"],
        dim=config["emb_dim"],
        depth=depth,
        mlp_ratio=config["mlp_ratio"],
        entailment_weight=config["entail_weight"],
        alignment_weight=config["alignment_beta"],
        scaled=config["predict_norm"],
    ).eval()
    fill_model(model, case)
    images, genes = model.image_embeddings(x["a"], x["b"]), model.gene_embeddings(x["g"], x["n"])
    alignment, contrastive, entailment = model.alignment(*images, *genes)
    predicted = model(x["a"], x["b"])
    targets = {"expression": x["g"], "niche": x["n"].exp2() - 1}
    return {
        "pred": predicted,
        "predict_loss": nan_mse(predicted, x["g"]),
        "loss": model.loss(targets, features=x["a"], niche_features=x["b"]),
        "align_loss": alignment,
        "contrastive": contrastive,
        "entail": entailment,
        "image_feats": corner(images[0], wanted["image_feats"]),
        "niche_gene_feats": corner(genes[1], wanted["niche_gene_feats"]),
    }


def _lorentz(case: dict, x: dict) -> dict:
    c, *factors = (float(number) for number in re.findall(r"\d+\.?\d*(?=[;\s])", case["call"].replace("map0", "")))
    a, b = (hyperst.exp_map0(factor * x[name], c) for factor, name in zip(factors, ("x", "y"), strict=True))
    return {
        "exp_x": a,
        "log_exp_x": hyperst.log_map0(a, c),
        "inner": hyperst.inner(a, b, c),
        "dist": hyperst.distance(a, b, c),
        "aperture": hyperst.half_aperture(a, c),
        "angle": hyperst.exterior_angle(a, b, c),
    }

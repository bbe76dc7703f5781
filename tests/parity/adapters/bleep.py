"""BLEEP: network, loss, retrieval and its three rules."""

from __future__ import annotations

from tests.parity.fill import corner, fill_model, inputs_of

from napari_he2st.zoo.blocks.contrast import soft_clip_losses
from napari_he2st.zoo.blocks.retrieval import Found, find
from napari_he2st.zoo.blocks.search import Search, squared_exponential, weighted_mean
from napari_he2st.zoo.retrieval.bleep import BLEEP

TRUNKS = {
    "vit_base_patch32_224_clip_laion2b": "vit_base_patch32_clip_224",
    "vit_large_patch32_224_in21k": "vit_large_patch32_224",
    "clip": "vit_base_patch32_clip_224",
    "vit": "vit_base_patch32_224",
    "vit_L": "vit_large_patch32_224",
}


def run(case: dict) -> dict:
    x = inputs_of(case)
    if "spot_key" in x:
        return _retrieval(x)
    return _losses(case, x) if "image_embeddings" in x else _network(case, x)


def _network(case: dict, x: dict) -> dict:
    config = case["config"]
    name = config.get("model_name", "resnet50")
    model = BLEEP(
        config["spot_embedding"],
        trunk=TRUNKS.get(name, name),
        dim=config["projection_dim"],
        dropout=config.get("dropout", 0.1),
        temperature=config["temperature"],
        inverted_targets=name != "resnet50",
    ).eval()
    fill_model(model, case)
    features = model.image_encoder["model"](x["image"])
    return {
        "image_features": corner(features, case["outputs"]["image_features"]),
        "image_features_mean": features.mean(),
        "image_features_std": features.std(),
        "image_embeddings": model.embed_images(images=x["image"]),
        "spot_embeddings": model.embed_spots(x["reduced_expression"]),
        "loss": model(x["image"], x["reduced_expression"]),
    }


def _losses(case: dict, x: dict) -> dict:
    """``loss_T0.5`` divides the targets by the temperature, ``loss_variant_T0.5`` multiplies them."""
    out = {}
    for name in case["outputs"]:
        temperature = float(name.rpartition("T")[2])
        of_targets = 1 / temperature if "variant" in name else temperature
        embedded = x["image_embeddings"], x["spot_embeddings"]
        out[name] = soft_clip_losses(*embedded, temperature, target_temperature=of_targets).mean()
    return out


def _retrieval(x: dict) -> dict:
    def found(k: int) -> Found:
        return find(x["image_query"], Search(x["spot_key"]), x["expression_key"], k)

    many = found(50)
    return {
        "indices": many.rows,
        "simple": weighted_mean(found(1).expression),
        "average": weighted_mean(many.expression),
        "weighted_average": weighted_mean(many.expression, squared_exponential(many.distance())),
    }

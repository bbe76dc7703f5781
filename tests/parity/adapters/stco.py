"""STco: network and retrieval."""

from __future__ import annotations

from tests.parity.fill import corner, fill_model, inputs_of

from napari_he2st.zoo.blocks.retrieval import find
from napari_he2st.zoo.blocks.search import Search, inverse_square, weighted_mean
from napari_he2st.zoo.retrieval.stco import STco


def run(case: dict) -> dict:
    x = inputs_of(case)
    if "spot_key" in x:
        k = case["outputs"]["indices"].shape[1]
        found = find(x["image_query"], Search(x["spot_key"]), x["expression_key"], k)
        return {"indices": found.rows, "prediction": weighted_mean(found.expression, inverse_square(found.distance()))}
    config = case["config"]
    model = STco(config["spot_embedding"], dim=config["projection_dim"], dropout=config.get("dropout", 0.0)).eval()
    fill_model(model, case)
    positions = x["position"].long()
    features = model.image_features(x["image"])
    return {
        "image_features": corner(features, case["outputs"]["image_features"]),
        "image_features_mean": features.mean(),
        "image_features_std": features.std(),
        "image_embeddings": model.embed_images(images=x["image"]),
        "spot_embeddings": model.embed_spots(x["expression"], positions=positions),
        "loss": model(x["image"], positions, x["expression"]),
    }

"""DANet: network and loss."""

from __future__ import annotations

from tests.parity.fill import corner, fill_model, inputs_of
from torch.nn import functional as F

from napari_he2st.zoo.retrieval.danet import DANet


def run(case: dict) -> dict:
    x, config, like = inputs_of(case), case["config"], case["outputs"]
    model = DANet(config["spot_embedding"], trunk=config["model_name"], dim=config["projection_dim"]).eval()
    fill_model(model, case)
    images = x["image"].permute(0, 2, 1, 3)
    features, spots = model.image_encoder["model"](images), model.spot_features(x["reduced_expression"])
    head = model.spot_projection
    kan_in = head.fc_in(F.gelu(head.projection(spots)))
    every = -(-spots.shape[1] // like["spot_features"].shape[1])
    return {
        "image_features": corner(features, like["image_features"]),
        "image_features_mean": features.mean(),
        "image_features_std": features.std(),
        "image_embeddings": model.embed_images(images=images),
        "spot_features": spots[:, ::every],
        "spot_features_mean": spots.mean(),
        "spot_embeddings": model.embed_spots(x["reduced_expression"]),
        "kan_in": kan_in,
        "kan_out": head.kan(kan_in),
        "loss": model(images, x["reduced_expression"]),
    }

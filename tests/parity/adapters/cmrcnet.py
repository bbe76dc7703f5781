"""CMRCNet: network, both losses, retrieval."""

from __future__ import annotations

from tests.parity.fill import corner, fill_model, inputs_of

from napari_he2st.zoo.blocks.retrieval import find
from napari_he2st.zoo.blocks.search import Search, weighted_mean
from napari_he2st.zoo.retrieval.cmrcnet import CMRCNet


def run(case: dict) -> dict:
    x, config, like = inputs_of(case), case["config"], case["outputs"]
    model = CMRCNet(
        config["spot_embedding"],
        image_dim=config["image_embedding"],
        temperature=config["temperature"],
        kept_share=config["mask_prob"],
    ).eval()
    fill_model(model, case)
    kept = (x["mask"] < model.kept_share).float()
    contrastive, reconstruction = model(x["x"], x["st"], kept)
    found = find(x["q"], Search(x["ref"]), x["refexp"], like["match_sorted"].shape[1])
    return {
        "tokens": corner(model.image_encoder(x["x"])[:, ::10], like["tokens"]),
        "image_embedding": model.embed_images(images=x["x"]),
        "spot_embedding": model.embed_spots(x["st"]),
        "loss_contrastive": contrastive,
        "loss_reconstruction": reconstruction,
        "match_sorted": found.rows.sort(1).values,
        "retrieved": weighted_mean(found.expression),
    }

"""CarHE: network, loss, nearest spots."""

from __future__ import annotations

from tests.parity.fill import fill_model, inputs_of

from napari_he2st.zoo.blocks.retrieval import find
from napari_he2st.zoo.blocks.search import Search, weighted_mean
from napari_he2st.zoo.retrieval.carhe import CarHE


def run(case: dict) -> dict:
    x = inputs_of(case)
    if "q" in x:
        search = Search(x["r"], CarHE.metric)
        return {
            name: weighted_mean(find(x["q"], search, x["e"], int(name.removeprefix("pred_k"))).expression)
            for name in case["outputs"]
        }
    return _network(case, x) if "image" in x else _losses(case, x)


def _network(case: dict, x: dict) -> dict:
    config = case["config"]
    model = CarHE(
        x["expression"].shape[1],
        spot_dim=config["spot_embedding"],
        dim=config["projection_dim"],
        temperature=config["temperature"],
    ).eval()
    fill_model(model, case)
    embedded = model.embed_images(images=x["image"]), model.embed_spots(x["expression"])
    return {"image_embeddings": embedded[0], "spot_embeddings": embedded[1], "loss": model.loss_of(*embedded)}


def _losses(case: dict, x: dict) -> dict:
    out = {}
    for name in case["outputs"]:
        model = CarHE(1, spot_dim=1, dim=4, depth=2, heads=2, temperature=float(name.removeprefix("loss_T")))
        out[name] = model.loss_of(x["image_embeddings"], x["spot_embeddings"])
    return out

"""mclSTExp: network, the three evaluators' rules, normalisation of counts."""

from __future__ import annotations

from tests.parity.fill import corner, fill_model, inputs_of

from napari_he2st.zoo.blocks.retrieval import find
from napari_he2st.zoo.blocks.search import Search, inverse_square, weighted_mean
from napari_he2st.zoo.retrieval.mclstexp import MclSTExp
from napari_he2st.zoo.scale import scale_of

TRUNKS = {"res18": "resnet18", "res50": "resnet50", "res101": "resnet101"}
NORMS = {"her2st": 1, "cscc": 2, "visium": 2}


def run(case: dict) -> dict:
    x = inputs_of(case)
    if "counts" in x:
        scale = scale_of("log10_cp10k_panel")
        counts = x["counts"].numpy()
        return {"spots_by_genes": scale.transform(counts, {}), "bank": scale.transform(counts.T, {})}
    return _retrieval(case, x) if "spot_key" in x else _network(case, x)


def _network(case: dict, x: dict) -> dict:
    config = case["config"]
    trunk = config.get("encoder_name", "densenet121")
    model = MclSTExp(
        config["spot_dim"],
        trunk=TRUNKS.get(trunk, trunk),
        dim=config["projection_dim"],
        dropout=config.get("dropout", 0.0),
        depth=0 if "MLP" in case["class"] else config["head_layers"],
        heads=config.get("heads_num", 8),
        dim_head=config.get("heads_dim", 64),
    ).eval()
    fill_model(model, case)
    positions = x["position"].long()
    features = model.image_features(x["image"])
    return {
        "image_features": corner(features, case["outputs"]["image_features"]),
        "image_features_mean": features.mean(),
        "image_features_std": features.std(),
        "image_embeddings": model.embed_images(images=x["image"]),
        "spot_encoded": model.encode_spots(x["expression"], positions),
        "spot_embeddings": model.embed_spots(x["expression"], positions=positions),
        "loss": model(x["image"], positions, x["expression"]),
    }


def _retrieval(case: dict, x: dict) -> dict:
    k = case["outputs"]["indices"].shape[1]
    found = find(x["image_query"], Search(x["spot_key"]), x["expression_key"], k)
    rules = {
        name: weighted_mean(found.expression, inverse_square(found.distance(norm))) for name, norm in NORMS.items()
    }
    return {"indices": found.rows, **rules}

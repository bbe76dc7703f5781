"""Magic: inference model and gene encoder."""

from __future__ import annotations

import re

from tests.parity.fill import corner, fill_model, inputs_of
from torch.nn import functional as F

from napari_he2st.zoo.blocks.losses import nan_mse
from napari_he2st.zoo.regression.magic import GeneEncoder, Magic

VIT = {"tiny": (192, 12, 3), "small": (384, 12, 6), "base": (768, 12, 12), "large": (1024, 24, 16)}


def run(case: dict) -> dict:
    x = inputs_of(case)
    return _gene_encoder(case, x) if "num_tokens" in case["config"] else _model(case, x)


def _model(case: dict, x: dict) -> dict:
    config, wanted = case["config"], case["outputs"]
    dim, depth, heads = VIT[config["vit"]]
    model = Magic(
        x["g"].shape[1], tile_px=config["image_size"], embed_dim=config["embed_dim"], dim=dim, depth=depth, heads=heads
    ).eval()
    fill_model(model, case)
    embedding, predicted = model.embed(x["x"]), model(x["x"])
    return {
        "feat": corner(F.normalize(embedding, dim=1), wanted["feat"]),
        "embed": corner(embedding, wanted["embed"]),
        "pred": predicted,
        "loss": nan_mse(predicted, x["g"]),
    }


def _gene_encoder(case: dict, x: dict) -> dict:
    config, n_random = case["config"], case["config"].get("nb_features")
    model = GeneEncoder(
        config["max_seq_len"],
        vocabulary=config["num_tokens"],
        dim=config["dim"],
        depth=config["depth"],
        heads=config["heads"],
        dim_head=config["dim_head"],
        n_random=n_random if isinstance(n_random, int) else None,
    ).eval()
    model.pos_emb["emb"].double()  # as gene2vec is stored
    fill_model(model, case)
    step = re.search(r"::(\d+)", case["outputs_meaning"]["enc"])
    return {"enc": model.encode(x["g"])[:, :: int(step[1]) if step else 1], "out": model(x["g"])}

"""DeepGEM: network and loss."""

from __future__ import annotations

import torch
from tests.parity.fill import corner, fill_model, inputs_of

from napari_he2st.zoo.slide_level.deepgem import DeepGEM, PartialLoss


def run(case: dict) -> dict:
    x, config = inputs_of(case), case["config"]
    if "conf" in x:
        return _loss(x, config)
    model = DeepGEM(
        config["num_classes"],
        feature_dim=config["patch_dim"],
        dim=config["dim"],
        depth=config["depth"],
        n_queries=config["num_queries"],
        dropout=config["decoder_dropout"],
    ).eval()
    fill_model(model, case)
    logits, instance, state = model(x["x"])
    out = {"logits": logits, "prob": logits.softmax(dim=1)}
    like = case["outputs"]
    stored = {"patch_logits": instance, "patch_embed": state}
    return out | {name: corner(value, like[name]) for name, value in stored.items()}


def _loss(x: dict, config: dict) -> dict:
    loss = PartialLoss(x["conf"] / x["conf"].sum(dim=1, keepdim=True), config["conf_ema_m"])
    found = loss(x["out"], x["index"])
    loss.update(x["proto"], x["index"], x["y"])
    after = loss.confidence.clone()
    loss.at_epoch(50)
    return {"loss": found, "conf_after": after, "ema_at_epoch_50": torch.tensor(loss.momentum)}

"""Chowder, and the figures of a binary classifier."""

from __future__ import annotations

import numpy as np
import torch
from tests.parity.fill import fill_model, inputs_of

from napari_he2st.zoo.slide_level.fgfr3mut import FGFR3Mut, classification_metrics


def run(case: dict) -> dict:
    x, config = inputs_of(case), case["config"]
    if "y" in x:
        found = classification_metrics(x["y"].numpy(), x["p"].numpy(), sensitivity=config["target_sens"])
        return {"metrics": np.array(list(found.values()))}
    model = FGFR3Mut(feature_dim=config["in_features"], n_extreme=config["n_extreme"]).eval()
    fill_model(model, case)
    bags = torch.nn.utils.rnn.pad_sequence([x["a"], x["b"]], batch_first=True)
    lengths = torch.tensor([len(x["a"]), len(x["b"])])
    mask = (torch.arange(bags.shape[1]) >= lengths[:, None])[..., None]
    logits, extreme = model(bags, mask)
    return {
        "logits": logits,
        "extreme": extreme,
        "scores": model.score_model(bags, mask)[..., 0],
        "prob": logits.sigmoid(),
        "logits_nomask": model(x["a"][None])[0],
    }

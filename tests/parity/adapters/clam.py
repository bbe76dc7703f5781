"""CLAM, its top-tile baselines and its truncated ResNet."""

from __future__ import annotations

from dataclasses import replace

import torch
from tests.parity.fill import fill_model, inputs_of

from napari_he2st.zoo.encoders.build import network_of, spec_of
from napari_he2st.zoo.slide_level.clam import CLAM


def run(case: dict) -> dict:
    x, config = inputs_of(case), case["config"]
    if "h" not in x:
        network = network_of(replace(spec_of("resnet50-trunc"), name="case")).eval()
        fill_model(network, case)
        return {"feat": network(x["x"])}
    kind = case["class"].split()[0]
    head = {"CLAM_SB": "sb", "CLAM_MB": "mb"}.get(kind, "mil")
    model = CLAM(
        config["n_classes"],
        head=head,
        feature_dim=config["embed_dim"],
        size=config["size_arg"],
        gate=config.get("gate", True),
        dropout=config["dropout"],
        k_sample=config.get("k_sample", 8),
        subtyping=config.get("subtyping", False),
    ).eval()
    fill_model(model, case)
    return _top_tile(model, x["h"]) if head == "mil" else _attention(model, x)


def _top_tile(model: CLAM, h: torch.Tensor) -> dict:
    logits, top, shares, slide = model(h)
    out = {"top_instance": logits, "Y_prob": logits.softmax(dim=1), "Y_hat": top, "y_probs": shares}
    return out | {"features": slide}


def _attention(model: CLAM, x: dict) -> dict:
    logits, attention, slide, h = model(x["h"])
    out = {"logits": logits, "Y_prob": logits.softmax(dim=1), "Y_hat": logits.argmax(dim=1, keepdim=True)}
    out |= {"A_raw": attention, "attention_only": attention, "features": slide}
    if "label" in x:
        found = model._network[0].instances(attention, h, int(x["label"]), model.k_sample, subtyping=model.subtyping)
        out |= dict(zip(("instance_loss", "inst_labels", "inst_preds"), found, strict=True))
    return out

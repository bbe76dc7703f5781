"""pca_ERG's three heads."""

from __future__ import annotations

from tests.parity.fill import fill_model, inputs_of

from napari_he2st.zoo.slide_level.pca_erg import PcaErg


def run(case: dict) -> dict:
    config, kind = case["config"], case["class"]
    deep = any(key.startswith("attention_net.9") for key, _, _ in case["state"])
    head = "sb" if "CLAM_SB" in kind else "mb-deep" if deep else "mb"
    model = PcaErg(
        config["n_classes"],
        head=head,
        feature_dim=case["inputs"]["h"]["shape"][1],
        dropout=0.25 if config.get("dropout", True) else 0.0,
        k_sample=config.get("k_sample", 16),
    ).eval()
    fill_model(model, case)
    logits, attention, _, _ = model(inputs_of(case)["h"])
    out = {"logits": logits, "Y_prob": logits.softmax(dim=1), "Y_hat": logits.argmax(dim=1, keepdim=True)}
    return out | {"A_raw": attention}

"""Receptor status: transformer over a bag, and the CNN below it."""

from __future__ import annotations

from tests.parity.fill import fill_model, inputs_of

from napari_he2st.zoo.slide_level.receptor_mil import PreActResNet, ReceptorMIL


def run(case: dict) -> dict:
    config, x = case["config"], inputs_of(case)["x"]
    if "bag_size" not in config:
        network = PreActResNet(config["num_classes"]).eval()
        fill_model(network, case)
        return dict(zip(("logits", "features"), network(x), strict=True))
    model = ReceptorMIL(
        config["num_classes"],
        feature_dim=config["input_dim"],
        bag_size=config["bag_size"],
        dim=config["dim"],
        depth=config["depth"],
        heads=config["heads"],
        dim_head=config["dim_head"],
        hidden_dim=config["mlp_dim"],
        dropout=config["dropout"],
        token_dropout=config["emb_dropout"],
        layout=config["variant"],
    ).eval()
    fill_model(model, case)
    logits = model(x)
    return {"logits": logits, "prob": logits.softmax(dim=1)}

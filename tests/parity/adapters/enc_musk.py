"""MUSK at any depth."""

from __future__ import annotations

from tests.parity.fill import fill_model, inputs_of

from napari_he2st.zoo.encoders.musk import Musk


def run(case: dict) -> dict:
    config = case["config"]
    network = Musk(
        px=config["img_size"],
        dim=config["embed"],
        depth=config["encoder_layers"],
        heads=config["heads"],
        vocabulary=config["vocab"],
    ).eval()
    fill_model(network, case)
    x = inputs_of(case)["x"]
    cls = network(x)
    return {"cls": cls, "head": network.project(cls), "ms_aug": network.two_scales(x)}

"""CONCH v1.5's image tower at any depth."""

from __future__ import annotations

from tests.parity.fill import fill_model, inputs_of

from napari_he2st.zoo.encoders.conch import Conch15


def run(case: dict) -> dict:
    config = case["config"]
    network = Conch15(depth=config["depth"], init_values=config["init_values"]).eval()
    fill_model(network, case)
    return {"feat": network(inputs_of(case)["x"])}

"""REMEDIS at any depth and width."""

from __future__ import annotations

from tests.parity.fill import fill_model, inputs_of

from napari_he2st.zoo.encoders.remedis import Remedis


def run(case: dict) -> dict:
    config = case["config"]
    network = Remedis(units=tuple(config["block_units"]), width=config["width_factor"]).eval()
    fill_model(network, case)
    return {"feat": network(inputs_of(case)["x"])}

"""CTransPath."""

from __future__ import annotations

from tests.parity.fill import fill_model, inputs_of

from napari_he2st.zoo.encoders.ctranspath import CTransPath


def run(case: dict) -> dict:
    network = CTransPath(px=case["config"].get("img_size", 224)).eval()
    fill_model(network, case)
    return {"feat": network(inputs_of(case)["x"])}

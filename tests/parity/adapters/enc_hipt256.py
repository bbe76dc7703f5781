"""HIPT's transformer of 256-pixel patches."""

from __future__ import annotations

from tests.parity.fill import fill_model, inputs_of

from napari_he2st.zoo.blocks.hipt import ViT256


def run(case: dict) -> dict:
    model = ViT256().eval()
    fill_model(model, case)
    return {"feat": model(inputs_of(case)["x"])}

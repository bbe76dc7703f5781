"""HIPT's transformer of regions of 4,096 pixels."""

from __future__ import annotations

from tests.parity.fill import fill_model, inputs_of

from napari_he2st.zoo.blocks.hipt import ViT4K


def run(case: dict) -> dict:
    model = ViT4K().eval()
    fill_model(model, case)
    return {"feat": model(inputs_of(case)["x"])}

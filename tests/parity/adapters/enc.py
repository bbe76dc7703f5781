"""Encoders that timm or torchvision build, with the arguments of the case."""

from __future__ import annotations

import re
from dataclasses import replace

from tests.parity.fill import corner, fill_model, inputs_of

from napari_he2st.zoo.encoders.build import TokenFeature, create_timm, network_of, spec_of


def run(case: dict) -> dict:
    found = re.search(r"create_model\('(\w+)'", case["class"])
    return _tokens(case, found[1]) if found else _resnet(case)


def _tokens(case: dict, architecture: str) -> dict:
    layers = ("mlp_layer", "act_layer")
    arguments = {key: value.split()[0] if key in layers else value for key, value in case["config"].items()}
    network = create_timm(architecture, arguments).eval()
    fill_model(network, case)
    x = inputs_of(case)["x"]
    out = {
        "cls": TokenFeature(network)(x),
        "cls_mean": TokenFeature(network, with_mean=True)(x),
        "out": network(x).flatten(1)[:, :1536],
    }
    return {name: corner(out[name], like) for name, like in case["outputs"].items()}


def _resnet(case: dict) -> dict:
    """A ResNet-50 with torchvision's keys, without its last layer (RetCCL)."""
    network = network_of(replace(spec_of("retccl"), name="case")).eval()
    fill_model(network, case)
    feature = network(inputs_of(case)["x"])
    return {name: corner(feature, like) for name, like in case["outputs"].items()}

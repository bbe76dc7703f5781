"""The table of encoders, read without importing torch."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Literal

from napari_he2st.core.errors import ModelError
from napari_he2st.zoo.fields import read_fields
from napari_he2st.zoo.weights import WeightSource, downloaded_by_torch, present_weights

_TABLE = Path(__file__).with_name("encoders.toml")


@dataclass(frozen=True, kw_only=True)
class EncoderSpec:
    """The facts about an encoder.

    Attributes
    ----------
    name, title
        What users type, and what they read.
    builder
        Key of :data:`napari_he2st.zoo.encoders.build.BUILDERS`.
    architecture, arguments
        What the builder makes, such as a timm model's name, and what it is called with.
    parameters_m
        Millions of parameters of the network that is loaded.
    px, mpp
        Width of the network's input in pixels, and the pixel size (µm) of the tiles it was trained on.
    resize_px
        Tiles are resized to this width and the middle ``px`` of it are taken; 0 for ``px`` itself.
    resize
        Interpolation of that, always antialiased.
    mean, std
        Per channel, of values in [0, 1].
    dim
        Length of a feature.
    stages, parts
        Blocks of the network whose maps are averaged, and the length of what each gives; empty for the
        network's own pooled feature.
    cut
        Layers of a torchvision network that are left away, so that it ends with the feature.
    feature
        Of a timm network: what it pools itself, its class token, its class token beside the mean of the patch
        tokens, or its output.
    licence, commercial_use, gated
        Of the weights.
    match
        How entries of the weight file find their place: by their key, by their position, or after a
        conversion (see :mod:`napari_he2st.zoo.encoders.keys`).
    inside, prefix, left_out
        Entry of the file that holds the state dict; beginning of the keys that belong to the network, which
        is cut off; patterns of the keys that it does without.
    weights
        Where the published file lies; None for one that only the user can bring, or that is not needed.
    note
        What a user should know about its weights.
    half
        Half precision in which its features stay the same to about 1 %, used on graphics cards; empty for float32.
    """

    name: str
    title: str
    builder: str
    px: int
    resize: Literal["bilinear", "bicubic"]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    dim: int
    licence: str
    commercial_use: Literal["yes", "no", "unclear"]
    architecture: str = ""
    arguments: Mapping[str, Any] = field(default_factory=dict, hash=False)
    parameters_m: float = 0.0
    mpp: float = 0.5
    resize_px: int = 0
    cut: tuple[str, ...] = ()
    feature: Literal["pooled", "cls", "cls_mean", "projected"] = "pooled"
    stages: tuple[int, ...] = ()
    parts: tuple[int, ...] = ()
    gated: bool = False
    match: Literal["key", "position", "transformers", "transformers-clip", "open-clip", "dino"] = "key"
    inside: str = ""
    prefix: str = ""
    left_out: tuple[str, ...] = ()
    weights: WeightSource | None = None
    note: str = ""
    half: Literal["", "float16", "bfloat16"] = ""


@cache
def encoders() -> dict[str, EncoderSpec]:
    """Every encoder of the table, by name."""
    rows = tomllib.loads(_TABLE.read_text(encoding="utf-8"))
    return {
        name: read_fields(EncoderSpec, {"name": name, **row}, where=_TABLE, error=ModelError)
        for name, row in rows.items()
    }


def present_file(spec: EncoderSpec) -> Path | None:
    """The weight file of an encoder if it is on this machine; nothing is downloaded or checked."""
    found = present_weights(spec.name, spec.weights)
    if found is None and spec.builder == "torchvision" and spec.weights is None and not spec.note:
        found = present_weights(f"torchvision:{spec.architecture}", None) or downloaded_by_torch(spec.architecture)
    return found

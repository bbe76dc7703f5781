"""The table of encoders, read without importing torch."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

from napari_he2st.core.errors import ModelError
from napari_he2st.zoo.fields import read_fields
from napari_he2st.zoo.weights import WeightSource

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
    architecture
        What the builder makes, such as a timm model's name.
    px
        Width of the network's input in pixels; tiles of another width are resized to it.
    resize
        Interpolation of that, always antialiased.
    mean, std
        Per channel, of values in [0, 1].
    dim
        Length of a feature.
    stages, parts
        Blocks of the network whose maps are averaged, and the length of what each gives; empty for the
        network's own pooled feature.
    licence, commercial_use, gated
        Of the weights.
    match
        How entries of the weight file find their place: by their key, or by their position.
    weights
        Where the published file lies; None for an encoder without one.
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
    stages: tuple[int, ...] = ()
    parts: tuple[int, ...] = ()
    gated: bool = False
    match: Literal["key", "position"] = "key"
    weights: WeightSource | None = None


@cache
def encoders() -> dict[str, EncoderSpec]:
    """Every encoder of the table, by name."""
    rows = tomllib.loads(_TABLE.read_text(encoding="utf-8"))
    return {
        name: read_fields(EncoderSpec, {"name": name, **row}, where=_TABLE, error=ModelError)
        for name, row in rows.items()
    }

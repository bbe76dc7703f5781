"""Building encoders: tiles in, features out."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from napari_he2st.core.errors import ModelError, WeightsError
from napari_he2st.core.registry import unknown_name
from napari_he2st.zoo.blocks.hipt import HIPT, ViT256
from napari_he2st.zoo.encoders.colour import ColourTexture
from napari_he2st.zoo.encoders.fuse import fuse_conv_bn
from napari_he2st.zoo.encoders.table import EncoderSpec, encoders
from napari_he2st.zoo.guard import safe_import
from napari_he2st.zoo.weights import check_state, find_weights, load_checkpoint, shapes_of

_TIMM = "timm:"
_RANDOM = "?pretrained=no"


class Encoder(nn.Module):
    """A network with the preprocessing it was trained with.

    Attributes
    ----------
    spec
        Its row of the table.
    network
        Normalised tiles (n, 3, px, px) → features (n, dim).
    """

    mean: Tensor
    std: Tensor

    def __init__(self, spec: EncoderSpec, network: nn.Module) -> None:
        super().__init__()
        self.spec, self.network = spec, network
        self.register_buffer("mean", torch.tensor(spec.mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(spec.std).view(1, 3, 1, 1), persistent=False)

    def normalise(self, tiles: Tensor) -> Tensor:
        """Tiles as the network wants them.

        Parameters
        ----------
        tiles
            RGB, shape (n, 3, height, width): uint8, or floats in [0, 1].
        """
        x = tiles.to(self.mean.dtype).div(255) if tiles.dtype == torch.uint8 else tiles.to(self.mean.dtype)
        px = self.spec.px
        if x.shape[-2:] != (px, px):
            x = F.interpolate(x, (px, px), mode=self.spec.resize, antialias=True, align_corners=False).clamp(0, 1)
        return (x - self.mean) / self.std

    def forward(self, tiles: Tensor) -> Tensor:
        """Features, float32 of shape (n, dim), of tiles (see :meth:`normalise`)."""
        return self.network(self.normalise(tiles))


def build(name: str) -> Encoder:
    """Build an encoder with its weights, ready for inference.

    Parameters
    ----------
    name
        A row of the table, or ``"timm:NAME"`` for a timm model whose weight file the user names (see
        :func:`~napari_he2st.zoo.weights.overrides`), or ``"timm:NAME?pretrained=no"`` for one with random
        weights that are always the same.

    Raises
    ------
    UnknownNameError
        There is no such encoder.
    WeightsError, MissingExtraError
        Its weights cannot be found or do not fit.
    """
    spec = spec_of(name)
    encoder = Encoder(spec, BUILDERS[spec.builder](spec))
    return encoder.eval().requires_grad_(False)


def spec_of(name: str) -> EncoderSpec:
    """The facts about an encoder, also about any timm model; builds no weights."""
    if name.startswith(_TIMM):
        return _timm_spec(name)
    known = encoders()
    if name not in known:
        raise unknown_name("encoder", name, [*known, f"{_TIMM}NAME"])
    return known[name]


@cache
def _timm_spec(name: str) -> EncoderSpec:
    timm = safe_import("timm")
    architecture = name.removeprefix(_TIMM).removesuffix(_RANDOM)
    if not timm.is_model(architecture):
        raise unknown_name("timm model", architecture, timm.list_models())
    with torch.device("meta"):
        network = timm.create_model(architecture, pretrained=False, num_classes=0)
    facts = network.pretrained_cfg
    return EncoderSpec(
        name=name,
        title=f"timm {architecture}",
        builder="timm",
        architecture=architecture,
        px=facts["input_size"][-1],
        resize="bilinear" if facts["interpolation"] == "bilinear" else "bicubic",
        mean=tuple(facts["mean"]),
        std=tuple(facts["std"]),
        dim=network.head_hidden_size,
        licence="",
        commercial_use="unclear",
    )


def timm_network(spec: EncoderSpec) -> nn.Module:
    """The timm network of a row with its weights and its classifier, for inference."""
    timm = safe_import("timm")
    if spec.name.endswith(_RANDOM):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return timm.create_model(spec.architecture, pretrained=False).eval()
    path = find_weights(spec.name, spec.weights)
    network = timm.create_model(spec.architecture, pretrained=False)
    fill_network(network, load_checkpoint(path), spec.match, path)
    return network.eval()


def fill_network(network: nn.Module, entries: dict[str, Any], match: str, path: Path) -> None:
    """Load the entries of a weight file, by key or by position; every shape has to fit.

    Raises
    ------
    WeightsError
        Names what is missing, left over or of another shape.
    """
    wanted = shapes_of(network)
    other = [key for key, entry in entries.items() if not isinstance(entry, Tensor)]
    if other:
        todo = "Save the state dict alone: torch.save(model.state_dict(), FILE)"
        raise WeightsError(f"The weight file holds what is not a tensor: {', '.join(other[:5])}", where=path, todo=todo)
    if match == "position" and len(entries) == len(wanted):
        entries = dict(zip(wanted, entries.values(), strict=True))
    check_state({key: tuple(entry.shape) for key, entry in entries.items()}, wanted, path)
    network.load_state_dict(entries)


class _Stages(nn.Module):
    """The first blocks of a timm network of the EfficientNet family, with the mean of some of their maps."""

    def __init__(self, network: nn.Module, stages: tuple[int, ...]) -> None:
        super().__init__()
        self.stem = nn.Sequential(network.conv_stem, network.bn1)
        self.blocks = nn.ModuleList(network.blocks[: max(stages) + 1])
        self.stages = stages

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        maps = []
        for number, block in enumerate(self.blocks):
            x = block(x)
            if number in self.stages:
                maps.append(x.mean((2, 3)))
        return torch.cat(maps, dim=1)


class _Pooled(nn.Module):
    """A timm network up to its pooled feature."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        return self.network.forward_head(self.network.forward_features(x), pre_logits=True)


def _timm(spec: EncoderSpec) -> nn.Module:
    network = timm_network(spec)
    network.reset_classifier(0)
    example = torch.randn(1, 3, spec.px, spec.px, generator=torch.Generator().manual_seed(0))
    pooled = fuse_conv_bn(_Stages(network, spec.stages) if spec.stages else _Pooled(network), example)
    with torch.inference_mode():
        dim = pooled(example).shape[-1]
    if dim != spec.dim:
        raise ModelError(f"The encoder gives {dim} numbers per tile, not {spec.dim}", where=spec.name)
    return pooled


def hipt_network() -> HIPT:
    """Both transformers of HIPT, with the user's weight files of ``hipt256`` and ``hipt4k``."""
    network = HIPT()
    _fill_hipt("hipt256", network.model256)
    _fill_hipt("hipt4k", network.model4k)
    return network.eval()


def _hipt256(spec: EncoderSpec) -> nn.Module:
    network = ViT256()
    _fill_hipt(spec.name, network)
    return network


def _fill_hipt(name: str, network: nn.Module) -> None:
    """Fill from a checkpoint as published: the teacher, with prefixes and a head that only training needs."""
    path = find_weights(name, None)
    entries = load_checkpoint(path)
    entries = entries.get("teacher", entries)
    entries = {key.removeprefix("module.").removeprefix("backbone."): value for key, value in entries.items()}
    fill_network(network, {k: v for k, v in entries.items() if not k.startswith("head.")}, "key", path)


BUILDERS: dict[str, Callable[[EncoderSpec], nn.Module]] = {
    "timm": _timm,
    "colour-texture": lambda _: ColourTexture(),
    "hipt256": _hipt256,
    "hipt4k": lambda _: hipt_network(),
}
"""Builder → function of the spec that makes the network."""

"""Building encoders: tiles in, features out."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping
from functools import cache, cached_property
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from napari_he2st.core.errors import ModelError, WeightsError
from napari_he2st.core.registry import unknown_name
from napari_he2st.zoo.blocks.hipt import HIPT
from napari_he2st.zoo.blocks.trunks import imagenet_entries, torchvision_network
from napari_he2st.zoo.encoders.colour import ColourTexture
from napari_he2st.zoo.encoders.fuse import fuse_conv_bn
from napari_he2st.zoo.encoders.keys import CONVERSIONS
from napari_he2st.zoo.encoders.table import EncoderSpec, encoders
from napari_he2st.zoo.guard import safe_import
from napari_he2st.zoo.weights import check_state, find_weights, load_checkpoint, overrides, shapes_of

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

    @cached_property
    def sha256(self) -> str:
        """Hash of its weights, by which features of other weights are told apart."""
        digest = hashlib.sha256()
        for key, value in self.network.state_dict().items():
            digest.update(key.encode())
            digest.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
        return digest.hexdigest()

    def normalise(self, tiles: Tensor) -> Tensor:
        """Tiles as the network wants them.

        Parameters
        ----------
        tiles
            RGB, shape (n, 3, height, width): uint8, or floats in [0, 1].
        """
        x = tiles.to(self.mean.dtype).div(255) if tiles.dtype == torch.uint8 else tiles.to(self.mean.dtype)
        px = self.spec.resize_px or self.spec.px
        if x.shape[-2:] != (px, px):
            x = F.interpolate(x, (px, px), mode=self.spec.resize, antialias=True, align_corners=False).clamp(0, 1)
        if px != self.spec.px:
            edge = (px - self.spec.px) // 2
            x = x[..., edge : edge + self.spec.px, edge : edge + self.spec.px]
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
    module = _feature(spec, published_network(spec))
    if _convolutional(module):
        example = torch.randn(1, 3, spec.px, spec.px, generator=torch.Generator().manual_seed(0))
        module = fuse_conv_bn(module.eval(), example)
    encoder = Encoder(spec, module).eval().requires_grad_(False)
    with torch.inference_mode():
        dim = encoder(torch.zeros(1, 3, spec.px, spec.px)).shape[-1]
    if dim != spec.dim:
        raise ModelError(f"The encoder gives {dim} numbers per tile, not {spec.dim}", where=spec.name)
    return encoder


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


def network_of(spec: EncoderSpec) -> nn.Module:
    """The published network of a row with random weights, its state-dict keys those of the published file."""
    return BUILDERS[spec.builder](spec)


def create_timm(architecture: str, arguments: Mapping[str, Any]) -> nn.Module:
    """A timm network with random weights; layers among the arguments are given by their names."""
    layers = safe_import("timm.layers")
    named = {"SwiGLUPacked": layers.SwiGLUPacked, "SiLU": nn.SiLU, "QuickGELU": layers.QuickGELU}
    given = {key: named.get(value, value) if isinstance(value, str) else value for key, value in arguments.items()}
    return safe_import("timm").create_model(architecture, pretrained=False, **given)


def published_network(spec: EncoderSpec) -> nn.Module:
    """The network of a row with its weights, ready for inference.

    Raises
    ------
    WeightsError, MissingExtraError
        The weights cannot be found or do not fit.
    """
    if spec.name.endswith(_RANDOM):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return network_of(spec).eval()
    network = network_of(spec)
    if spec.builder == "colour-texture":
        return network.eval()
    if spec.builder == "hipt4k":
        return hipt_network(spec.name)
    if spec.builder == "torchvision" and spec.weights is None and spec.name not in overrides():
        entries, path = imagenet_entries(spec.architecture), Path(f"torchvision:{spec.architecture}")
    else:
        path = find_weights(spec.name, spec.weights)
        entries = load_checkpoint(path)
    fill_network(network, _own_entries(spec, entries, path), spec.match, path)
    return network.eval()


def hipt_network(name: str = "hipt4k") -> HIPT:
    """Both transformers of HIPT, with the user's weight files of one row of the table and of that of its patches."""
    network = HIPT(**spec_of(name).arguments)
    for row, part in ((patches_below(name), network.model256), (name, network.model4k)):
        spec, path = spec_of(row), find_weights(row, None)
        fill_network(part, _own_entries(spec, load_checkpoint(path), path), spec.match, path)
    return network.eval()


def patches_below(name: str) -> str:
    """The row of the patches' transformer that a transformer of regions stands on."""
    return name.replace("4k", "256")


def _own_entries(spec: EncoderSpec, entries: dict[str, Any], path: Path) -> dict[str, Any]:
    """The entries of a published file that belong to the network."""
    if spec.inside and spec.inside in entries:
        entries = entries[spec.inside]
        if not isinstance(entries, dict):
            raise WeightsError(f"{spec.inside!r} of the checkpoint is no state dict", where=path)
    own = [key for key in entries if key.startswith(spec.prefix)]
    if own:
        entries = {key.removeprefix(spec.prefix): entries[key] for key in own}
    left_out = [*spec.left_out, *(rf"{re.escape(layer)}\..*" for layer in spec.cut)]
    entries = {key: entry for key, entry in entries.items() if not any(re.fullmatch(rule, key) for rule in left_out)}
    return CONVERSIONS[spec.match](entries) if spec.match in CONVERSIONS else entries


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
    found = {key: tuple(entry.shape) for key, entry in entries.items()}
    # Masks follow from the size of the tile; published files do without them.
    constant = [key for key in wanted if key.endswith("attn_mask")]
    check_state(found, {key: shape for key, shape in wanted.items() if key in found or key not in constant}, path)
    network.load_state_dict(entries, strict=False)


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


class TokenFeature(nn.Module):
    """A timm vision transformer up to its class token.

    Parameters
    ----------
    network
        Its class token comes first, then registers, then patches.
    with_mean
        Put the mean of the patch tokens beside it.
    """

    def __init__(self, network: nn.Module, *, with_mean: bool = False) -> None:
        super().__init__()
        self.network, self.with_mean = network, with_mean

    def forward(self, x: Tensor) -> Tensor:
        """Features, float32 (n, dim) or (n, 2 · dim), of normalised tiles."""
        tokens = self.network.forward_features(x)
        cls = tokens[:, 0]
        if not self.with_mean:
            return cls
        return torch.cat([cls, tokens[:, self.network.num_prefix_tokens :].mean(dim=1)], dim=-1)


def _feature(spec: EncoderSpec, network: nn.Module) -> nn.Module:
    """A network up to its feature."""
    if spec.builder != "timm":
        return network
    if spec.feature == "projected":
        return network
    if spec.feature != "pooled":
        return TokenFeature(network, with_mean=spec.feature == "cls_mean")
    network.reset_classifier(0)
    return _Stages(network, spec.stages) if spec.stages else _Pooled(network)


def _convolutional(module: nn.Module) -> bool:
    return any(isinstance(part, nn.BatchNorm2d) for part in module.modules())


def _torchvision(spec: EncoderSpec) -> nn.Module:
    network = torchvision_network(spec.architecture, 1000)
    for layer in spec.cut:
        parent, _, name = layer.rpartition(".")
        setattr(network.get_submodule(parent), name, nn.Identity())
    if hasattr(network, "AuxLogits"):
        network.AuxLogits = None
    return network


def _own(spec: EncoderSpec) -> nn.Module:
    """A network written here, ``module:class`` of the zoo."""
    module, _, name = spec.architecture.partition(":")
    return getattr(import_module(f"napari_he2st.zoo.{module}"), name)(**spec.arguments)


BUILDERS: dict[str, Callable[[EncoderSpec], nn.Module]] = {
    "timm": lambda spec: create_timm(spec.architecture, spec.arguments),
    "torchvision": _torchvision,
    "own": _own,
    "hipt4k": lambda spec: HIPT(**spec.arguments),
    "colour-texture": lambda _: ColourTexture(),
}
"""Builder → function of the spec that makes the published network with random weights."""

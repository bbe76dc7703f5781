"""Dense encoders: an image in, a feature for each of its cells, of 16 pixels unless said otherwise, out.

``hipt``
    Both transformers of HIPT as iStar reads them: 192 numbers for the surroundings of a cell, 384 for the cell,
    each averaged over 16 shifts of the image and smoothed, and its mean colour.
``hipt-unshifted``
    The same without the shifts, at a sixteenth of the time.
``hipt-small``
    The same with the small transformers that ``he2st train-encoder`` trains on the user's slides: 48 and 96 numbers.
``efficientnet-lite0``
    ImageNet weights that come with the package: maps after stages 3 and 5 of each cell, their mean over the 16 × 16
    cells around it, and its mean colour.
``colour``
    Mean and standard deviation of R, G and B in each cell, and the mean of these over the cells around it.
``tokens:NAME``
    Patch tokens of a vision transformer among the encoders, which sees one of its own tiles at a time; cells are
    its patches.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from napari_he2st.core.errors import ModelError
from napari_he2st.core.registry import unknown_name
from napari_he2st.zoo.blocks.hipt import CELL_PX, HIPT, PATCH_PX
from napari_he2st.zoo.blocks.rasters import box_mean, shifted_mean
from napari_he2st.zoo.encoders.build import hipt_network, network_of, published_network, spec_of
from napari_he2st.zoo.encoders.fuse import fuse_conv_bn

_AROUND = 16
"""Cells on a side of the surroundings over which a feature is averaged."""
_SUB = 4
_SHIFTED = PATCH_PX // CELL_PX
_STAGES = {2: 2, 4: 1}
"""Blocks of EfficientNet whose maps are read, and how many of their cells make one of 16 pixels."""


@dataclass(frozen=True)
class DenseSpec:
    """The facts about a dense encoder.

    Attributes
    ----------
    name
        What users type.
    dim
        Length of a feature.
    margin
        Cells around an image that its features depend on.
    cell_px
        Width of a cell.
    tile_px
        Width of the tiles that are seen one at a time, or None where cells see what is around them.
    """

    name: str
    dim: int
    margin: int
    cell_px: int = CELL_PX
    tile_px: int | None = None


class DenseEncoder(nn.Module):
    """A network over an image.

    Attributes
    ----------
    spec
        Its facts.
    network
        (3, height, width), floats in [0, 1], to (dim, rows, columns) of cells.
    """

    def __init__(self, spec: DenseSpec, network: nn.Module) -> None:
        super().__init__()
        self.spec, self.network = spec, network

    def forward(self, image: Tensor) -> Tensor:
        """Features (dim, rows, columns) of the cells of an image, uint8 (3, height, width), sides whole cells."""
        return self.network(image.float() / 255)


class HiptMaps(nn.Module):
    """HIPT's features of cells, smoothed, as in iStar: 192 of the surroundings, 384 of the cell, its mean colour.

    Parameters
    ----------
    hipt
        The network.
    shifts
        Average over 4 × 4 shifts of the image.
    """

    def __init__(self, hipt: HIPT, *, shifts: bool) -> None:
        super().__init__()
        self.hipt, self.shifts = hipt, shifts
        self.region_dim = hipt.model4k.norm.weight.numel()

    def maps(self, image: Tensor) -> Tensor:
        """Unsmoothed features, (dim, height / 16, width / 16), of one image; padded where it ends in a patch."""
        height, width = image.shape[-2:]
        padded = F.pad(image[None], (0, -width % PATCH_PX, 0, -height % PATCH_PX), mode="replicate")
        classes, cells = self.hipt.patches((padded - 0.5) / 0.5)
        _, region = self.hipt.region(classes)
        times = PATCH_PX // CELL_PX
        around = region[0].repeat_interleave(times, -2).repeat_interleave(times, -1)
        own = cells.transpose(2, 3).flatten(3).flatten(1, 2)
        return torch.cat([around, own])[:, : height // CELL_PX, : width // CELL_PX]

    def forward(self, image: Tensor) -> Tensor:
        """Smoothed features, (dim, height / 16, width / 16), of an image in [0, 1]."""
        maps = shifted_mean(self.maps, image) if self.shifts else self.maps(image)
        around, own = maps[: self.region_dim], maps[self.region_dim :]
        return torch.cat([box_mean(around, _AROUND), box_mean(own, _SUB), F.avg_pool2d(image, CELL_PX)])


class _EfficientNetMaps(nn.Module):
    """Maps of two stages, and their mean over the cells around."""

    def __init__(self) -> None:
        super().__init__()
        network = published_network(spec_of("efficientnet-lite0"))
        stages = _Stages(network.conv_stem, network.bn1, network.blocks)
        self.stages = fuse_conv_bn(stages, torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0)))

    def forward(self, image: Tensor) -> Tensor:
        own = self.stages((image[None] - 0.5) / 0.5)[0]
        return torch.cat([own, box_mean(own, _AROUND), F.avg_pool2d(image, CELL_PX)])


class _Stages(nn.Module):
    def __init__(self, stem: nn.Module, norm: nn.Module, blocks: nn.Sequential) -> None:
        super().__init__()
        self.stem, self.norm, self.blocks = stem, norm, blocks[: max(_STAGES) + 1]

    def forward(self, images: Tensor) -> Tensor:
        x, maps = self.norm(self.stem(images)), []
        for number, block in enumerate(self.blocks):
            x = block(x)
            if number in _STAGES:
                maps.append(F.avg_pool2d(x, _STAGES[number]))
        return torch.cat(maps, dim=1)


class _ColourMaps(nn.Module):
    def forward(self, image: Tensor) -> Tensor:
        mean = F.avg_pool2d(image, CELL_PX)
        std = (F.avg_pool2d(image.square(), CELL_PX) - mean.square()).clamp(min=0).sqrt()
        own = torch.cat([mean, std])
        return torch.cat([own, box_mean(own, _AROUND)])


class _Tokens(nn.Module):
    """Patch tokens of a vision transformer, tile by tile."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.spec = spec_of(name)
        self.network = published_network(self.spec)

    def forward(self, image: Tensor) -> Tensor:
        px, cell = self.spec.px, self.network.patch_embed.patch_size[0]
        height, width = image.shape[-2:]
        padded = F.pad(image[None], (0, -width % px, 0, -height % px), mode="replicate")
        tiles = F.unfold(padded, px, stride=px)[0].T.unflatten(1, (3, px, px))
        mean, std = (tiles.new_tensor(values).view(3, 1, 1) for values in (self.spec.mean, self.spec.std))
        parts = [self.network.forward_features((some - mean) / std) for some in tiles.split(_TILES)]
        tokens = torch.cat(parts)[:, self.network.num_prefix_tokens :]
        side, columns = px // cell, -(-width // px)
        maps = tokens.unflatten(1, (side, side)).unflatten(0, (-1, columns))  # tile rows, columns, rows, columns, dim
        whole = maps.permute(4, 0, 2, 1, 3).flatten(3, 4).flatten(1, 2)
        return whole[:, : height // cell, : width // cell]


_TILES = 16
_TOKENS = "tokens:"
_BUILDERS: dict[str, tuple[DenseSpec, Callable[[], nn.Module]]] = {
    spec.name: (spec, make)
    for spec, make in (
        (
            DenseSpec("hipt", 579, _SHIFTED + _AROUND // 2),
            lambda: HiptMaps(hipt_network(), shifts=True),
        ),
        (DenseSpec("hipt-unshifted", 579, _AROUND // 2), lambda: HiptMaps(hipt_network(), shifts=False)),
        (DenseSpec("hipt-small", 147, _AROUND // 2), lambda: HiptMaps(hipt_network("hipt4k-small"), shifts=False)),
        (DenseSpec("efficientnet-lite0", 307, _AROUND), _EfficientNetMaps),
        (DenseSpec("colour", 12, _AROUND // 2), _ColourMaps),
    )
}


def dense_spec(name: str) -> DenseSpec:
    """The facts about a dense encoder; builds no weights."""
    if name.startswith(_TOKENS):
        return _token_spec(name)
    if name not in _BUILDERS:
        raise unknown_name("dense encoder", name, [*_BUILDERS, f"{_TOKENS}NAME"])
    return _BUILDERS[name][0]


def _token_spec(name: str) -> DenseSpec:
    """Read off the transformer's architecture.

    Raises
    ------
    ModelError
        The encoder has no patch tokens.
    """
    spec = spec_of(name.removeprefix(_TOKENS))
    with torch.device("meta"):
        network: Any = network_of(spec)
    if not hasattr(network, "num_prefix_tokens"):
        raise ModelError("This encoder is no vision transformer of timm", where=spec.name)
    cell_px = network.patch_embed.patch_size[0]
    return DenseSpec(name, network.embed_dim, spec.px // cell_px, cell_px, spec.px)


@lru_cache(maxsize=2)
def dense_encoder(name: str, device: torch.device) -> DenseEncoder:
    """A dense encoder with its weights, ready for inference on a device; the last two stay loaded.

    Raises
    ------
    UnknownNameError
        There is no such encoder.
    WeightsError
        Its weights cannot be found or do not fit.
    """
    spec = dense_spec(name)
    network = _Tokens(name.removeprefix(_TOKENS)) if name.startswith(_TOKENS) else _BUILDERS[name][1]()
    return DenseEncoder(spec, network).to(device).eval().requires_grad_(False)

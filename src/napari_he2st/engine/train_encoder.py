"""Training small encoders on the images alone of the user's own slides: both transformers of HIPT, by DINO."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from napari_he2st.core.errors import ModelError
from napari_he2st.core.progress import Control
from napari_he2st.core.registry import unknown_name
from napari_he2st.data.slides import Slide
from napari_he2st.engine.device import choose_device
from napari_he2st.engine.features import encode, encoder_on, tissue_sample
from napari_he2st.zoo.blocks.augment import stain_jitter
from napari_he2st.zoo.blocks.dino import Dino, dino_views
from napari_he2st.zoo.blocks.hipt import HIPT, PATCH_PX
from napari_he2st.zoo.encoders.build import network_of, patches_below, spec_of
from napari_he2st.zoo.recipe import Recipe, descend, make_optimizer, make_schedule

TRAINABLE = ["hipt256-small", "hipt4k-small"]
RECIPE = Recipe("adamw", lr=5e-4, weight_decay=0.04, epochs=20, batch_size=32, clip=3.0)
_MAX_TILES = 20_000
"""Tiles that are kept in memory, 200 kB each."""
_PATCHES = 16
"""Patches on a side of a region."""
_MOMENTUM = 0.99
_LEAST_SPREAD = 1e-6


@dataclass(frozen=True)
class TrainedEncoder:
    """What training gives.

    Attributes
    ----------
    state
        The network's state dict, as its row of the table loads it.
    losses
        Mean loss of each epoch.
    """

    state: dict[str, Tensor]
    losses: tuple[float, ...]


def train_encoder(
    name: str,
    slides: Sequence[Slide],
    *,
    tiles: int = 2000,
    epochs: int = RECIPE.epochs,
    seed: int = 0,
    device: str = "auto",
    control: Control | None = None,
) -> TrainedEncoder:
    """Train a small transformer of HIPT by self-distillation (DINO), at 0.5 µm per pixel.

    Parameters
    ----------
    name
        ``"hipt256-small"``, or ``"hipt4k-small"``, which stands on the features of the other.
    slides
        Their tissue is learned, in equal parts.
    tiles
        Tiles of 128 µm to read in all; 256 of them make a region.
    epochs
        Times that all of them are seen.
    seed, device, control
        As for :func:`~napari_he2st.engine.train.train`.

    Raises
    ------
    UnknownNameError
        This encoder cannot be trained here.
    ModelError
        There is too little tissue, or what was learned tells nothing apart.
    WeightsError
        The transformer of patches below is not in the list of weight files.
    """
    if name not in TRAINABLE:
        raise unknown_name("encoder to train", name, TRAINABLE)
    if not 1 <= tiles <= _MAX_TILES:
        raise ModelError(f"{tiles:,} tiles cannot be kept in memory", todo=f"Take 1 to {_MAX_TILES:,}")
    control, where, spec = control or Control(), choose_device(device), spec_of(name)
    torch.manual_seed(seed)
    network = network_of(spec)
    control.start(len(slides), "Reading slides")
    if isinstance(network, HIPT):
        per_slide = max(1, tiles // len(slides) // _PATCHES**2)
        parts = [_regions(slide, per_slide, patches_below(name), where, control) for slide in slides]
        return _distil(network.model4k, torch.cat(parts), _map_views, spec.dim, epochs, seed, where, control)
    parts = [_tiles(slide, max(1, tiles // len(slides)), spec.mpp, control) for slide in slides]
    return _distil(network, torch.cat(parts), _image_views, spec.dim, epochs, seed, where, control)


def _tiles(slide: Slide, n: int, mpp: float, control: Control) -> Tensor:
    """Readable tiles of a slide's tissue, uint8 (n, 3, 256, 256)."""
    found = list(_read(slide, tissue_sample(slide, n), mpp))
    control.advance()
    return torch.cat([tiles[ok] for tiles, ok in found])


def _read(slide: Slide, centres: NDArray[np.float64], mpp: float) -> Iterator[tuple[Tensor, Tensor]]:
    for batch in slide.read_tiles(centres, PATCH_PX, mpp, batch_size=32):
        yield torch.from_numpy(batch.tiles.copy()).permute(0, 3, 1, 2), torch.from_numpy(batch.ok.copy())


def _regions(slide: Slide, n: int, below: str, device: torch.device, control: Control) -> Tensor:
    """Features of regions of 16 × 16 patches around points of the tissue, float32 (n, dim, 16, 16)."""
    encoder = encoder_on(below, device)
    step = PATCH_PX * encoder.spec.mpp / slide.mpp
    around = (np.stack(np.meshgrid(*[np.arange(_PATCHES)] * 2), axis=-1).reshape(-1, 2) - (_PATCHES - 1) / 2) * step
    regions = []
    for centre in tissue_sample(slide, n):
        parts = [encode(encoder, tiles.to(device)) for tiles, _ in _read(slide, centre + around, encoder.spec.mpp)]
        regions.append(torch.cat(parts).T.unflatten(1, (_PATCHES, _PATCHES)).cpu())
        control.checkpoint()
    control.advance()
    return torch.stack(regions)


Views = Callable[[Tensor], tuple[list[Tensor], list[Tensor]]]


def _image_views(tiles: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    wide, narrow = (
        [(stain_jitter(view) - 0.5) / 0.5 for view in side]
        for side in dino_views(tiles.float() / 255, 224, 96, zoom=True)
    )
    return wide, narrow


def _map_views(maps: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    return dino_views(maps, 14, 6, zoom=False)


def _distil(
    network: nn.Module,
    images: Tensor,
    views: Views,
    dim: int,
    epochs: int,
    seed: int,
    device: torch.device,
    control: Control,
) -> TrainedEncoder:
    """Train by DINO; the teacher is kept."""
    batch_size = min(RECIPE.batch_size, len(images) // 2)
    if batch_size < 2:
        raise ModelError(f"{len(images)} images are too few to learn from", todo="Add slides, or read more tiles")
    model = Dino(network, dim).to(device).train()
    optimizer = make_optimizer(model.student, RECIPE)
    schedule = make_schedule(optimizer, Recipe(epochs=epochs, schedule="poly:1"))
    steps = len(images) // batch_size
    control.start(epochs * steps, "Learning from the images")
    generator = torch.Generator().manual_seed(seed)
    losses = []
    for epoch in range(epochs):
        total = 0.0
        order = torch.randperm(len(images), generator=generator)
        for step, rows in enumerate(order[: steps * batch_size].split(batch_size)):
            wide, narrow = views(images[rows].to(device))
            loss = model(wide, narrow)
            descend(optimizer, loss, RECIPE)
            share = (epoch * steps + step) / (epochs * steps)
            model.follow(1 - (1 - _MOMENTUM) * (math.cos(math.pi * share) + 1) / 2)
            total += float(loss.detach())
            control.advance()
        schedule.step()
        losses.append(total / steps)
    kept = model.teacher["network"].eval()
    _check_spread(kept, images[order[: 4 * batch_size]].to(device), views)
    return TrainedEncoder({key: value.cpu() for key, value in kept.state_dict().items()}, tuple(losses))


@torch.inference_mode()
def _check_spread(network: nn.Module, images: Tensor, views: Views) -> None:
    features = nn.functional.normalize(network(views(images)[0][0]), dim=-1)
    spread = float(features.std(0).mean())
    if not spread > _LEAST_SPREAD:
        message = f"What was learned tells no image from another (spread {spread:.1e})"
        raise ModelError(message, todo="Take more tiles or slides, or fewer epochs")

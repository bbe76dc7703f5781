"""Inputs of any system, made from its specs, that carry one hidden number per spot."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from napari_he2st.zoo import inputs as kinds
from napari_he2st.zoo.base import Predictor

COLUMNS = 4


def hidden(n: int) -> Tensor:
    """The number of each spot, evenly in 0 … 1."""
    return torch.linspace(0, 1, n)[torch.randperm(n, generator=torch.Generator().manual_seed(0))]


def expression(n: int, n_genes: int) -> Tensor:
    """Genes that rise or fall with the hidden number."""
    slopes = torch.linspace(-1, 1, n_genes)
    return hidden(n)[:, None] * slopes + slopes.flip(0).square()


def grid_positions(n: int) -> Tensor:
    """Array (column, row) of spots on a lattice of four columns."""
    return torch.stack([torch.arange(n) % COLUMNS, torch.arange(n) // COLUMNS], dim=1)


def _tiles(px: int, values: Tensor) -> Tensor:
    noise = torch.rand(len(values), 3, px, px, generator=torch.Generator().manual_seed(1))
    return (noise * 100 + values.view(-1, 1, 1, 1) * 150).to(torch.uint8)


def _features(dim: int, values: Tensor) -> Tensor:
    generator = torch.Generator().manual_seed(2)
    direction = torch.randn(dim, generator=generator)
    return values[:, None] * direction + 0.1 * torch.randn(len(values), dim, generator=generator)


def _tile_graph(dim: int, n: int) -> tuple[Tensor, Tensor, Tensor]:
    """A row of tiles, four spots in each."""
    tile = torch.arange(n) // COLUMNS
    n_tiles = int(tile.max()) + 1
    mean = torch.zeros(n_tiles).index_reduce(0, tile, hidden(n), "mean", include_self=False)
    between = (torch.arange(n_tiles)[:, None] - torch.arange(n_tiles)).abs() == 1
    return _features(dim, mean), tile, between.float()


def engine_inputs(model: Predictor, n: int) -> dict[str, Any]:
    """What the engine would hand to ``prepare`` for ``n`` spots of one slide."""
    made: dict[str, Any] = {}
    for name, spec in model.inputs.items():
        match spec:
            case kinds.Tiles():
                made[name] = _tiles(spec.px, hidden(n))
            case kinds.Positions(kind="grid" | "lattice"):
                made[name] = grid_positions(n)
            case kinds.Positions():
                made[name] = grid_positions(n) * 100.0
            case kinds.Index():
                made[name] = torch.arange(n)
            case kinds.Features():
                from napari_he2st.zoo.encoders.build import spec_of

                made[name] = _features(spec_of(spec.encoder).dim, hidden(n))
            case kinds.NeighbourFeatures():
                from napari_he2st.zoo.encoders.build import spec_of

                n_around = spec.size**2
                exists = torch.ones(n, n_around, dtype=torch.bool)
                exists[0, : n_around // 2] = False
                around = _features(spec_of(spec.encoder).dim, hidden(n).repeat_interleave(n_around))
                made[name] = (around.unflatten(0, (n, n_around)), exists)
            case kinds.TileGraph():
                from napari_he2st.zoo.encoders.build import spec_of

                made[name] = _tile_graph(spec_of(spec.encoder).dim, n)
            case _:
                message = f"no generated input of kind {type(spec).__name__}"
                raise TypeError(message)
    return made


class OneSlide:
    """Batches of a fit: all spots of one slide at once, prepared anew each time."""

    n_slides = 1

    def __init__(self, model: Predictor, inputs: dict[str, Any], **targets: Tensor) -> None:
        self.model, self.inputs = model, inputs
        n = len(targets["expression"])
        self.targets = {**targets, "slide": torch.zeros(n, dtype=torch.int64), "row": torch.arange(n)}

    def __len__(self) -> int:
        return 1

    def __iter__(self) -> Iterator[tuple[dict[str, Tensor], dict[str, Any]]]:
        yield self.targets, self.model.prepare(**self.inputs)

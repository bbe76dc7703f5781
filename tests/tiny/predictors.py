"""Predictors of every kind that know their answer and need no weights: three genes, the colours of the image."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from napari_he2st.core.noise import Noise
from napari_he2st.zoo import base
from napari_he2st.zoo import inputs as kinds
from napari_he2st.zoo.bundle import Bundle
from napari_he2st.zoo.manifest import Manifest

GENES = ("RED", "GREEN", "BLUE")


class Colour(base.Predictor):
    """The mean colour of the tile."""

    inputs = {"tiles": kinds.Tiles(px=32, mpp="native")}

    def forward(self, tiles: Tensor) -> Tensor:
        return tiles.float().mean((2, 3)) / 255


class Scales(base.Predictor):
    """The mean colour of the larger of two tiles."""

    inputs = {"tiles": kinds.MultiScaleTiles(px=16, mpp="native", factors=(1.0, 2.0))}

    def forward(self, tiles: Tensor) -> Tensor:
        return tiles[:, 1].float().mean((2, 3)) / 255


class DenseColour(base.Predictor):
    """The mean colour of every 4 × 4 pixels, from regions that overlap."""

    unit = base.Regions(px=32, mpp=0.5, overlap=8, bins=8)
    inputs = {"image": kinds.RegionImage()}
    targets = {"expression": base.Expression(per="pixel")}
    outputs = {"expression": base.Output(per="pixel")}

    def __init__(self, n_genes: int = 3) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(n_genes))

    def forward(self, image: Tensor) -> Tensor:
        colour = nn.functional.avg_pool2d(image.float() / 255, 4)
        return colour.flatten(2).transpose(1, 2) + self.bias


class OwnedRegions(DenseColour):
    """Learns from spots that several cells lie in."""

    targets = {"expression": base.Expression()}
    seen: list[dict[str, Tensor]]

    def loss(self, targets: Any, **prepared: Any) -> Tensor:
        owner = targets["owner"]
        cells = self(**prepared)[owner >= 0]
        spots = torch.zeros_like(targets["expression"]).index_reduce(
            0, owner[owner >= 0], cells, "mean", include_self=False
        )
        return torch.nn.functional.mse_loss(spots, targets["expression"])


class PixelColour(base.Predictor):
    """The same, cell by cell, from what is prepared once for each region."""

    unit = base.Pixels(2.0)
    inputs = {"image": kinds.RegionImage(px=32, mpp=0.5, overlap=8)}
    outputs = {"expression": base.Output(per="pixel")}
    recipe = base.Recipe(lr=0.1, epochs=20, batch_of=lambda n: max(1, n // 2))

    def __init__(self, n_genes: int = 3) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(n_genes))

    def prepare(self, *, image: Tensor) -> dict[str, Tensor]:
        return {"colour": nn.functional.avg_pool2d(image.float() / 255, 4)[0].flatten(1).T}

    def forward(self, colour: Tensor) -> Tensor:
        return colour + self.bias

    def loss(self, targets: Any, **prepared: Any) -> Tensor:
        n = len(targets["expression"])
        assert int(targets["owner"].min()) >= 0
        assert int(targets["owner"].max()) < n
        spots = torch.zeros(n, 3).index_reduce(0, targets["owner"], self(**prepared), "mean", include_self=False)
        return torch.nn.functional.mse_loss(spots, targets["expression"])


class NucleusColour(base.Predictor):
    """The mean colour of a nucleus, whose spot it is."""

    inputs = {"tiles": kinds.Tiles(px=32, mpp="native"), "mask": kinds.Nuclei(px=32, mpp="native")}
    outputs = {"expression": base.Output(per="cell")}

    def forward(self, tiles: Tensor, mask: Tensor) -> Tensor:
        inside = mask[:, None].float()
        return (tiles / 255 * inside).sum((2, 3)) / inside.sum((2, 3))


class RegionNuclei(base.Predictor):
    """The mean colour of every nucleus of a region."""

    unit = base.Regions(px=64, mpp=0.5, overlap=32, bins=4)
    inputs = {"image": kinds.RegionImage(), "nuclei": kinds.Nuclei()}
    outputs = {"expression": base.Output(per="cell")}

    def forward(self, image: Tensor, nuclei: Tensor) -> Tensor:
        pixels = (image.float() / 255).permute(0, 2, 3, 1)[nuclei > 0]
        owner = nuclei[nuclei > 0] - 1
        found = torch.zeros(int(nuclei.max()), 3)
        return found.index_reduce(0, owner, pixels, "mean", include_self=False)


class Degree(base.Predictor):
    """How many neighbours each spot has, and the mean distance to them in micrometres."""

    unit = base.Slide()
    inputs = {"edges": kinds.KnnGraph(k=4, radius_um=30.0), "um": kinds.Positions(kind="um")}

    def forward(self, edges: Tensor, um: Tensor) -> Tensor:
        source, spot = edges
        degree = torch.bincount(spot, minlength=len(um)).float()
        far = torch.zeros(len(um)).index_add(0, spot, (um[source] - um[spot]).norm(dim=1))
        return torch.stack([degree, far / degree, degree], dim=1)


class Nearby(base.Predictor):
    """Every spot sees its surroundings through a mean whose weights fall with distance."""

    unit = base.Slide()
    inputs = {"tiles": kinds.Tiles(px=8, mpp="native"), "um": kinds.Positions(kind="um")}
    max_spots = 4096
    reach_um = 5.0

    def forward(self, tiles: Tensor, um: Tensor) -> Tensor:
        colour = tiles.float().mean((2, 3)) / 255
        near = torch.exp(-torch.cdist(um, um) / self.reach_um)
        return near / near.sum(dim=1, keepdim=True) @ colour


class Lookup(base.Predictor):
    """The expression of the closest colour in a bank."""

    inputs = {"tiles": kinds.Tiles(px=32, mpp="native"), "bank": kinds.Reference()}

    def __init__(self, n_genes: int = 3) -> None:
        super().__init__()
        self.unused = nn.Parameter(torch.zeros(()))

    def forward(self, tiles: Tensor, bank: dict[str, Tensor] | None) -> Tensor:
        colour = tiles.float().mean((2, 3)) / 255 + 0 * self.unused
        if bank is None:
            return colour
        return bank["expression"][torch.cdist(colour, bank["colour"]).argmin(dim=1)]

    def finish(self, batches: base.Batches) -> None:
        colours, expression = [], []
        for targets, prepared in batches:
            colours.append(prepared["tiles"].float().mean((2, 3)) / 255)
            expression.append(targets["expression"])
        self.extras["reference"] = {
            "colour": torch.cat(colours).numpy(),
            "expression": torch.cat(expression).numpy(),
            "section": np.zeros(sum(map(len, colours)), dtype=np.int64),
        }


class Context(base.Predictor):
    """What was measured, and 0 where nothing was."""

    inputs = {"measured": kinds.Expression()}

    def forward(self, measured: Tensor) -> Tensor:
        return torch.nan_to_num(measured, nan=0.0)


class BagMean(base.Predictor):
    """One row for the whole slide: how many tiles there are, and where their middle is."""

    unit = base.Slide()
    inputs = {"bag": kinds.Bag(encoder="colour-texture", px=32, mpp="native")}
    outputs = {"expression": base.Output(per="slide")}

    def forward(self, bag: tuple[Tensor, Tensor]) -> Tensor:
        features, um = bag
        assert len(features) == len(um)
        return torch.tensor([[float(len(um)), *um.mean(dim=0).tolist()]])


class CellTypes(base.Predictor):
    """Mean counts of the first type of the user's single cells, at every spot."""

    inputs = {"tiles": kinds.Tiles(px=32, mpp="native"), "cells": kinds.CellReference()}

    def forward(self, tiles: Tensor, cells: dict[str, Tensor]) -> Tensor:
        return cells["counts"][cells["label"] == 0].mean(dim=0).expand(len(tiles), -1)


class Random(Colour):
    """Adds noise, five times."""

    draws = 5

    def predict(self, *, noise: Noise | None = None, **prepared: Any) -> Tensor:
        colour = super().predict(**prepared)
        assert noise is not None
        return colour + torch.from_numpy(noise.normal(3))


class Offset(Colour):
    """An ensemble whose members differ by a constant."""

    members = 3
    combine = "median"

    def __init__(self, n_genes: int = 3) -> None:
        super().__init__()
        self.offset = nn.Parameter(torch.zeros(()))

    def forward(self, tiles: Tensor) -> Tensor:
        return super().forward(tiles) + self.offset


def bundle_of(cls: type[base.Predictor], n_members: int = 1) -> Bundle:
    """A bundle of untrained members."""
    members = [cls() for _ in range(n_members)]
    for member in members:
        member.genes = list(GENES)
    pitch_um = members[0].unit.pitch_um if isinstance(members[0].unit, base.Regions | base.Pixels) else 20.0
    manifest = Manifest(
        name="colour",
        title="Colour",
        system="mean",
        arguments={},
        genes=GENES,
        scale="log1p_cp10k",
        tile_px=32,
        mpp=0.5,
        pitch_um=pitch_um,
        scores={"pcc": (0.5, None, 0.1)},
        training=({"section": "X", "patient": "X", "fingerprint": "abc", "spots": 3},),
    )
    return Bundle(members, manifest)

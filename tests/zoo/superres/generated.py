"""Regions whose brightness is the expression of the spots in them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from tests.zoo.regression.generated import engine_inputs, hidden
from torch import Tensor

from napari_he2st.zoo.base import Pixels, Predictor, Regions, Spots
from napari_he2st.zoo.inputs import Positions, RegionImage

N_REGIONS, SPOTS_PER_SIDE = 2, 3


def region_images(px: int) -> Tensor:
    """Uneven images, uint8 (regions, 3, px, px): brighter towards one corner, another one in each."""
    ramp = torch.linspace(0, 1, px)
    bright = torch.stack([ramp[:, None] + ramp, ramp[:, None] + ramp.flip(0)]) / 2
    noise = torch.rand(N_REGIONS, 3, px, px, generator=torch.Generator().manual_seed(0))
    return (bright[:, None] * 170 + noise * 60 + 20).to(torch.uint8)


def owners(side: int) -> Tensor:
    """Spot of each of ``side`` × ``side`` cells, int64 (side²,): three on a side, and cells in none."""
    place = torch.arange(side) * SPOTS_PER_SIDE // side
    owner = place[:, None] * SPOTS_PER_SIDE + place
    owner[:, side // 2] = -1
    return owner.flatten()


class DenseBatches:
    """All spots of both regions in one batch, as the engine hands them over."""

    n_slides = 1

    def __init__(self, model: Predictor, n_genes: int) -> None:
        self.model = model
        if isinstance(model.unit, Pixels | Regions):
            self._regions(model, n_genes)
        else:
            n = 4 * SPOTS_PER_SIDE
            self.prepared = model.prepare(**engine_inputs(model, n))
            self.targets = self._targets(hidden(n), n_genes)

    def _regions(self, model: Predictor, n_genes: int) -> None:
        spec = next(spec for spec in model.inputs.values() if isinstance(spec, RegionImage))
        px = spec.px or model.unit.px
        images = region_images(px)
        extra = {name: torch.tensor([[0.0, 0.0]]) for name, spec in model.inputs.items() if isinstance(spec, Positions)}
        n_spots = SPOTS_PER_SIDE**2
        if isinstance(model.unit, Regions):
            side = model.unit.bins
            self.prepared = model.prepare(image=images)
            owner = torch.stack([owners(side), torch.where(owners(side) < 0, -1, owners(side) + n_spots)])
        else:
            parts = [model.prepare(image=image[None], **extra) for image in images]
            side = round(len(parts[0]["features"]) ** 0.5)
            owner = torch.cat([owners(side), torch.where(owners(side) < 0, -1, owners(side) + n_spots)])
            self.prepared = {name: torch.cat([part[name] for part in parts])[owner >= 0] for name in parts[0]}
            owner = owner[owner >= 0]
        cells = torch.nn.functional.adaptive_avg_pool2d(images.float().mean(1, keepdim=True) / 255, side).flatten()
        everywhere = torch.cat([owners(side), torch.where(owners(side) < 0, -1, owners(side) + n_spots)])
        mean = torch.stack([cells[everywhere == spot].mean() for spot in range(N_REGIONS * n_spots)])
        self.targets = self._targets(mean, n_genes)
        target = model.targets["expression"]
        if target.per == "pixel":
            dense = torch.cat([self.targets["expression"], torch.full((1, n_genes), torch.nan)])[owner]
            self.targets = {"expression": dense, "slide": self.targets["slide"][:N_REGIONS]}
        else:
            self.targets["owner"] = owner

    @staticmethod
    def _targets(brightness: Tensor, n_genes: int) -> dict[str, Tensor]:
        slopes = torch.linspace(0.5, 1, n_genes)
        slide = torch.zeros(len(brightness), dtype=torch.int64)
        return {"expression": brightness[:, None] * slopes, "slide": slide}

    def __len__(self) -> int:
        return 1

    def __iter__(self) -> Iterator[tuple[dict[str, Tensor], dict[str, Any]]]:
        yield self.targets, self.prepared


def rows_of(model: Predictor, prepared: dict[str, Tensor]) -> tuple[int, ...]:
    """Shape of a prediction, without its genes."""
    if isinstance(model.unit, Regions):
        return (N_REGIONS, model.unit.bins**2)
    if isinstance(model.unit, Spots | Pixels):
        return (len(next(iter(prepared.values()))),)
    return (4 * SPOTS_PER_SIDE,)

"""Cells of a dense lattice and the spots that they lie in, for systems that learn one from the other."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from napari_he2st.zoo.base import Batches
from napari_he2st.zoo.blocks.rasters import owner_mean
from napari_he2st.zoo.encoders.dense import DenseSpec
from napari_he2st.zoo.inputs import RegionImage


def cell_regions(spec: DenseSpec, cells: int, mpp: float) -> RegionImage:
    """The image input of regions of ``cells`` × ``cells`` cells and what a dense encoder sees around them."""
    overlap = 2 * spec.margin * spec.cell_px
    return RegionImage(px=cells * spec.cell_px + overlap, mpp=mpp, overlap=overlap)


@dataclass
class CellsOfSpots:
    """All training spots with their cells.

    Attributes
    ----------
    features
        Of the cells, (cells, …).
    owner
        Spot of each cell, int64 (cells,).
    expression
        Of the spots, (spots, genes).
    xy
        Mean position of the cells of each spot, micrometres, (spots, 2).
    slide
        Training section of each spot, int64 (spots,).
    """

    features: Tensor
    owner: Tensor
    expression: Tensor
    xy: Tensor
    slide: Tensor

    @classmethod
    def gather(cls, batches: Batches) -> CellsOfSpots:
        """Go through the training batches once; each has ``features`` and ``xy`` prepared for its cells."""
        features, owners, expression, xy, slide, n = [], [], [], [], [], 0
        for targets, prepared in batches:
            target, owner = targets["expression"], targets["owner"]
            owned = owner >= 0
            features.append(prepared["features"][owned])
            owners.append(owner[owned] + n)
            expression.append(target)
            xy.append(owner_mean(prepared["xy"], owner, len(target)))
            slide.append(targets["slide"])
            n += len(target)
        return cls(torch.cat(features), torch.cat(owners), torch.cat(expression), torch.cat(xy), torch.cat(slide))

    def spot_features(self) -> Tensor:
        """Mean feature of each spot's cells, (spots, dim)."""
        return owner_mean(self.features.flatten(1), self.owner, len(self.expression))

    def batch(self, spots: Tensor) -> tuple[Tensor, Tensor]:
        """Features of the cells of some spots (int64), and which of these spots each belongs to."""
        place = torch.full((len(self.expression),), -1, device=spots.device)
        place[spots] = torch.arange(len(spots), device=spots.device)
        owner = place[self.owner]
        return self.features[owner >= 0], owner[owner >= 0]

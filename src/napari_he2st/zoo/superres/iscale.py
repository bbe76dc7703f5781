"""iSCALE: expression of super-pixels of a large slide from several small captures on it (Nature Methods 2025)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from napari_he2st.analysis.graphs import radius_graph
from napari_he2st.core.noise import Noise
from napari_he2st.zoo.base import Batches, Expression, Label
from napari_he2st.zoo.blocks.cells import CellsOfSpots
from napari_he2st.zoo.blocks.hipt import CELL_PX
from napari_he2st.zoo.blocks.rasters import cell_positions, owner_mean
from napari_he2st.zoo.blocks.superpixels import SuperPixels
from napari_he2st.zoo.inputs import Positions
from napari_he2st.zoo.recipe import Recipe


class IScale(SuperPixels):
    """iStar's network, trained on the spots of all captures of a slide.

    Parameters
    ----------
    n_genes, encoder, feature_dim, dim, depth, standardise, region_cells
        As for :class:`~napari_he2st.zoo.blocks.superpixels.SuperPixels`.
    merge_um
        Spots not farther apart than this, as where captures overlap, count as one.

    Notes
    -----
    Captures are sections registered to the same slide and trained on together. In the original the merged counts
    are scaled once more and the output stays scaled.
    """

    targets: Mapping[str, Expression | Label] = {"expression": Expression("minmax", panel="var:100")}
    recipe = Recipe("adam", lr=1e-4, epochs=1000, batch_of=lambda spots: max(1, min(128, spots // 16)))

    def __init__(
        self,
        n_genes: int,
        *,
        encoder: str = "hipt",
        feature_dim: int | None = None,
        dim: int = 256,
        depth: int = 4,
        standardise: bool = False,
        region_cells: int = 128,
        merge_um: float = 50.0,
    ) -> None:
        super().__init__(
            n_genes,
            encoder=encoder,
            feature_dim=feature_dim,
            dim=dim,
            depth=depth,
            standardise=standardise,
            region_cells=region_cells,
        )
        self.inputs["centre"] = Positions(kind="um")
        self.merge_um = merge_um

    def prepare(self, *, image: Tensor, centre: Tensor) -> dict[str, Tensor]:
        """Features of the cells of a region, (cells, features), and their positions in µm, (cells, 2)."""
        prepared = super().prepare(image=image)
        side = math.isqrt(len(prepared["features"]))
        return {**prepared, "xy": cell_positions(centre[0], side, self.unit.pitch_um)}

    def loss(self, targets: Mapping[str, Tensor], *, features: Tensor, xy: Tensor | None = None) -> Tensor:
        """As iStar's; positions play no part."""
        return super().loss(targets, features=features)

    def predict(self, *, features: Tensor, xy: Tensor | None = None, noise: Noise | None = None) -> Tensor:
        """Counts of each cell, float32 (cells, genes); positions play no part."""
        return super().predict(features=features)

    def fit(self, batches: Batches, recipe: Recipe) -> Iterator[dict[str, float]]:
        """Train on merged spots."""
        known = CellsOfSpots.gather(batches)
        group = torch.from_numpy(_groups(known.xy.cpu().numpy(), self.merge_um)).long().to(known.owner.device)
        n = int(group.max()) + 1
        merged = replace(
            known,
            owner=group[known.owner],
            expression=owner_mean(known.expression, group, n),
            xy=owner_mean(known.xy, group, n),
            slide=torch.zeros(n, dtype=torch.int64, device=group.device),
        )
        size = recipe.batch_size if recipe.batch_of is None else recipe.batch_of(n)
        yield from super().fit(_Merged(merged, size), recipe)


@dataclass
class _Merged:
    """Batches of merged spots."""

    cells: CellsOfSpots
    size: int
    n_slides: int = 1

    def __len__(self) -> int:
        return -(-len(self.cells.expression) // self.size)

    def __iter__(self) -> Iterator[tuple[dict[str, Tensor], dict[str, Tensor]]]:
        order = torch.randperm(len(self.cells.expression)).to(self.cells.owner.device)
        for spots in order.split(self.size):
            features, owner = self.cells.batch(spots)
            yield {"expression": self.cells.expression[spots], "owner": owner}, {"features": features}


def merge_spots(
    xy: NDArray, values: NDArray, *, distance_px: float, radius: float, shape: tuple[int, int]
) -> tuple[NDArray[np.intp], NDArray[np.floating]]:
    """One spot in place of those that lie near each other, as where captures overlap.

    Parameters
    ----------
    xy
        Positions (x, y) of all captures' spots, pixels of 0.5 µm, shape (n, 2).
    values
        Scaled counts, shape (n, genes).
    distance_px
        Spots not farther apart than this are merged, chains of them into one.
    radius
        Of a spot, in cells of 16 pixels.
    shape
        Rows and columns of cells.

    Returns
    -------
    cells
        (row, column) of the cell at each mean position, shape (m, 2). Those whose disc would leave the lattice are
        left out, in the original but for one cell at its far end.
    values
        Mean scaled counts, shape (m, genes).
    """
    group = _groups(xy, distance_px)
    size = np.bincount(group)[:, None]
    place, mean = (np.zeros((len(size), array.shape[1])) for array in (xy, values))
    np.add.at(place, group, xy)
    np.add.at(mean, group, values)
    cells = np.round(place[:, ::-1] / size / CELL_PX).astype(np.intp)
    reach = math.ceil(radius)
    kept = ((cells >= reach) & (cells <= np.asarray(shape) - reach)).all(axis=1)
    return cells[kept], (mean / size)[kept]


def _groups(xy: NDArray, distance: float) -> NDArray[np.intp]:
    """Number of the group of each position: chains of those not farther apart than ``distance``."""
    from scipy.sparse.csgraph import connected_components

    graph = radius_graph(np.asarray(xy, dtype=np.float64), distance)
    return np.asarray(connected_components(graph, directed=False)[1], dtype=np.intp)

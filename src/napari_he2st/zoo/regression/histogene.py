"""HisToGene: a vision transformer over all spots of a slide (Pang, Su and Li, bioRxiv 2021)."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from napari_he2st.core.noise import Noise
from napari_he2st.zoo.base import Batches, Expression, Predictor, Slide
from napari_he2st.zoo.blocks.start import start_at_mean
from napari_he2st.zoo.blocks.vit import Transformer
from napari_he2st.zoo.inputs import Positions, Tiles
from napari_he2st.zoo.recipe import Recipe


class HisToGene(Predictor):
    """Flattened tiles and learnt array positions, attention among all spots, one linear head.

    Parameters
    ----------
    n_genes
        Size of the panel.
    dim, depth, heads, dim_head, mlp_ratio, dropout
        Of the transformer over spots.
    tile_px, mpp
        Width of the tile around the spot and its pixel size, by default that of the training slides.
    bins
        Array columns and rows that have an embedding.

    Notes
    -----
    Training starts at the mean of the targets, not at 0 as published: with the published learning rate, a few
    sections do not lead there.
    """

    unit = Slide()
    targets = {"expression": Expression("log10_cp10k_panel", panel="hvg:1000")}
    recipe = Recipe(optimizer="adam", lr=1e-5, epochs=100, batch_size=1)

    def __init__(
        self,
        n_genes: int,
        *,
        dim: int = 1024,
        depth: int = 8,
        heads: int = 16,
        dim_head: int = 64,
        mlp_ratio: float = 2.0,
        dropout: float = 0.1,
        tile_px: int = 112,
        mpp: float | None = None,
        bins: int = 64,
    ) -> None:
        super().__init__()
        self.inputs = {"tiles": Tiles(px=tile_px, mpp=mpp), "grid_xy": Positions(kind="grid", bins=bins)}
        self.patch_embedding = nn.Linear(3 * tile_px**2, dim)
        self.x_embed = nn.Embedding(bins, dim)
        self.y_embed = nn.Embedding(bins, dim)
        self.vit = nn.ModuleDict(
            {
                "dropout": nn.Dropout(dropout),
                "transformer": Transformer(
                    dim,
                    depth=depth,
                    heads=heads,
                    dim_head=dim_head,
                    mlp_dim=int(mlp_ratio * dim),
                    dropout=dropout,
                ),
            }
        )
        self.gene_head = nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, n_genes))

    def prepare(self, *, tiles: Tensor, grid_xy: Tensor) -> dict[str, Tensor]:
        """Pixel values from 0 to 255 in the order (x, y, channel), one slide per batch."""
        return {"patches": flatten_tiles(tiles)[None], "centers": grid_xy[None]}

    def forward(self, patches: Tensor, centers: Tensor) -> Tensor:
        """Float32 (slides, spots, genes), from (slides, spots, 3 · px²) and array (column, row)."""
        x = self.patch_embedding(patches) + self.x_embed(centers[..., 0]) + self.y_embed(centers[..., 1])
        return self.gene_head(self.vit["transformer"](self.vit["dropout"](x)))

    def fit(self, batches: Batches, recipe: Recipe) -> Iterator[dict[str, float]]:
        """Start the head at the mean of the targets, then train."""
        start_at_mean(batches, self.gene_head[-1])
        yield from super().fit(batches, recipe)

    def predict(self, *, patches: Tensor, centers: Tensor, noise: Noise | None = None) -> Tensor:
        """Expression of the spots of the one slide, float32 (spots, genes)."""
        return self(patches, centers)[0]


def flatten_tiles(tiles: Tensor) -> Tensor:
    """Tiles (n, 3, height, width) as float32 vectors in the order (x, y, channel)."""
    return tiles.permute(0, 3, 2, 1).flatten(1).float()


def super_resolution_raster(centres: Tensor, *, step_px: int = 56, faithful: bool = False) -> tuple[Tensor, Tensor]:
    """A dense raster over the area of measured spots, and the array positions it is given.

    Parameters
    ----------
    centres
        Spot centres (x, y) in pixels of the tile's scale, int64 (n, 2).
    step_px
        Distance of the raster's points.
    faithful
        Count positions from the slide's corner, as published; they may then exceed what the network knows
        where the tissue lies far from it. By default they count from the first spot.

    Returns
    -------
    points, positions
        Int64 (m, 2) each, x running fastest; about 30 positions to each side.
    """
    low, high = centres.amin(0), centres.amax(0)
    xs, ys = (torch.arange(int(a), int(b), step_px) for a, b in zip(low, high, strict=True))
    points = torch.stack([part.flatten() for part in torch.meshgrid(ys, xs, indexing="ij")][::-1], dim=1)
    unit = ((high - low) // 30).clamp(min=1)
    return points, (points if faithful else points - low) // unit

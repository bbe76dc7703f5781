"""HisToSGE: the gaps between the spots of a section, from its image and array positions (arXiv 2407.20518)."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from napari_he2st.core.noise import Noise
from napari_he2st.zoo.base import Batches, Expression, Predictor, Slide
from napari_he2st.zoo.blocks.start import start_at_mean
from napari_he2st.zoo.blocks.vit import Transformer
from napari_he2st.zoo.inputs import Features, Positions
from napari_he2st.zoo.recipe import Recipe


class HisToSGE(Predictor):
    """A transformer on short runs of spots, each the sum of its image feature and two learned positions.

    Parameters
    ----------
    n_genes
        Size of the panel.
    encoder, feature_dim
        Encoder of the image around a spot, and the size of its features.
    depth, heads, dim_head, dropout
        Of the transformer.
    head_dim
        Width of the layer before the genes.
    bins
        Array positions per axis.
    run
        Spots that see each other, about: consecutive ones in the order of the grid.
    tile_px
        Width of the image around a spot.
    faithful
        Start training from random weights of the last layer, as published; by default it starts at the mean.

    Notes
    -----
    Trained on the spots of a section, it predicts positions between them: at a finer pitch several lie on one
    array position, and differ by their images alone.
    """

    unit = Slide()
    targets = {"expression": Expression("log1p_cp10k", panel="hvg:1000")}
    recipe = Recipe("adam", lr=1e-3, epochs=1000, batch_size=1)
    fitted = "slide"

    def __init__(
        self,
        n_genes: int,
        *,
        encoder: str = "uni",
        feature_dim: int = 1024,
        depth: int = 1,
        heads: int = 4,
        dim_head: int = 64,
        head_dim: int = 2048,
        dropout: float = 0.0,
        bins: int = 512,
        run: int = 50,
        tile_px: int = 50,
        faithful: bool = False,
    ) -> None:
        super().__init__()
        self.faithful = faithful
        self.inputs = {
            "features": Features(encoder=encoder, px=tile_px),
            "grid_xy": Positions(kind="grid", bins=bins),
        }
        self.run, dim = run, feature_dim
        self.x_embed, self.y_embed = nn.Embedding(bins, dim), nn.Embedding(bins, dim)
        self.trans = Transformer(dim, depth=depth, heads=heads, dim_head=dim_head, mlp_dim=dim, dropout=dropout)
        self.gene_head = nn.Sequential(
            nn.Linear(dim, head_dim), nn.ReLU(), nn.LayerNorm(head_dim), nn.Linear(head_dim, n_genes)
        )
        self.layer_norm = nn.LayerNorm(dim)  # never used, but in the published state

    def forward(self, features: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        """State (n, spots, dim) and expression (n, spots, genes) of runs of spots.

        Parameters
        ----------
        features
            (n, spots, dim).
        positions
            Array (column, row), (n, spots, 2); fractions are cut off.
        """
        column, row = positions.long().unbind(-1)
        state = self.trans(features + self.x_embed(column) + self.y_embed(row))
        return state, F.relu(self.gene_head(state))

    def predict(self, *, features: Tensor, grid_xy: Tensor, noise: Noise | None = None) -> Tensor:
        """Expression, ln (1 + CP10k), float32 (spots, genes), run by run."""
        n_runs = -(-len(features) // self.run)
        runs = zip(features.tensor_split(n_runs), grid_xy.tensor_split(n_runs), strict=True)
        return torch.cat([self(some[None], there[None])[1][0] for some, there in runs])

    def fit(self, batches: Batches, recipe: Recipe) -> Iterator[dict[str, float]]:
        """Train, from the mean on."""
        if not self.faithful:
            start_at_mean(batches, self.gene_head[-1])
        yield from super().fit(batches, recipe)

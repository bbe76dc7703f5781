"""PathOmCLIP: a tile among its neighbours, aligned with expression (Lee et al., bioRxiv 2024), as described."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from napari_he2st.zoo.base import Batches
from napari_he2st.zoo.blocks.components import component_scores, principal_components
from napari_he2st.zoo.blocks.contrast import ProjectionHead, pair_loss
from napari_he2st.zoo.blocks.retrieval import Retrieval, gather
from napari_he2st.zoo.blocks.vit import Transformer
from napari_he2st.zoo.encoders.build import spec_of
from napari_he2st.zoo.inputs import NeighbourFeatures
from napari_he2st.zoo.recipe import Recipe


class PathOmCLIP(Retrieval):
    """Frozen features of adjoining tiles pass a transformer; the middle one meets the spot's frozen embedding.

    Parameters
    ----------
    n_genes
        Size of the panel.
    encoder, feature_dim
        Of the tiles, and the width of its features (by default the encoder's).
    size
        The neighbourhood is ``size`` × ``size`` tiles.
    n_components
        Principal components that stand for the single-cell foundation model's embedding of a spot.
    dim, depth, heads, mlp_ratio, dropout
        Of the transformer and of the embeddings.
    temperature
        Of the loss at the start; it is learnt.
    n_neighbours
        Number of reference spots that a prediction is made of.
    tile_px
        Width of a tile.

    Notes
    -----
    No code and no weights are public. What is known is the idea: a pathology and a single-cell foundation model,
    aligned by a contrast that sees the neighbouring tiles. The rest is an interpretation.
    """

    recipe = Recipe("adamw", lr=1e-4, weight_decay=1e-3, epochs=50, batch_size=128)

    def __init__(
        self,
        n_genes: int,
        *,
        encoder: str = "uni",
        feature_dim: int | None = None,
        size: int = 3,
        n_components: int = 50,
        dim: int = 256,
        depth: int = 2,
        heads: int = 8,
        mlp_ratio: float = 4.0,
        dropout: float = 0.1,
        temperature: float = 0.07,
        n_neighbours: int = 50,
        tile_px: int = 224,
    ) -> None:
        super().__init__()
        self.n_neighbours = n_neighbours
        self.inputs = {"around": NeighbourFeatures(encoder=encoder, px=tile_px, size=size)}
        self.n_components = min(n_components, n_genes)
        self.logit_scale = nn.Parameter(torch.tensor(1 / temperature).log())
        self.embed = nn.Linear(feature_dim or spec_of(encoder).dim, dim)
        self.place = nn.Parameter(0.02 * torch.randn(1, size**2, dim))
        sizes = {"dim_head": dim // heads, "mlp_dim": int(dim * mlp_ratio)}
        self.transformer = Transformer(dim, depth=depth, heads=heads, **sizes, dropout=dropout)
        self.image_projection = ProjectionHead(dim, dim, dropout=dropout)
        self.spot_projection = ProjectionHead(self.n_components, dim, dropout=dropout)

    def prepare(self, *, around: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
        """Features of each tile and its neighbours, and which of them exist."""
        return dict(zip(("features", "exists"), around, strict=True))

    def embed_images(self, *, features: Tensor, exists: Tensor) -> Tensor:
        """Embeddings of tiles among their neighbours, of length 1."""
        tokens = self.transformer(self.embed(features) + self.place, mask=exists)
        return F.normalize(self.image_projection(tokens[:, tokens.shape[1] // 2]), dim=-1)

    def embed_spots(self, expression: Tensor) -> Tensor:
        """Embeddings of expression, of length 1."""
        return F.normalize(self.spot_projection(component_scores(expression, self.extras)), dim=-1)

    def forward(self, features: Tensor, exists: Tensor, expression: Tensor) -> Tensor:
        """The loss of a batch."""
        images = self.embed_images(features=features, exists=exists)
        return pair_loss(images, self.embed_spots(expression), (-self.logit_scale).exp())

    def loss(self, targets: Mapping[str, Tensor], **prepared: Tensor) -> Tensor:
        """Finding a spot's own image, and an image's own spot, in the batch."""
        return self(**prepared, expression=targets["expression"].nan_to_num())

    def fit(self, batches: Batches, recipe: Recipe) -> Iterator[dict[str, float]]:
        """Principal components first."""
        self.extras["components"] = principal_components(gather(batches)["expression"], self.n_components)
        yield from super().fit(batches, recipe)

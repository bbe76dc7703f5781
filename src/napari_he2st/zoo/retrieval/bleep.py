"""BLEEP: images and expression in one space, expression read off the nearest spots (Xie et al., NeurIPS 2023)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal

from torch import Tensor, nn

from napari_he2st.core.noise import Noise
from napari_he2st.zoo.base import Batches
from napari_he2st.zoo.blocks.contrast import ProjectionHead, soft_clip_losses
from napari_he2st.zoo.blocks.pixels import standardise
from napari_he2st.zoo.blocks.retrieval import Retrieval
from napari_he2st.zoo.blocks.search import squared_exponential, weighted_mean
from napari_he2st.zoo.blocks.symmetry import random_symmetry
from napari_he2st.zoo.blocks.trunks import feature_network, load_imagenet
from napari_he2st.zoo.inputs import Tiles
from napari_he2st.zoo.recipe import Recipe

Rule = Literal["average", "weighted", "nearest"]


class BLEEP(Retrieval):
    """A ResNet and a linear head meet in a space where similar spots lie close together.

    Parameters
    ----------
    n_genes
        Size of the panel.
    trunk
        A timm network, or a small one (see :func:`~napari_he2st.zoo.blocks.trunks.feature_network`).
    dim, dropout
        Of the embeddings and their heads.
    temperature
        Of the loss.
    inverted_targets
        Multiply the similarities in the targets by the temperature, as the published variants do, instead of
        dividing; the same at 1.
    n_neighbours
        Number of reference spots that a prediction is made of.
    tile_px
        Width of the tile.
    imagenet
        Start training from ImageNet weights, as published.

    Notes
    -----
    Tiles are RGB; the published program reads them as BGR and standardises them as RGB.
    """

    recipe = Recipe("adamw", lr=1e-3, weight_decay=1e-3, epochs=4, batch_size=256)

    def __init__(
        self,
        n_genes: int,
        *,
        trunk: str = "resnet50",
        dim: int = 256,
        dropout: float = 0.1,
        temperature: float = 1.0,
        inverted_targets: bool = False,
        n_neighbours: int = 50,
        tile_px: int = 224,
        imagenet: bool = True,
    ) -> None:
        super().__init__()
        self.n_neighbours = n_neighbours
        self.inputs = {"tiles": Tiles(px=tile_px)}
        self.trunk, self.imagenet, self.temperature = trunk, imagenet, temperature
        self.target_temperature = 1 / temperature if inverted_targets else temperature
        network, width = feature_network(trunk)
        self.image_encoder = nn.ModuleDict({"model": network})
        self.image_projection = ProjectionHead(width, dim, dropout=dropout)
        self.spot_projection = ProjectionHead(n_genes, dim, dropout=dropout)

    def prepare(self, *, tiles: Tensor) -> dict[str, Tensor]:
        """Tiles standardised as ImageNet's."""
        return {"images": standardise(tiles)}

    def embed_images(self, *, images: Tensor) -> Tensor:
        """Embeddings of tiles (n, 3, px, px), not normalised."""
        return self.image_projection(self.image_encoder["model"](images))

    def embed_spots(self, expression: Tensor) -> Tensor:
        """Embeddings of expression, not normalised."""
        return self.spot_projection(expression)

    def forward(self, images: Tensor, expression: Tensor) -> Tensor:
        """The loss of a batch."""
        embedded = self.embed_images(images=images), self.embed_spots(expression)
        return soft_clip_losses(*embedded, self.temperature, target_temperature=self.target_temperature).mean()

    def loss(self, targets: Mapping[str, Tensor], *, images: Tensor) -> Tensor:
        """That of randomly turned and mirrored tiles."""
        return self(random_symmetry(images), targets["expression"].nan_to_num())

    def predict(
        self, *, noise: Noise | None = None, n_neighbours: int | None = None, rule: Rule = "average", **prepared: Any
    ) -> Tensor:
        """log1p CP10k, float32 (n, genes).

        Parameters
        ----------
        n_neighbours
            Number of reference spots that a prediction is made of, by default 50.
        rule
            Their plain mean (published), weighted by their distance, or the nearest alone.
        """
        found = self.retrieve(n_neighbours=1 if rule == "nearest" else n_neighbours, **prepared)
        return weighted_mean(found.expression, squared_exponential(found.distance()) if rule == "weighted" else None)

    def fit(self, batches: Batches, recipe: Recipe) -> Iterator[dict[str, float]]:
        """Start the image encoder from ImageNet, then train."""
        if self.imagenet:
            load_imagenet(self.image_encoder["model"], self.trunk)
        yield from super().fit(batches, recipe)

"""What mclSTExp and STco share: expression that knows its place on the array, beside a plain image network."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import ClassVar

from torch import Tensor, nn
from torch.nn import functional as F

from napari_he2st.core.errors import ModelError
from napari_he2st.zoo.base import Batches, Expression
from napari_he2st.zoo.blocks.augment import jitter_flip_turn
from napari_he2st.zoo.blocks.contrast import ProjectionHead, pair_loss
from napari_he2st.zoo.blocks.pixels import standardise
from napari_he2st.zoo.blocks.retrieval import Retrieval
from napari_he2st.zoo.blocks.trunks import layers_before_pooling
from napari_he2st.zoo.inputs import Positions, Tiles
from napari_he2st.zoo.recipe import Recipe


class PlacedSpots(Retrieval):
    """Embeddings of column and row are added to a spot's expression before it is embedded itself.

    A subclass has an image network, ``image_encoder`` or under the name it was published with.
    """

    targets = {"expression": Expression("log10_cp10k_panel", panel="hvg:1000")}
    recipe = Recipe("adam", lr=1e-4, weight_decay=1e-3, epochs=90, batch_size=128)
    kept: ClassVar[tuple[str, ...]] = ("positions",)
    n_neighbours = 200

    def _build(
        self,
        n_genes: int,
        *,
        trunk: str,
        dim: int,
        dropout: float,
        bins: int,
        tile_px: int,
        imagenet: bool,
        encoder: str,
        spot_encoder: nn.Module | None = None,
    ) -> None:
        """Add all layers in the order of the state dict; the image network is named ``encoder``."""
        self.inputs = {"tiles": Tiles(px=tile_px), "positions": Positions(kind="grid")}
        self.trunk, self.imagenet, self._encoder = trunk, imagenet, encoder
        self.x_embed, self.y_embed = nn.Embedding(bins, n_genes), nn.Embedding(bins, n_genes)
        network, width = layers_before_pooling(trunk)
        self.add_module(encoder, nn.ModuleDict({"model": network}))
        if spot_encoder is not None:
            self.spot_encoder = spot_encoder
        self.image_projection = ProjectionHead(width, dim, dropout=dropout)
        self.spot_projection = ProjectionHead(n_genes, dim, dropout=dropout)

    def prepare(self, *, tiles: Tensor, positions: Tensor) -> dict[str, Tensor]:
        """Tiles in 0 … 1, array positions (column, row)."""
        return {"images": standardise(tiles, None), "positions": positions}

    def image_features(self, images: Tensor) -> Tensor:
        """Mean over the last map of the image network, float32 (n, channels)."""
        x = getattr(self, self._encoder)["model"](images)
        return F.adaptive_avg_pool2d(x, 1).flatten(1) if x.ndim == 4 else x

    def embed_images(self, *, images: Tensor, positions: Tensor | None = None) -> Tensor:
        """Embeddings of tiles (n, 3, px, px), not normalised; their place plays no part."""
        return self.image_projection(self.image_features(images))

    def place(self, expression: Tensor, positions: Tensor) -> Tensor:
        """Expression plus the embeddings of column and row, float32 (n, genes)."""
        bins, furthest = self.x_embed.num_embeddings, int(positions.max())
        if furthest >= bins:
            todo = f"Train with the argument bins={furthest + 1} or more"
            raise ModelError(f"The sections span {furthest + 1} array positions; this system knows {bins}", todo=todo)
        return expression + self.x_embed(positions[:, 0]) + self.y_embed(positions[:, 1])

    def embed_spots(self, expression: Tensor, *, positions: Tensor) -> Tensor:
        """Embeddings of expression and place, not normalised."""
        return self.spot_projection(self.place(expression, positions))

    def forward(self, images: Tensor, positions: Tensor, expression: Tensor) -> Tensor:
        """The loss of a batch."""
        return pair_loss(self.embed_images(images=images), self.embed_spots(expression, positions=positions))

    def loss(self, targets: Mapping[str, Tensor], *, images: Tensor, positions: Tensor) -> Tensor:
        """That of tiles with random colours, flips and turns."""
        return self(jitter_flip_turn(images), positions, targets["expression"].nan_to_num())

    def fit(self, batches: Batches, recipe: Recipe) -> Iterator[dict[str, float]]:
        """Start the image network from ImageNet where so built, then train."""
        if self.imagenet:
            network, _ = layers_before_pooling(self.trunk, imagenet=True)
            getattr(self, self._encoder)["model"].load_state_dict(network.state_dict())
        yield from super().fit(batches, recipe)

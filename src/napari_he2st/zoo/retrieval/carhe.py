"""CarHE: a pathology transformer tuned to meet expression in its own feature space (Zou lab, 2025)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from napari_he2st.zoo.base import Batches
from napari_he2st.zoo.blocks.contrast import ProjectionHead, soft_clip_losses
from napari_he2st.zoo.blocks.hipt import ViT256
from napari_he2st.zoo.blocks.pixels import standardise
from napari_he2st.zoo.blocks.retrieval import Retrieval
from napari_he2st.zoo.blocks.symmetry import random_symmetry
from napari_he2st.zoo.encoders.build import build
from napari_he2st.zoo.inputs import Tiles
from napari_he2st.zoo.recipe import Recipe

_PIXELS = {"mean": (0.5,) * 3, "std": (0.5,) * 3}
_DAMPING = 1.1


class CarHE(Retrieval):
    """HIPT's patch transformer, of which one layer learns, against a linear head of the expression.

    Parameters
    ----------
    n_genes
        Size of the panel, at most ``spot_dim``.
    spot_dim
        Width of the expression that the head sees; genes that are missing from it are 0.
    dim, depth, heads
        Of the transformer and the embeddings.
    dropout
        Of the head.
    temperature
        Of the loss. Only its logarithm's negative is stored, and by this the similarities are divided: anything
        but 1 acts inverted, as published.
    n_neighbours
        Number of reference spots that a prediction is made of.
    tile_px
        Width of the tile.
    pretrained
        Start from HIPT's weights and train only the last layer but one and the final normalisation, as
        published; without them, the whole network is trained.

    Notes
    -----
    The published program scales a reference as it finds it; here it is log1p CP10k. Turns are by quarters.
    """

    metric = "euclidean"
    recipe = Recipe("adamw", lr=1e-4, weight_decay=0.002, epochs=100, batch_size=32)

    def __init__(
        self,
        n_genes: int,
        *,
        spot_dim: int = 2000,
        dim: int = 384,
        depth: int = 12,
        heads: int = 6,
        dropout: float = 0.1,
        temperature: float = 1.0,
        n_neighbours: int = 5,
        tile_px: int = 256,
        pretrained: bool = True,
    ) -> None:
        super().__init__()
        self.inputs = {"tiles": Tiles(px=tile_px)}
        self.n_neighbours = n_neighbours
        self.spot_dim, self.pretrained = max(spot_dim, n_genes), pretrained
        self.temperature = nn.Parameter(torch.tensor(1 / temperature).log())
        self.image_encoder = ViT256(dim, depth, heads)
        self.spot_projection = ProjectionHead(self.spot_dim, dim, dropout=dropout, eps=1e-6)
        if pretrained:
            self.image_encoder.requires_grad_(False)
            self.image_encoder.blocks[-2].requires_grad_(True)
            self.image_encoder.norm.requires_grad_(True)

    def prepare(self, *, tiles: Tensor) -> dict[str, Tensor]:
        """Pixels in −1 … 1."""
        return {"images": standardise(tiles, _PIXELS)}

    def embed_images(self, *, images: Tensor) -> Tensor:
        """Class tokens of tiles (n, 3, px, px), not normalised."""
        return self.image_encoder(images)

    def embed_spots(self, expression: Tensor) -> Tensor:
        """Embeddings of expression, filled up with zeros, not normalised."""
        return self.spot_projection(F.pad(expression, (0, self.spot_dim - expression.shape[1])))

    def forward(self, images: Tensor, expression: Tensor) -> Tensor:
        """The loss of a batch."""
        return self.loss_of(self.embed_images(images=images), self.embed_spots(expression))

    def loss_of(self, images: Tensor, spots: Tensor) -> Tensor:
        """The loss of embeddings."""
        pair = F.normalize(images, dim=-1), F.normalize(spots, dim=-1)
        return soft_clip_losses(*pair, self.temperature.exp(), damping=_DAMPING).mean()

    def loss(self, targets: Mapping[str, Tensor], *, images: Tensor) -> Tensor:
        """That of tiles as they are and of the same ones turned and mirrored at random, in one batch."""
        expression = targets["expression"].nan_to_num()
        return self(torch.cat([images, random_symmetry(images)]), expression.repeat(2, 1))

    def fit(self, batches: Batches, recipe: Recipe) -> Iterator[dict[str, float]]:
        """Start from HIPT's weights where so built, then train."""
        if self.pretrained:
            self.image_encoder.load_state_dict(build("hipt256").network.state_dict())
        yield from super().fit(batches, recipe)

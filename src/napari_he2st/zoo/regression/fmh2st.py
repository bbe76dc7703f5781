"""FmH2ST, an approximation: a foundation model and the image of the spot (Wang et al., NAR 53, gkaf865, 2025)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from napari_he2st.core.noise import Noise
from napari_he2st.zoo.base import Batches, Expression, Predictor, Spots
from napari_he2st.zoo.blocks.losses import nan_mse
from napari_he2st.zoo.blocks.pixels import standardise
from napari_he2st.zoo.blocks.symmetry import random_symmetry
from napari_he2st.zoo.blocks.trunks import load_imagenet, torchvision_network
from napari_he2st.zoo.inputs import Features, Tiles
from napari_he2st.zoo.recipe import Recipe


class FmH2ST(Predictor):
    """Two branches, adapted features of a foundation model and a ResNet on the spot's image, and a joint head.

    Parameters
    ----------
    n_genes
        Size of the panel.
    encoder, feature_dim
        The foundation model and the size of its features.
    dim, adapter_dim, dropout
        Width of each branch's result, of the adapter's bottleneck, and dropout before the last layer.
    trunk
        A torchvision ResNet for the image of the spot.
    context_px, tile_px
        Width of the field that the foundation model sees, and of the spot's image.
    imagenet
        Start training from ImageNet weights.

    Notes
    -----
    Neither the code nor the text of the paper could be read. All that is taken from what others report of it: a
    branch that adapts a histology foundation model (UNI), one that looks at the fine detail of spot images, and
    their combination. Every layer, width, loss and number here is ours, so its scores are not the paper's.
    """

    unit = Spots()
    targets = {"expression": Expression("log1p_cp10k", panel="hvg:1000")}
    recipe = Recipe("adamw", lr=1e-4, weight_decay=0.01, epochs=50, batch_size=64)

    def __init__(
        self,
        n_genes: int,
        *,
        encoder: str = "uni",
        feature_dim: int = 1024,
        dim: int = 512,
        adapter_dim: int = 64,
        dropout: float = 0.1,
        trunk: str = "resnet18",
        context_px: int = 224,
        tile_px: int = 112,
        imagenet: bool = True,
    ) -> None:
        super().__init__()
        self.inputs = {"features": Features(encoder=encoder, px=context_px), "tiles": Tiles(px=tile_px)}
        self.trunk, self.imagenet = trunk, imagenet
        self.norm = nn.LayerNorm(feature_dim)
        self.adapter = nn.Sequential(
            nn.Linear(feature_dim, adapter_dim), nn.GELU(), nn.Linear(adapter_dim, feature_dim)
        )
        self.foundation = nn.Linear(feature_dim, dim)
        self.spot = torchvision_network(trunk, dim)
        self.head = nn.Sequential(
            nn.LayerNorm(2 * dim), nn.Linear(2 * dim, dim), nn.GELU(), nn.Dropout(dropout), nn.Linear(dim, n_genes)
        )

    def prepare(self, *, features: Tensor, tiles: Tensor) -> dict[str, Tensor]:
        """Features as they are, and tiles standardised by the statistics of ImageNet."""
        return {"features": features, "images": standardise(tiles)}

    def forward(self, features: Tensor, images: Tensor) -> Tensor:
        """log1p CP10k, float32 (n, genes), from features (n, feature_dim) and images (n, 3, px, px)."""
        x = self.norm(features)
        return self.head(torch.cat([self.foundation(x + self.adapter(x)), self.spot(images)], dim=1))

    def loss(self, targets: Mapping[str, Tensor], *, features: Tensor, images: Tensor) -> Tensor:
        """MSE of randomly turned and mirrored tiles."""
        return nan_mse(self(features, random_symmetry(images)), targets["expression"])

    def predict(self, *, features: Tensor, images: Tensor, noise: Noise | None = None) -> Tensor:
        """log1p CP10k, float32 (n, genes)."""
        return self(features, images)

    def fit(self, batches: Batches, recipe: Recipe) -> Iterator[dict[str, float]]:
        """Start the branch of the spot's image from ImageNet, then train."""
        if self.imagenet:
            load_imagenet(self.spot, self.trunk)
        yield from super().fit(batches, recipe)

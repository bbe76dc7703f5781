"""ResSAT: a ResNet whose predictions attend to each other, without parameters (Research Square rs-4707959, 2024)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from napari_he2st.core.noise import Noise
from napari_he2st.zoo.base import Batches, Expression, Predictor, Slide
from napari_he2st.zoo.blocks.losses import nan_mse
from napari_he2st.zoo.blocks.pixels import standardise
from napari_he2st.zoo.blocks.trunks import adopt, load_imagenet, resnet_features, torchvision_network
from napari_he2st.zoo.inputs import Tiles
from napari_he2st.zoo.recipe import Recipe, descend, make_optimizer, make_schedule

GROUP = 32
"""Spots that attend to each other in training, and in prediction where ``faithful``."""
_RATES = {"conv1": 1 / 10, "bn1": 1 / 10, "layer1": 1 / 8, "layer2": 1 / 6, "layer3": 1 / 4, "layer4": 1 / 2}


class ResSAT(Predictor):
    """ResNet-50 per spot; each spot's result is then a weighted mean over the spots that resemble it.

    Parameters
    ----------
    n_genes
        Size of the panel.
    trunk
        A torchvision ResNet.
    tile_px
        Width of the tile; not published.
    imagenet
        Start training from ImageNet weights, as published.
    faithful
        Let the spots attend in groups of 32 in the order of the file, as published: the result then depends
        on that order. By default they attend to all spots of the slide or window.
    """

    unit = Slide()
    targets = {"expression": Expression("z_log1p_cp10k", panel="hvg:1000")}
    recipe = Recipe("adam", lr=1e-4, epochs=60, batch_size=1)

    def __init__(
        self,
        n_genes: int,
        *,
        trunk: str = "resnet50",
        tile_px: int = 224,
        imagenet: bool = True,
        faithful: bool = False,
    ) -> None:
        super().__init__()
        self.inputs = {"tiles": Tiles(px=tile_px)}
        self.trunk, self.imagenet, self.faithful = trunk, imagenet, faithful
        adopt(self, torchvision_network(trunk, n_genes))

    def features(self, images: Tensor) -> Tensor:
        """Pooled features, float32 (n, features), of standardised images (n, 3, px, px)."""
        return resnet_features(self, images)

    def forward(self, images: Tensor) -> Tensor:
        """Standardised log1p CP10k, float32 (n, genes); all images of the batch attend to each other."""
        return attend(self.fc(self.features(images)))

    def loss(self, targets: Mapping[str, Tensor], *, tiles: Tensor) -> Tensor:
        """Mean squared error after attention among the given spots."""
        return nan_mse(self(standardise(tiles)), targets["expression"])

    def predict(self, *, tiles: Tensor, noise: Noise | None = None) -> Tensor:
        """Expression of all spots of a slide, float32 (n, genes)."""
        alone = [self.fc(self.features(standardise(group))) for group in tiles.split(GROUP)]
        return torch.cat([attend(group) for group in alone]) if self.faithful else attend(torch.cat(alone))

    def fit(self, batches: Batches, recipe: Recipe) -> Iterator[dict[str, float]]:
        """Train on random groups of spots of one slide, the deeper layers faster."""
        if self.imagenet:
            load_imagenet(self, self.trunk)
        optimizer = make_optimizer(self, recipe, _RATES)
        schedule = make_schedule(optimizer, recipe)
        for epoch in range(recipe.epochs):
            self.train()
            losses = []
            for targets, prepared in batches:
                target, tiles = targets["expression"], prepared["tiles"]
                for rows in torch.randperm(len(tiles)).tensor_split(max(len(tiles) // GROUP, 1)):
                    here = rows.to(tiles.device)
                    loss = self.loss({"expression": target[here]}, tiles=tiles[here])
                    descend(optimizer, loss, recipe)
                    losses.append(float(loss.detach()))
            schedule.step()
            yield {"epoch": epoch, "loss": sum(losses) / max(len(losses), 1)}


def attend(x: Tensor) -> Tensor:
    """Self-attention without parameters, softmax(x xᵀ / √genes) x, over the rows of (n, genes)."""
    return torch.softmax(x @ x.T / x.shape[1] ** 0.5, dim=1) @ x

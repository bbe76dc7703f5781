"""ST-Net: a convolutional network per spot (He et al., Nature Biomedical Engineering 2020)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice

import torch
from torch import Tensor

from napari_he2st.core.noise import Noise
from napari_he2st.zoo.base import Batches, Expression, Predictor, Spots
from napari_he2st.zoo.blocks.losses import nan_mse
from napari_he2st.zoo.blocks.pixels import PIXELS, pixel_statistics, standardise
from napari_he2st.zoo.blocks.start import start_at_mean
from napari_he2st.zoo.blocks.symmetry import mean_over_symmetries, random_symmetry
from napari_he2st.zoo.blocks.trunks import adopt, load_imagenet, torchvision_network
from napari_he2st.zoo.inputs import Tiles
from napari_he2st.zoo.recipe import Recipe

_STATISTICS_BATCHES = 12
"""Training batches from which the mean and spread of the pixels are taken."""


class STNet(Predictor):
    """DenseNet-121 whose last layer gives the logarithm of each gene's share of the counts.

    Parameters
    ----------
    n_genes
        Size of the panel.
    trunk
        A torchvision classifier, see :func:`~napari_he2st.zoo.blocks.trunks.torchvision_network`.
    tile_px
        Width of the tile around the spot.
    imagenet
        Start training from ImageNet weights, as published.

    Notes
    -----
    Pixels are standardised by statistics of the training tiles, kept in ``extras["pixels"]``.
    """

    unit = Spots()
    targets = {"expression": Expression("log_share", panel="mean:250")}
    recipe = Recipe(optimizer="sgd", lr=1e-6, epochs=50, batch_size=32)
    beside = {"pixels": PIXELS}

    def __init__(self, n_genes: int, *, trunk: str = "densenet121", tile_px: int = 224, imagenet: bool = True) -> None:
        super().__init__()
        self.inputs = {"tiles": Tiles(px=tile_px)}
        self.trunk, self.imagenet = trunk, imagenet
        self._classify = adopt(self, torchvision_network(trunk, n_genes))

    def prepare(self, *, tiles: Tensor) -> dict[str, Tensor]:
        """Tiles in 0 … 1, standardised once the statistics of the training tiles are known."""
        return {"patches": standardise(tiles, self.extras.get("pixels"))}

    def forward(self, patches: Tensor) -> Tensor:
        """Natural logarithm of the share of counts, float32 (n, genes), from (n, 3, px, px)."""
        return self._classify(patches)

    def loss(self, targets: Mapping[str, Tensor], *, patches: Tensor) -> Tensor:
        """Squared error, mean over genes and sum over spots, of randomly turned and mirrored tiles."""
        return summed_mse(self(random_symmetry(patches)), targets["expression"])

    def predict(self, *, patches: Tensor, noise: Noise | None = None, average: bool = True) -> Tensor:
        """Mean over the eight symmetries of the tile; with ``average=False`` the upright view alone."""
        return mean_over_symmetries(self, patches) if average else self(patches)

    def fit(self, batches: Batches, recipe: Recipe) -> Iterator[dict[str, float]]:
        """Measure the pixels, start the last layer at the mean of the targets, then train."""
        self._start(batches)
        yield from super().fit(batches, recipe)

    def _start(self, batches: Batches) -> None:
        self.extras.pop("pixels", None)
        first = (prepared["patches"] for _, prepared in islice(batches, _STATISTICS_BATCHES))
        self.extras["pixels"] = pixel_statistics(first)
        if self.imagenet:
            load_imagenet(self, self.trunk)
        last = [layer for layer in self.modules() if isinstance(layer, torch.nn.Linear)][-1]
        start_at_mean(batches, last)


def summed_mse(predicted: Tensor, target: Tensor) -> Tensor:
    """Squared error, mean over the measured genes and sum over the spots of a batch."""
    return nan_mse(predicted, target) * len(target)

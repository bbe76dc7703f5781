"""DeepSpaCE: a convolutional network per spot (Monjo et al., Scientific Reports 12, 2022)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

from napari_he2st.zoo.base import Batches, Expression, Predictor, Spots
from napari_he2st.zoo.blocks.pixels import standardise
from napari_he2st.zoo.blocks.symmetry import random_symmetry
from napari_he2st.zoo.blocks.trunks import adopt, load_imagenet, torchvision_network
from napari_he2st.zoo.inputs import Tiles
from napari_he2st.zoo.recipe import Recipe


class DeepSpaCE(Predictor):
    """VGG-16 or DenseNet-121 whose last layer gives the expression of a few genes, each in 0 … 1.

    Finer maps come from the same network on tiles between the spots.

    Parameters
    ----------
    n_genes
        Size of the panel; published with three marker genes.
    trunk
        A torchvision classifier, see :func:`~napari_he2st.zoo.blocks.trunks.torchvision_network`.
    tile_px
        Width of the tile; published as 2.5 spot diameters, scaled to 224 px.
    imagenet
        Start from ImageNet weights and train the last layer alone.

    Notes
    -----
    The range of each gene is that of the training spots; the original takes that of training and test spots
    together.
    """

    unit = Spots()
    targets = {"expression": Expression("minmax_log10_cp10k", panel="hvg:250")}
    recipe = Recipe(optimizer="adam", lr=1e-4, weight_decay=1e-4, epochs=10, batch_size=128)

    def __init__(self, n_genes: int, *, trunk: str = "vgg16", tile_px: int = 224, imagenet: bool = False) -> None:
        super().__init__()
        self.inputs = {"tiles": Tiles(px=tile_px)}
        self.trunk, self.imagenet = trunk, imagenet
        self._classify = adopt(self, torchvision_network(trunk, n_genes))

    def prepare(self, *, tiles: Tensor) -> dict[str, Tensor]:
        """Tiles standardised as ImageNet's."""
        return {"patches": standardise(tiles)}

    def forward(self, patches: Tensor) -> Tensor:
        """Expression between each gene's smallest and largest training value, float32 (n, genes)."""
        return self._classify(patches)

    def loss(self, targets: Mapping[str, Tensor], *, patches: Tensor) -> Tensor:
        """Smooth L1 of tiles turned, mirrored, cut and shifted in colour at random."""
        return smooth_l1(self(_augment(patches)), targets["expression"])

    def fit(self, batches: Batches, recipe: Recipe) -> Iterator[dict[str, float]]:
        """Train every layer, or the last one on top of ImageNet's."""
        if self.imagenet:
            load_imagenet(self, self.trunk)
            self.requires_grad_(False)
            [layer for layer in self.modules() if isinstance(layer, torch.nn.Linear)][-1].requires_grad_(True)
        yield from super().fit(batches, recipe)


def smooth_l1(predicted: Tensor, target: Tensor) -> Tensor:
    """Smooth L1 loss (beta 1), mean over measured entries."""
    known = target.isfinite()
    filled = torch.where(known, target, predicted.detach())
    return F.smooth_l1_loss(predicted, filled, reduction="sum") / known.sum().clamp(min=1)


def _augment(patches: Tensor) -> Tensor:
    """Symmetry of each tile, then one crop and one colour shift for the batch, each in half of the calls."""
    x, px = random_symmetry(patches), patches.shape[-1]
    if torch.rand(()) < 0.5:
        side = int(px * float(torch.empty(()).uniform_(0.5, 1)) ** 0.5)
        top, left = torch.randint(px - side + 1, (2,)).tolist()
        crop = x[..., top : top + side, left : left + side]
        x = F.interpolate(crop, (px, px), mode="bilinear", align_corners=False)
    if torch.rand(()) < 0.5:
        x = x + 0.3 * torch.randn(len(x), 3, 1, 1).to(x)
    return x

"""Img2ST-Net: the expression of every bin of an image region at once (arXiv 2508.14393)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from napari_he2st.core.noise import Noise
from napari_he2st.zoo.base import Batches, Expression, Label, Output, Predictor, Regions
from napari_he2st.zoo.blocks.image_quality import WINDOW, joint_range, structural_similarity
from napari_he2st.zoo.blocks.losses import nan_mse
from napari_he2st.zoo.blocks.pixels import standardise
from napari_he2st.zoo.blocks.rasters import owner_mean
from napari_he2st.zoo.blocks.start import start_at_mean
from napari_he2st.zoo.blocks.trunks import load_imagenet, torchvision_network
from napari_he2st.zoo.inputs import RegionImage
from napari_he2st.zoo.recipe import Recipe, descend, make_optimizer, make_schedule

_K = (0.02, 0.05)
_SSIM_WEIGHT = 0.5
_CONTRAST_WEIGHT = 1e-4
"""0.01 of the loss at a hundredth of the learning rate, in the original by an optimiser of its own."""
_PROJECTOR_LR = 1e-5


class Img2STNet(Predictor):
    """A ResNet whose last two maps are brought together at the pitch of the bins.

    Parameters
    ----------
    n_genes
        Size of the panel.
    trunk
        A ResNet, see :func:`~napari_he2st.zoo.blocks.trunks.torchvision_network`.
    dim, skip_dim
        Width of the decoder and of the finer map that joins it.
    bins
        Bins on a side of a region.
    tile_px, mpp
        Width of a region and its pixel size: 112 µm in 7 bins of 16 or 14 of 8 µm.
    imagenet
        Start the trunk from ImageNet weights.
    faithful
        Start the last layer from random weights, as published; by default it starts at the mean.

    Notes
    -----
    Where spots are larger than bins, the mean over the bins of a spot is compared with it; the structural
    similarity needs a spot for every bin. The original turns images at random, but not their bins; here neither.
    """

    recipe = Recipe("sgd", lr=1e-4, epochs=150, batch_size=64, schedule="poly:0.9")
    targets: Mapping[str, Expression | Label] = {"expression": Expression("log1p", panel="hvg:300")}

    def __init__(
        self,
        n_genes: int,
        *,
        trunk: str = "resnet50",
        dim: int = 512,
        skip_dim: int = 256,
        bins: int = 14,
        tile_px: int = 448,
        mpp: float = 0.25,
        imagenet: bool = True,
        faithful: bool = False,
    ) -> None:
        super().__init__()
        self.faithful = faithful
        self.unit = Regions(px=tile_px, mpp=mpp, bins=bins)
        self.inputs = {"image": RegionImage()}
        self.outputs = {"expression": Output(per="pixel", pitch_um=self.unit.pitch_um)}
        self.bins, self.trunk, self.imagenet = bins, trunk, imagenet
        network = torchvision_network(trunk, 1)
        stem = (network.conv1, network.bn1, network.relu, network.maxpool)
        self.enc_front = nn.Sequential(*stem, network.layer1, network.layer2)
        self.enc3, self.enc4 = network.layer3, network.layer4
        deep = network.fc.in_features
        self.up_conv = _block(deep, dim)
        self.skip_conv = nn.Conv2d(deep // 2, skip_dim, 1)
        self.fuse = _block(dim + skip_dim, dim)
        self.pred_head = nn.Sequential(*_block(dim, dim), nn.Conv2d(dim, n_genes, 1))

    def prepare(self, *, image: Tensor) -> dict[str, Tensor]:
        """ImageNet's normalisation."""
        return {"images": standardise(image)}

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Expression (n, bins², genes) and features (n, bins², dim) of region images (n, 3, px, px)."""
        fine = self.enc3(self.enc_front(images))
        coarse = F.interpolate(self.up_conv(self.enc4(fine)), fine.shape[-2:], mode="bilinear", align_corners=False)
        both = self.fuse(torch.cat([coarse, self.skip_conv(fine)], dim=1))
        features = F.adaptive_avg_pool2d(both, self.bins)
        predicted = self.pred_head(features)
        return predicted.flatten(2).transpose(1, 2), features.flatten(2).transpose(1, 2)

    def predict(self, *, images: Tensor, noise: Noise | None = None) -> Tensor:
        """Expression, ln (1 + counts), float32 (n, bins², genes)."""
        return self(images)[0]

    def loss(self, targets: Mapping[str, Tensor], *, images: Tensor) -> Tensor:
        """MSE and half of the structural dissimilarity."""
        return self._loss(targets, self(images)[0])

    def _loss(self, targets: Mapping[str, Tensor], predicted: Tensor) -> Tensor:
        expression, owner = targets["expression"], targets["owner"].view(predicted.shape[:2])
        loss = nan_mse(owner_mean(predicted.flatten(0, 1), owner.flatten(), len(expression)), expression)
        whole = _own_spots(owner) & (self.bins >= WINDOW)
        if whole.any():
            loss = loss + _SSIM_WEIGHT * ssim_loss(predicted[whole], expression[owner[whole]])
        return loss

    def fit(self, batches: Batches, recipe: Recipe) -> Iterator[dict[str, float]]:
        """Train together with a projector that tells the bins of a batch apart by their expression."""
        if self.imagenet:
            load_imagenet(self._named_as_published(), self.trunk)
        if not self.faithful:
            start_at_mean(batches, self.pred_head[-1])
        device = self.skip_conv.weight.device
        n_genes = self.pred_head[-1].out_channels
        projector = ContrastiveProjector(self.fuse[0].out_channels, n_genes).to(device)
        optimizer, head = make_optimizer(self, recipe), torch.optim.Adam(projector.parameters(), _PROJECTOR_LR)
        schedule = make_schedule(optimizer, recipe)
        for epoch in range(recipe.epochs):
            self.train()
            total = 0.0
            for targets, prepared in batches:
                predicted, features = self(**prepared)
                loss = self._loss(targets, predicted)
                owner = targets["owner"].flatten()
                known = owner >= 0
                expression = targets["expression"][owner[known]].nan_to_num()
                contrast = projector(features.flatten(0, 1)[known], expression)
                head.zero_grad(set_to_none=True)
                descend(optimizer, loss + _CONTRAST_WEIGHT * contrast, recipe)
                head.step()
                total += float(loss.detach())
            schedule.step()
            yield {"epoch": epoch, "loss": total / max(len(batches), 1)}

    def _named_as_published(self) -> nn.Module:
        """The trunk under the names of torchvision's layers."""
        network = nn.Module()
        layers = (*(self.enc_front[i] for i in (0, 1, 4, 5)), self.enc3, self.enc4)
        for name, layer in zip(("conv1", "bn1", "layer1", "layer2", "layer3", "layer4"), layers, strict=True):
            network.add_module(name, layer)
        return network


class ContrastiveProjector(nn.Module):
    """Image features and expression of bins, projected so that each finds its own.

    Parameters
    ----------
    image_dim, n_genes, dim
        Widths of both sides, and of the projections.
    temperature
        Of the softmax.
    """

    def __init__(self, image_dim: int, n_genes: int, dim: int = 128, temperature: float = 0.07) -> None:
        super().__init__()
        self.temperature = temperature
        self.img_proj, self.expr_proj = (
            nn.Sequential(nn.Linear(n, 2 * dim), nn.ReLU(), nn.Linear(2 * dim, dim)) for n in (image_dim, n_genes)
        )

    def forward(self, features: Tensor, expression: Tensor) -> Tensor:
        """Symmetric cross-entropy of features (…, image_dim) and expression (…, genes) over all bins."""
        image = F.normalize(self.img_proj(features.flatten(0, -2)), dim=-1)
        genes = F.normalize(self.expr_proj(expression.flatten(0, -2)), dim=-1)
        scores, own = image @ genes.T / self.temperature, torch.arange(len(image), device=image.device)
        return (F.cross_entropy(scores, own) + F.cross_entropy(scores.T, own)) / 2


def ssim_loss(predicted: Tensor, measured: Tensor) -> Tensor:
    """1 − structural similarity of expression maps (n, bins², genes), bins row by row."""
    predicted, measured = as_maps(predicted), as_maps(measured)
    span = joint_range(predicted, measured)
    return 1 - structural_similarity(predicted, measured, data_range=span, window="gaussian", k=_K).mean()


def as_maps(expression: Tensor) -> Tensor:
    """(n, bins², genes) as (n, genes, bins, bins)."""
    side = math.isqrt(expression.shape[1])
    return expression.transpose(1, 2).unflatten(2, (side, side))


def _own_spots(owner: Tensor) -> Tensor:
    """Which regions (n, bins²) have a spot of its own for every bin."""
    ordered = owner.sort(dim=1).values
    return (ordered[:, 0] >= 0) & (ordered.diff(dim=1) > 0).all(dim=1)


def _block(n_in: int, n_out: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(n_in, n_out, 3, padding=1, bias=False), nn.BatchNorm2d(n_out), nn.ReLU())

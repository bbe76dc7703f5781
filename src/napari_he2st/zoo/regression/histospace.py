"""HistoSPACE: a light network on a pre-trained auto-encoder (Kumar and Chatterjee, Methods 2024)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from napari_he2st.zoo.base import Batches, Expression, Predictor, Spots
from napari_he2st.zoo.blocks.start import start_at_mean
from napari_he2st.zoo.inputs import Tiles
from napari_he2st.zoo.recipe import Recipe, descend, make_optimizer


class HistoSPACE(Predictor):
    """Three frozen convolutions of an auto-encoder, one more of its own, two linear layers.

    Parameters
    ----------
    n_genes
        Size of the panel.
    widths
        Channels of the three layers of the auto-encoder.
    dim
        Width between the two linear layers, which have no activation between them.
    tile_px
        Width of the tile, a multiple of 16.
    pretrain_epochs, pretrain_lr
        Of the auto-encoder before the encoder is frozen; 0 epochs where its weights are loaded.
    faithful
        In training, let the frozen encoder's batch statistics drift, and compare the auto-encoder's output
        (0 … 1) with images in −1 … 1, and start at random. By default the encoder stays as it is, images are
        compared in 0 … 1, and predictions start at the mean of the targets.

    Notes
    -----
    The original trains the auto-encoder on ICIAR 2018 (BACH) tiles; here it sees the training tiles. Each
    channel of a tile is scaled so that its 99th percentile is white; the Vahadane stain normalisation of the
    original is left to the slide.
    """

    unit = Spots()
    targets = {"expression": Expression("log10_cp10k", panel="hvg:250")}
    recipe = Recipe("adam", lr=1e-4, epochs=50, batch_size=256)

    def __init__(
        self,
        n_genes: int,
        *,
        widths: tuple[int, int, int] = (32, 64, 128),
        dim: int = 256,
        tile_px: int = 128,
        pretrain_epochs: int = 150,
        pretrain_lr: float = 1e-5,
        faithful: bool = False,
    ) -> None:
        super().__init__()
        self.inputs = {"tiles": Tiles(px=tile_px)}
        self.widths, self.faithful = widths, faithful
        self.pretrain_epochs, self.pretrain_lr = pretrain_epochs, pretrain_lr
        last = widths[-1]
        self.encoder = Encoder(widths).requires_grad_(False)
        self.conv1 = nn.Conv2d(last, last, 3, padding=1)
        self.bn1 = nn.BatchNorm2d(last)
        self.fc1 = nn.Linear(last * (tile_px // 16) ** 2, dim)
        self.fc2 = nn.Linear(dim, n_genes)

    def prepare(self, *, tiles: Tensor) -> dict[str, Tensor]:
        """Tiles without colour cast, in −1 … 1."""
        x = tiles.float() / 255
        white = torch.quantile(x.flatten(2), 0.99, dim=2).clamp(min=1 / 255)
        return {"images": ((x / white[..., None, None]).clamp(max=1) - 0.5) / 0.5}

    def forward(self, images: Tensor) -> Tensor:
        """log10 (1 + CP10k), float32 (n, genes), from (n, 3, px, px) in −1 … 1."""
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(self.encoder(images)))), 2)
        return self.fc2(self.fc1(x.flatten(1)))

    def train(self, mode: bool = True) -> HistoSPACE:
        """Switch to training; the frozen encoder keeps its statistics unless ``faithful``."""
        super().train(mode)
        if not self.faithful:
            self.encoder.eval()
        return self

    def fit(self, batches: Batches, recipe: Recipe) -> Iterator[dict[str, Any]]:
        """Train the auto-encoder (records with ``reconstruction``), freeze its encoder, train the rest."""
        if self.pretrain_epochs:
            yield from self._pretrain(batches, replace(recipe, lr=self.pretrain_lr, epochs=self.pretrain_epochs))
        if not self.faithful:
            start_at_mean(batches, self.fc2)
        yield from super().fit(batches, recipe)

    def _pretrain(self, batches: Batches, recipe: Recipe) -> Iterator[dict[str, Any]]:
        network = AutoEncoder(self.widths).to(self.fc1.weight.device)
        optimizer = make_optimizer(network, recipe)
        for epoch in range(recipe.epochs):
            total = 0.0
            for _, prepared in batches:
                images = prepared["images"]
                wanted = images if self.faithful else (images + 1) / 2
                loss = F.mse_loss(network(images), wanted)
                descend(optimizer, loss, recipe)
                total += float(loss.detach())
            yield {"epoch": epoch, "reconstruction": total / max(len(batches), 1)}
        self.encoder.load_state_dict(network.encoder.state_dict())


class Encoder(nn.Module):
    """Three convolutions, each normalised, rectified and pooled."""

    def __init__(self, widths: tuple[int, int, int]) -> None:
        super().__init__()
        for number, (before, after) in enumerate(zip((3, *widths[:-1]), widths, strict=True), start=1):
            self.add_module(f"conv{number}", nn.Conv2d(before, after, 3, padding=1))
            self.add_module(f"bn{number}", nn.BatchNorm2d(after))

    def forward(self, x: Tensor) -> Tensor:
        """Feature map (n, widths[-1], px / 8, px / 8)."""
        for conv, norm in ((self.conv1, self.bn1), (self.conv2, self.bn2), (self.conv3, self.bn3)):
            x = F.max_pool2d(F.relu(norm(conv(x))), 2)
        return x


class _Decoder(nn.Module):
    """The mirror image of :class:`Encoder`, ending in a sigmoid."""

    def __init__(self, widths: tuple[int, int, int]) -> None:
        super().__init__()
        first, second, third = widths
        self.conv_transpose1 = nn.ConvTranspose2d(third, second, 4, stride=2, padding=1)
        self.bn1 = nn.BatchNorm2d(second)
        self.conv_transpose2 = nn.ConvTranspose2d(second, first, 4, stride=2, padding=1)
        self.bn2 = nn.BatchNorm2d(first)
        self.conv_transpose3 = nn.ConvTranspose2d(first, 3, 4, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv_transpose1(x)))
        x = F.relu(self.bn2(self.conv_transpose2(x)))
        return self.conv_transpose3(x).sigmoid()


class AutoEncoder(nn.Module):
    """The network that the encoder is trained in."""

    def __init__(self, widths: tuple[int, int, int] = (32, 64, 128)) -> None:
        super().__init__()
        self.encoder, self.decoder = Encoder(widths), _Decoder(widths)

    def forward(self, images: Tensor) -> Tensor:
        """Images in 0 … 1 of the same shape."""
        return self.decoder(self.encoder(images))

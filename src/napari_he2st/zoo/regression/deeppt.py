"""DeepPT: bulk expression from tiles, built from its description (Hoang et al., Nature Cancer 2024)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from napari_he2st.core.errors import ModelError
from napari_he2st.zoo.base import Batches, Expression, Predictor, Spots
from napari_he2st.zoo.blocks.losses import nan_mse
from napari_he2st.zoo.encoders.build import spec_of
from napari_he2st.zoo.inputs import Features
from napari_he2st.zoo.recipe import Recipe, descend, make_optimizer


class DeepPT(Predictor):
    """Features of a frozen encoder, compressed by an auto-encoder, and one small network per group of genes.

    The value of a slide is the mean over its tiles; the tiles themselves make a map. Five networks, each
    trained with its own validation split, are averaged.

    Parameters
    ----------
    n_genes
        Size of the panel.
    encoder
        See :class:`~napari_he2st.zoo.inputs.Features`; published is a ResNet-50.
    dim
        Width of the compressed features and of the hidden layer.
    n_groups
        Groups of genes of similar median expression, each predicted by a network of its own.
    dropout
        In the hidden layer.
    tile_px, mpp
        Of the tile.
    pretrain_epochs
        Epochs of the auto-encoder.

    Notes
    -----
    From the paper: the widths 2048, 512 and 512, the auto-encoder, the groups by median, the five splits and
    the mean over tiles. Not in the paper, and chosen here: ReLU, dropout, the number of groups, the learning
    rate and the number of epochs. A target of one row for many tiles is the bulk expression of their slide.
    """

    order: Tensor
    unit = Spots()
    targets = {"expression": Expression("log1p_cp10k", panel="hvg:1000")}
    recipe = Recipe("adam", lr=1e-4, epochs=100, batch_size=32)
    members = 5

    def __init__(
        self,
        n_genes: int,
        *,
        encoder: str = "timm:resnet50.tv_in1k",
        dim: int = 512,
        n_groups: int = 4,
        dropout: float = 0.2,
        tile_px: int = 512,
        mpp: float | None = 0.5,
        pretrain_epochs: int = 50,
    ) -> None:
        super().__init__()
        self.inputs = {"features": Features(encoder=encoder, px=tile_px, mpp=mpp)}
        self.pretrain_epochs = pretrain_epochs
        width = spec_of(encoder).dim
        self.compress, self.expand = nn.Linear(width, dim), nn.Linear(dim, width)
        sizes = [len(part) for part in torch.arange(n_genes).tensor_split(min(n_groups, n_genes))]
        self.heads = nn.ModuleList(
            nn.Sequential(nn.Linear(dim, dim), nn.ReLU(), nn.Dropout(dropout), nn.Linear(dim, size)) for size in sizes
        )
        self.register_buffer("order", torch.arange(n_genes))

    def forward(self, features: Tensor) -> Tensor:
        """log1p CP10k of each tile, float32 (n, genes)."""
        code = F.relu(self.compress(features))
        grouped = torch.cat([head(code) for head in self.heads], dim=1)
        return grouped[:, self.order.argsort()]

    def loss(self, targets: Mapping[str, Tensor], *, features: Tensor) -> Tensor:
        """Mean squared error of the tiles, or of their mean where the target is one row."""
        bag = torch.zeros(len(features), dtype=torch.int64, device=features.device)
        whole = len(targets["expression"]) < len(features)
        return self._loss(features, bag if whole else torch.arange(len(features)).to(bag), targets["expression"])

    def _loss(self, features: Tensor, bag: Tensor, target: Tensor) -> Tensor:
        n = torch.zeros(len(target), device=bag.device).index_add(0, bag, torch.ones_like(bag, dtype=torch.float32))
        total = torch.zeros_like(target).index_add(0, bag, self(features))
        return nan_mse(total / n[:, None], target)

    def fit(self, batches: Batches, recipe: Recipe) -> Iterator[dict[str, float]]:
        """Train the auto-encoder (records with ``reconstruction``), freeze it, train the networks.

        Records then hold ``loss`` and ``validation``, on a fifth of the spots (or slides) drawn for this
        member; the state of the best validation is kept.
        """
        features, bag, target = _gather(batches)
        self.order.copy_(target.nanmedian(0).values.nan_to_num().argsort())
        yield from self._pretrain(features, recipe)
        drawn = torch.randperm(len(target))
        validation, training = drawn.tensor_split([len(drawn) // 5])
        self.compress.requires_grad_(False)
        optimizer = make_optimizer(self.heads, recipe)
        best, kept = float("inf"), {}
        for epoch in range(recipe.epochs):
            self.train()
            losses = []
            for rows in training[torch.randperm(len(training))].split(recipe.batch_size):
                loss = self._loss(*_bags(features, bag, target, rows))
                descend(optimizer, loss, recipe)
                losses.append(float(loss.detach()))
            record = {"epoch": epoch, "loss": sum(losses) / len(losses)}
            if len(validation):
                self.eval()
                with torch.no_grad():
                    record["validation"] = float(self._loss(*_bags(features, bag, target, validation)))
                if record["validation"] < best:
                    best = record["validation"]
                    kept = {key: value.clone() for key, value in self.heads.state_dict().items()}
            yield record
        if kept:
            self.heads.load_state_dict(kept)

    def _pretrain(self, features: Tensor, recipe: Recipe) -> Iterator[dict[str, float]]:
        optimizer = make_optimizer(nn.ModuleList([self.compress, self.expand]), recipe)
        for epoch in range(self.pretrain_epochs):
            losses = []
            for rows in torch.randperm(len(features)).split(recipe.batch_size):
                x = features[rows.to(features.device)]
                loss = F.mse_loss(self.expand(F.relu(self.compress(x))), x)
                descend(optimizer, loss, recipe)
                losses.append(float(loss.detach()))
            yield {"epoch": epoch, "reconstruction": sum(losses) / len(losses)}


def _gather(batches: Batches) -> tuple[Tensor, Tensor, Tensor]:
    """All features (tiles, width), the target row each tile counts for (tiles,), and the targets."""
    features, bags, targets, n = [], [], [], 0
    for target, prepared in batches:
        x, y = prepared["features"], target["expression"]
        rows = torch.arange(len(y)) if len(y) == len(x) else torch.zeros(len(x), dtype=torch.int64)
        features.append(x)
        bags.append(rows.to(x.device) + n)
        targets.append(y)
        n += len(y)
    if not n:
        raise ModelError("There are no training spots")
    return torch.cat(features), torch.cat(bags), torch.cat(targets)


def _bags(features: Tensor, bag: Tensor, target: Tensor, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The part of :func:`_gather` that belongs to some target rows."""
    rows = rows.to(bag.device)
    number = torch.full((len(target),), -1, device=bag.device)
    number[rows] = torch.arange(len(rows), device=bag.device)
    here = number[bag] >= 0
    return features[here], number[bag[here]], target[rows]

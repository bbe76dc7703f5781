"""CLAM's networks: gated attention over a bag with clustering of its extremes, and its two plain baselines.

Lu et al., "Data-efficient and weakly supervised computational pathology on whole-slide images",
Nature Biomedical Engineering 5 (2021).
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

WIDTHS = {"small": (512, 256), "big": (512, 384)}
"""Size → width of the features and of the attention."""
_ATTENTION_DROPOUT = 0.25


class GatedAttention(nn.Module):
    """Scores of tiles from two branches, one of which gates the other."""

    def __init__(self, width: int, dim: int, n_scores: int, *, dropout: bool) -> None:
        super().__init__()
        last: list[nn.Module] = [nn.Dropout(_ATTENTION_DROPOUT)] if dropout else []
        self.attention_a = nn.Sequential(nn.Linear(width, dim), nn.Tanh(), *last)
        self.attention_b = nn.Sequential(nn.Linear(width, dim), nn.Sigmoid(), *last)
        self.attention_c = nn.Linear(dim, n_scores)

    def forward(self, h: Tensor) -> Tensor:
        """Scores, shape (tiles, n_scores)."""
        return self.attention_c(self.attention_a(h) * self.attention_b(h))


class PlainAttention(nn.Module):
    """Scores of tiles from one branch."""

    def __init__(self, width: int, dim: int, n_scores: int, *, dropout: bool) -> None:
        super().__init__()
        last: list[nn.Module] = [nn.Dropout(_ATTENTION_DROPOUT)] if dropout else []
        self.module = nn.Sequential(nn.Linear(width, dim), nn.Tanh(), *last, nn.Linear(dim, n_scores))

    def forward(self, h: Tensor) -> Tensor:
        """Scores, shape (tiles, n_scores)."""
        return self.module(h)


class ClamNet(nn.Module):
    """CLAM with one attention for all classes or one for each.

    Parameters
    ----------
    feature_dim, n_classes
        Width of a tile's feature, and number of classes.
    widths
        Of the layers before the attention, and of the attention last.
    per_class
        Whether every class has its own attention and its own bag score (``MB``) or not (``SB``).
    gate, dropout
        Whether attention is gated; share that is dropped after each layer before it (the attention itself
        drops a quarter where this is not 0).
    instance_classes
        Outputs of the classifiers of single tiles.
    keep_dropout_layer
        Whether a dropout layer is there even where its share is 0, which counts in the keys.
    """

    def __init__(
        self,
        feature_dim: int,
        n_classes: int,
        *,
        widths: tuple[int, ...] = WIDTHS["small"],
        per_class: bool = False,
        gate: bool = True,
        dropout: float = 0.25,
        instance_classes: int = 2,
        keep_dropout_layer: bool = True,
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        before = feature_dim
        for width in widths[:-1]:
            layers += [nn.Linear(before, width), nn.ReLU()]
            if dropout or keep_dropout_layer:
                layers.append(nn.Dropout(dropout))
            before = width
        attention = GatedAttention if gate else PlainAttention
        layers.append(attention(before, widths[-1], n_classes if per_class else 1, dropout=bool(dropout)))
        self.attention_net = nn.Sequential(*layers)
        self.classifiers = (
            nn.ModuleList(nn.Linear(before, 1) for _ in range(n_classes)) if per_class else nn.Linear(before, n_classes)
        )
        self.instance_classifiers = nn.ModuleList(nn.Linear(before, instance_classes) for _ in range(n_classes))

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Logits of a bag, with what they came from.

        Parameters
        ----------
        features
            Shape (tiles, feature_dim).

        Returns
        -------
        logits, attention, slide, h
            Shapes (1, n_classes), (scores, tiles) before the softmax, (scores, width), (tiles, width).
        """
        h = self.attention_net[:-1](features)
        attention = self.attention_net[-1](h).mT
        slide = attention.softmax(dim=1) @ h
        if isinstance(self.classifiers, nn.ModuleList):
            logits = torch.cat([classify(row[None]) for classify, row in zip(self.classifiers, slide, strict=True)], 1)
        else:
            logits = self.classifiers(slide)
        return logits, attention, slide, h

    def instances(self, attention: Tensor, h: Tensor, label: int, k: int, *, subtyping: bool) -> tuple[Tensor, ...]:
        """Clustering of the tiles that attention ranks first and last.

        Parameters
        ----------
        attention, h
            As :meth:`forward` returns them.
        label
            Class of the slide.
        k
            Tiles at each end.
        subtyping
            Whether the classes exclude each other, so that the first tiles of the others are no evidence.

        Returns
        -------
        loss, labels, predictions
            A scalar; int64 of the tiles in the order of the classes.
        """
        shares = attention.softmax(dim=1)
        total, labels, predictions = h.new_zeros(()), [], []
        k = min(k, len(h))
        for number, classify in enumerate(self.instance_classifiers):
            share = shares[number if len(shares) > 1 else 0]
            if number == label:
                rows = torch.cat([share.topk(k).indices, (-share).topk(k).indices])
                wanted = torch.arange(2 * k, device=h.device) < k
            elif subtyping:
                rows, wanted = share.topk(k).indices, torch.zeros(k, dtype=torch.bool, device=h.device)
            else:
                continue
            logits = classify(h[rows])
            total = total + F.cross_entropy(logits, wanted.long())
            labels.append(wanted.long())
            predictions.append(logits.argmax(dim=1))
        if subtyping:
            total = total / len(self.instance_classifiers)
        return total, torch.cat(labels), torch.cat(predictions)


class TopTileNet(nn.Module):
    """The bag is its best tile (CLAM's baselines ``MIL_fc`` and, for more classes, ``MIL_fc_mc``).

    Parameters
    ----------
    feature_dim, n_classes, dim, dropout
        Width of a tile's feature, number of classes, width of the hidden layer, share that is dropped.
    """

    def __init__(self, feature_dim: int, n_classes: int, *, dim: int = 512, dropout: float = 0.25) -> None:
        super().__init__()
        self.fc = nn.Sequential(nn.Linear(feature_dim, dim), nn.ReLU(), nn.Dropout(dropout))
        self.name: Literal["classifier", "classifiers"] = "classifier" if n_classes == 2 else "classifiers"
        self.add_module(self.name, nn.Linear(dim, n_classes))

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Of the best tile.

        Returns
        -------
        logits, top, shares, slide
            Shapes (1, n_classes); the class, (1, 1) of two and (1,) of more; probabilities of all tiles,
            (tiles, n_classes); features of the tile, (1, dim).
        """
        h = self.fc(features)
        logits = self.get_submodule(self.name)(h)
        shares = logits.softmax(dim=1)
        if self.name == "classifier":
            tile = shares[:, 1].argmax()
            top = shares[tile].argmax().reshape(1, 1)
        else:
            flat = shares.flatten().argmax()
            tile, top = flat // shares.shape[1], (flat % shares.shape[1]).reshape(1)
        return logits[tile][None], top, shares, h[tile][None]

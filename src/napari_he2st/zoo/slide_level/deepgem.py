"""DeepGEM: driver mutations of lung cancer from one slide (Lancet Oncology 26, 2025)."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from napari_he2st.zoo.blocks.bags import BagClassifier, at_least, width_of
from napari_he2st.zoo.recipe import Recipe

_MOMENTUM = (0.95, 0.8)
_MOMENTUM_EPOCHS = 200


class DeepGEM(BagClassifier):
    """Tiles that look at each other, and a few learned questions that are put to them.

    Parameters
    ----------
    n_classes
        Wild type and mutated.
    encoder, feature_dim
        Of the tiles, and the width of its features (by default the encoder's).
    dim, depth
        Width of a tile's state, and levels.
    n_queries
        Questions.
    dropout
        In the aggregator.
    faithful
        Fill a slide up to ``max_tiles`` with zeros that take part in attention, as published. By default
        there is no filling.
    tile_px, tile_mpp, max_tiles
        Of the tiles: 1,120 px at 20×, 500 of a slide.
    """

    # The training code is not public: optimiser and numbers are those of its settings file.
    recipe = Recipe("adamw", lr=2e-4, weight_decay=1e-4, epochs=300, batch_size=1, clip=0.01)

    def __init__(
        self,
        n_classes: int = 2,
        *,
        encoder: str = "ctranspath",
        feature_dim: int | None = None,
        dim: int = 64,
        depth: int = 3,
        n_queries: int = 5,
        dropout: float = 0.1,
        faithful: bool = False,
        tile_px: int = 1120,
        tile_mpp: float | None = 0.5,
        max_tiles: int | None = 500,
    ) -> None:
        super().__init__(encoder=encoder, tile_px=tile_px, tile_mpp=tile_mpp, max_tiles=max_tiles)
        self.faithful, self.max_tiles = faithful, max_tiles
        self.register_buffer("prototypes", torch.zeros(n_classes, dim))
        self.patch_encoder = _TileEncoder(width_of(encoder, feature_dim), dim, depth, n_classes)
        self.wsi_aggregator = nn.Module()
        self.wsi_aggregator.decoder = nn.Module()
        self.wsi_aggregator.decoder.layers = nn.ModuleList(_Decoder(dim, dropout) for _ in range(2))
        self.query_embed = nn.Embedding(n_queries, dim)
        self.wsi_classifier = nn.Linear(n_queries * dim, n_classes)

    def forward(self, bags: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Logits of slides (n, n_classes) and of tiles (n, tiles, n_classes), and the tiles' states."""
        instance, x = self.patch_encoder(bags)
        queries = self.query_embed.weight.expand(len(bags), -1, -1)
        for layer in self.wsi_aggregator.decoder.layers:
            queries = layer(queries, x)
        return self.wsi_classifier(queries.flatten(1)), instance, x

    def scores(self, features: Tensor, centres: Tensor) -> tuple[Tensor, Tensor]:
        """Class probabilities, and those of the tiles."""
        logits, instance = self._logits(features)
        return logits[0].softmax(dim=-1), instance.softmax(dim=-1)

    def bag_loss(self, label: Tensor, features: Tensor, centres: Tensor) -> Tensor:
        """Cross-entropy of the slide."""
        return F.cross_entropy(self._logits(features)[0], label[None])

    def _logits(self, features: Tensor) -> tuple[Tensor, Tensor]:
        bag = at_least(features, self.max_tiles or 0)[0] if self.faithful else features
        logits, instance, _ = self(bag[None])
        return logits, instance[0, : len(features)]


class _TileEncoder(nn.Module):
    def __init__(self, width: int, dim: int, depth: int, n_classes: int) -> None:
        super().__init__()
        self.depth = depth
        # Two of its parts are in the published files and take no part in a prediction.
        self.patch_to_embedding = nn.Linear(width, dim)
        for level in range(depth):
            widths = (dim if level else width, 2 * dim, 4 * dim, 2 * dim, 2 * dim, dim)
            layers: list[nn.Module] = []
            for before, after in pairwise(widths):
                layers += [nn.Linear(before, after), nn.Tanh(), nn.LayerNorm(after), nn.Dropout(0.1)]
            self.add_module(f"depth_{level}", nn.Sequential(*layers[:-1]))
            self.add_module(f"encode_{level}", nn.TransformerEncoderLayer(dim, 2))
            looking = nn.TransformerEncoder(nn.TransformerEncoderLayer(dim, 2), 1, enable_nested_tensor=False)
            self.add_module(f"trans_{level}", looking)
            self.add_module(f"res_{level}", nn.Linear(width, dim))
        self.mlp_head = nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, n_classes))

    def forward(self, bags: Tensor) -> tuple[Tensor, Tensor]:
        x, part = bags, self.get_submodule
        for level in range(self.depth):
            tiles = part(f"depth_{level}")(x).transpose(0, 1)
            x = part(f"trans_{level}")(tiles).transpose(0, 1) + part(f"res_{level}")(bags).relu()
        return self.mlp_head(x), x


class _Decoder(nn.Module):
    """Questions look at each other, then at the tiles."""

    def __init__(self, dim: int, dropout: float) -> None:
        super().__init__()
        self.cross_attn = nn.MultiheadAttention(dim, 4, dropout=dropout, batch_first=True)
        self.norm1 = nn.LayerNorm(dim)
        self.self_attn = nn.MultiheadAttention(dim, 4, dropout=dropout, batch_first=True)
        self.norm2 = nn.LayerNorm(dim)
        self.linear1 = nn.Linear(dim, 2 * dim)
        self.linear2 = nn.Linear(2 * dim, dim)
        self.norm3 = nn.LayerNorm(dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, queries: Tensor, tiles: Tensor) -> Tensor:
        seen = self.self_attn(queries, queries, queries, need_weights=False)[0]
        queries = self.norm2(queries + self.dropout(seen))
        seen = self.cross_attn(queries, tiles, tiles, need_weights=False)[0]
        queries = self.norm1(queries + self.dropout(seen))
        hidden = self.linear2(self.dropout(self.linear1(queries).relu()))
        return self.norm3(queries + self.dropout(hidden))


class PartialLoss:
    """The published loss for tiles whose own label is uncertain.

    Parameters
    ----------
    confidence
        Share of each class in the label of each instance, shape (instances, n_classes).
    momentum
        How much of it an update keeps.
    """

    def __init__(self, confidence: Tensor, momentum: float = _MOMENTUM[0]) -> None:
        self.confidence, self.momentum = confidence.clone(), momentum

    def __call__(self, logits: Tensor, index: Tensor) -> Tensor:
        """Cross-entropy of some instances against their confidence."""
        return -(logits.log_softmax(dim=1) * self.confidence[index]).sum(dim=1).mean()

    def update(self, prototype_scores: Tensor, index: Tensor, candidates: Tensor) -> None:
        """Move instances towards the likeliest class that is possible for them."""
        likeliest = (prototype_scores * candidates).argmax(dim=1)
        wanted = F.one_hot(likeliest, self.confidence.shape[1]).to(self.confidence.dtype)
        self.confidence[index] = self.momentum * self.confidence[index] + (1 - self.momentum) * wanted

    def at_epoch(self, epoch: int) -> None:
        """Set the momentum of an epoch."""
        first, last = _MOMENTUM
        self.momentum = first + epoch / _MOMENTUM_EPOCHS * (last - first)

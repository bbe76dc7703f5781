"""Receptor status of breast cancer: a CNN for tiles and a transformer for bags (Communications Medicine 4, 2024)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from napari_he2st.core.errors import ModelError
from napari_he2st.core.noise import Noise
from napari_he2st.zoo.blocks.bags import BagClassifier, width_of
from napari_he2st.zoo.blocks.draws import uniform
from napari_he2st.zoo.blocks.vit import join_heads, split_heads
from napari_he2st.zoo.recipe import Recipe


class ReceptorMIL(BagClassifier):
    """Bags of tiles drawn at random, whose scores are averaged.

    Parameters
    ----------
    n_classes
        Negative and positive.
    encoder, feature_dim
        Of the tiles, and the width of its features (by default the encoder's). The publication trains
        :class:`PreActResNet` for each receptor.
    bag_size
        Tiles of a bag.
    dim, depth, heads, dim_head, hidden_dim
        Of the transformer.
    dropout, token_dropout
        In its layers, and on its tokens.
    layout
        ``"vit"`` or ``"simple"``: the same computation with other keys.
    n_bags_repeats
        How often all tiles are shuffled and cut into bags.
    tile_px, tile_mpp, max_tiles
        Of the tiles: 256 px at 10×, 500 of a slide.
    """

    draws = 1
    recipe = Recipe("adamw", lr=0.01, epochs=100, batch_size=1, schedule="step:30:0.1")

    def __init__(
        self,
        n_classes: int = 2,
        *,
        encoder: str = "resnet18",
        feature_dim: int | None = None,
        bag_size: int = 100,
        dim: int = 512,
        depth: int = 2,
        heads: int = 8,
        dim_head: int = 64,
        hidden_dim: int = 512,
        dropout: float = 0.0,
        token_dropout: float = 0.2,
        layout: Literal["vit", "simple"] = "vit",
        n_bags_repeats: int = 10,
        tile_px: int = 256,
        tile_mpp: float | None = 1.0,
        max_tiles: int | None = 500,
    ) -> None:
        super().__init__(encoder=encoder, tile_px=tile_px, tile_mpp=tile_mpp, max_tiles=max_tiles)
        self.bag_size, self.n_bags_repeats = bag_size, n_bags_repeats
        self.pos_embedding = nn.Parameter(torch.randn(1, bag_size, dim))
        self.to_token_embedding = nn.Linear(width_of(encoder, feature_dim), dim)
        self.dropout = nn.Dropout(token_dropout)
        self.transformer = nn.Module()
        block = _vit_layer if layout == "vit" else _simple_layer
        self.transformer.layers = nn.ModuleList(block(dim, heads, dim_head, hidden_dim, dropout) for _ in range(depth))
        self.linear_head = nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, n_classes))

    def forward(self, bags: Tensor) -> Tensor:
        """Logits (n, n_classes) of bags (n, bag_size, feature_dim)."""
        x = self.dropout(self.to_token_embedding(bags) + self.pos_embedding)
        for attention, feed_forward in self.transformer.layers:
            x = x + attention(x)
            x = x + feed_forward(x)
        return self.linear_head(x.mean(dim=1))

    def predict(self, *, noise: Noise | None = None, features: Tensor, centres: Tensor) -> dict[str, Tensor]:
        """``label``: mean over all bags of all repeats; ``attention``: mean score of the bags a tile was in."""
        order = uniform(noise, features[:1], self.n_bags_repeats, max(len(features), self.bag_size))[0].argsort(dim=1)
        n_bags = order.shape[1] // self.bag_size
        # A slide with too few tiles gives one bag, in which tiles come again.
        rows = order[:, : n_bags * self.bag_size].reshape(-1, self.bag_size) % len(features)
        shares = torch.cat([self(features[part]).softmax(dim=-1) for part in rows.split(16)])
        total = features.new_zeros(len(features)).index_add_(
            0, rows.flatten(), shares[:, 1:].sum(1).repeat_interleave(self.bag_size)
        )
        times = features.new_zeros(len(features)).index_add_(
            0, rows.flatten(), torch.ones_like(rows.flatten(), dtype=features.dtype)
        )
        return {"label": shares.mean(dim=0)[None], "attention": (total / times)[:, None]}

    def bag_loss(self, label: Tensor, features: Tensor, centres: Tensor) -> Tensor:
        """Cross-entropy of one bag drawn at random."""
        if not len(features):
            raise ModelError("A slide has no tiles", todo="Check its tissue mask")
        order = torch.randperm(max(len(features), self.bag_size), device=features.device)[: self.bag_size]
        return F.cross_entropy(self(features[order % len(features)][None]), label[None])


class _Attention(nn.Module):
    def __init__(self, dim: int, heads: int, dim_head: int, dropout: float, *, bias: bool, norm: bool) -> None:
        super().__init__()
        self.heads = heads
        if norm:
            self.norm = nn.LayerNorm(dim)
        self.to_qkv = nn.Linear(dim, 3 * heads * dim_head, bias=False)
        out = nn.Linear(heads * dim_head, dim, bias=bias)
        self.to_out = nn.Sequential(out, nn.Dropout(dropout)) if bias else out

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(x) if hasattr(self, "norm") else x
        q, k, v = (split_heads(part, self.heads) for part in self.to_qkv(x).chunk(3, dim=-1))
        return self.to_out(join_heads(F.scaled_dot_product_attention(q, k, v)))


class _PreNorm(nn.Module):
    def __init__(self, dim: int, fn: nn.Module) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.fn = fn

    def forward(self, x: Tensor) -> Tensor:
        return self.fn(self.norm(x))


class _FeedForward(nn.Module):
    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.net = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


def _vit_layer(dim: int, heads: int, dim_head: int, hidden: int, dropout: float) -> nn.ModuleList:
    drop = nn.Dropout(dropout)
    feed = _FeedForward(nn.Linear(dim, hidden), nn.GELU(), drop, nn.Linear(hidden, dim), drop)
    attention = _Attention(dim, heads, dim_head, dropout, bias=True, norm=False)
    return nn.ModuleList([_PreNorm(dim, attention), _PreNorm(dim, feed)])


def _simple_layer(dim: int, heads: int, dim_head: int, hidden: int, dropout: float) -> nn.ModuleList:
    feed = _FeedForward(nn.LayerNorm(dim), nn.Linear(dim, hidden), nn.GELU(), nn.Linear(hidden, dim))
    return nn.ModuleList([_Attention(dim, heads, dim_head, dropout, bias=False, norm=True), feed])


class PreActResNet(nn.Module):
    """The published CNN: a narrow ResNet with activations before the convolutions; tiles to features (n, 512).

    Parameters
    ----------
    n_classes
        Outputs of its last layer.
    blocks
        Of each of the four stages.
    """

    def __init__(self, n_classes: int = 2, *, blocks: tuple[int, ...] = (3, 4, 6, 3)) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        channels = 16
        for number, count in enumerate(blocks):
            planes = 16 * 2**number
            layers = []
            for block in range(count):
                layers.append(_Bottleneck(channels, planes, 2 if number and block == 0 else 1, first=block == 0))
                channels = 4 * planes
            self.add_module(f"layer{number + 1}", nn.Sequential(*layers))
        self.linear = nn.Linear(channels, n_classes)

    def forward(self, tiles: Tensor) -> tuple[Tensor, Tensor]:
        """Logits and features of normalised tiles."""
        x = self.conv1(tiles)
        for number in range(1, 5):
            x = self.get_submodule(f"layer{number}")(x)
        features = x.mean((2, 3))
        return self.linear(features), features


class _Bottleneck(nn.Module):
    def __init__(self, channels: int, planes: int, stride: int, *, first: bool) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv1 = nn.Conv2d(channels, planes, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, stride, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(planes)
        self.conv3 = nn.Conv2d(planes, 4 * planes, 1, bias=False)
        if first:
            self.shortcut = nn.Sequential(nn.Conv2d(channels, 4 * planes, 1, stride, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        out = self.bn1(x).relu()
        shortcut = self.shortcut(out) if hasattr(self, "shortcut") else x
        out = self.conv2(self.bn2(self.conv1(out)).relu())
        return self.conv3(self.bn3(out).relu()) + shortcut

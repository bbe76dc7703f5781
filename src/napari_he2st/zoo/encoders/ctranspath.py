"""CTransPath: a Swin transformer whose patches come from a small convolutional stem.

Wang et al., "Transformer-based unsupervised contrastive learning for histopathological image
classification", Medical Image Analysis 81 (2022). CHIEF's patch encoder is the same network.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

WINDOW = 7


class CTransPath(nn.Module):
    """The network, tiles (n, 3, 224, 224) to the mean of its last tokens (n, 8 · dim).

    Parameters
    ----------
    dim
        Width of the first stage; it doubles from stage to stage.
    depths, heads
        Blocks and attention heads of each stage.
    px
        Width of a tile in pixels, a multiple of 224.
    """

    def __init__(
        self,
        *,
        dim: int = 96,
        depths: tuple[int, ...] = (2, 2, 6, 2),
        heads: tuple[int, ...] = (3, 6, 12, 24),
        px: int = 224,
    ) -> None:
        super().__init__()
        self.patch_embed = _Stem(dim)
        last = len(depths) - 1
        self.layers = nn.ModuleList(
            _Stage(dim * 2**i, depth, n_heads, px // (4 * 2**i), merge=i < last)
            for i, (depth, n_heads) in enumerate(zip(depths, heads, strict=True))
        )
        self.norm = nn.LayerNorm(dim * 2**last)

    def forward(self, x: Tensor) -> Tensor:
        """Features of normalised tiles."""
        x = self.patch_embed(x)
        for layer in self.layers:
            x = layer(x)
        return self.norm(x).mean((1, 2))


class _Stem(nn.Module):
    """Tiles to a map of patches, channels last."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for before, after in ((3, dim // 8), (dim // 8, dim // 4)):
            layers += [nn.Conv2d(before, after, 3, 2, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU()]
        self.proj = nn.Sequential(*layers, nn.Conv2d(dim // 4, dim, 1))
        self.norm = nn.LayerNorm(dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.proj(x).permute(0, 2, 3, 1))


class _Stage(nn.Module):
    def __init__(self, dim: int, depth: int, heads: int, width: int, *, merge: bool) -> None:
        super().__init__()
        shifts = [WINDOW // 2 if i % 2 and width > WINDOW else 0 for i in range(depth)]
        self.blocks = nn.ModuleList(_Block(dim, heads, width, shift) for shift in shifts)
        if merge:
            self.downsample = _Merge(dim)

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        return self.downsample(x) if hasattr(self, "downsample") else x


class _Merge(nn.Module):
    """Two by two patches to one of twice the width."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.reduction = nn.Linear(4 * dim, 2 * dim, bias=False)
        self.norm = nn.LayerNorm(4 * dim)

    def forward(self, x: Tensor) -> Tensor:
        four = [x[:, row::2, column::2] for column in (0, 1) for row in (0, 1)]
        return self.reduction(self.norm(torch.cat(four, dim=-1)))


class _Block(nn.Module):
    def __init__(self, dim: int, heads: int, width: int, shift: int) -> None:
        super().__init__()
        self.shift = shift
        self.norm1 = nn.LayerNorm(dim)
        self.attn = _WindowAttention(dim, heads)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = nn.Sequential()
        self.mlp.add_module("fc1", nn.Linear(dim, 4 * dim))
        self.mlp.add_module("act", nn.GELU())
        self.mlp.add_module("fc2", nn.Linear(4 * dim, dim))
        if shift:
            self.register_buffer("attn_mask", _seams(width, shift))

    def forward(self, x: Tensor) -> Tensor:
        n, height, width, dim = x.shape
        y = torch.roll(self.norm1(x), (-self.shift, -self.shift), (1, 2))
        y = y.view(n, height // WINDOW, WINDOW, width // WINDOW, WINDOW, dim).transpose(2, 3)
        shape = y.shape
        y = self.attn(y.reshape(n, -1, WINDOW * WINDOW, dim), self.attn_mask if self.shift else None)
        y = y.view(shape).transpose(2, 3).reshape(x.shape)
        x = x + torch.roll(y, (self.shift, self.shift), (1, 2))
        return x + self.mlp(self.norm2(x))


class _WindowAttention(nn.Module):
    relative_position_index: Tensor

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.relative_position_bias_table = nn.Parameter(torch.zeros((2 * WINDOW - 1) ** 2, heads))
        self.register_buffer("relative_position_index", _offsets())
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """Tokens (n, windows, tokens, dim), each of which sees those of its window."""
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(3, 0, 1, 4, 2, 5)
        bias = self.relative_position_bias_table[self.relative_position_index].permute(2, 0, 1)
        if mask is not None:
            bias = bias + mask[:, None]  # windows, heads, tokens, tokens
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=bias)
        return self.proj(y.transpose(2, 3).flatten(-2))


def _offsets() -> Tensor:
    """Row of the bias table for each (query, key) of a window, int64 (49, 49)."""
    at = torch.stack(torch.meshgrid(torch.arange(WINDOW), torch.arange(WINDOW), indexing="ij")).flatten(1)
    dy, dx = at[:, :, None] - at[:, None] + WINDOW - 1
    return dy * (2 * WINDOW - 1) + dx


def _seams(width: int, shift: int) -> Tensor:
    """−100 between tokens that rolling brought into one window, float32 (windows, 49, 49)."""
    band = torch.zeros(width)
    band[-WINDOW:-shift], band[-shift:] = 1, 2
    region = 3 * band[:, None] + band
    count = width // WINDOW
    region = region.view(count, WINDOW, count, WINDOW).transpose(1, 2).reshape(-1, WINDOW * WINDOW)
    return torch.where(region[:, :, None] == region[:, None], 0.0, -100.0)

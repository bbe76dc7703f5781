"""Swin transformers (ICCV 2021) whose windows span the whole image at every stage, so that none is ever shifted.

State-dict keys are those of timm before version 0.9.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from napari_he2st.zoo.blocks.vit import join_heads, split_heads


class Swin(nn.Module):
    """Images to the maps of all stages but the last.

    Parameters
    ----------
    image_px, patch_px
        Width of an image and of a token of the first stage.
    dim, depths, heads
        Width of the first stage, which doubles from stage to stage; layers and heads of each.
    """

    def __init__(self, image_px: int, patch_px: int, dim: int, depths: Sequence[int], heads: Sequence[int]) -> None:
        super().__init__()
        self.patch_embed = nn.ModuleDict({"proj": nn.Conv2d(3, dim, patch_px, patch_px), "norm": nn.LayerNorm(dim)})
        side, last = image_px // patch_px, len(depths) - 1
        self.layers = nn.ModuleList(
            _Stage(side >> i, dim << i, depth, n_heads, last=i == last)
            for i, (depth, n_heads) in enumerate(zip(depths, heads, strict=True))
        )
        self.norm = nn.LayerNorm(dim << last)  # of the last stage, which is not asked for

    def forward(self, images: Tensor) -> list[Tensor]:
        """Maps (n, 2 × width, rows, columns), halved in size, at the end of each stage but the last."""
        x = self.patch_embed["proj"](images)
        rows, columns = x.shape[-2:]
        x = self.patch_embed["norm"](x.flatten(2).transpose(1, 2)).unflatten(1, (rows, columns))
        maps = []
        for stage in self.layers[:-1]:
            x = stage(x)
            maps.append(x.permute(0, 3, 1, 2))
        return maps


class _Stage(nn.Module):
    def __init__(self, side: int, dim: int, depth: int, heads: int, *, last: bool) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(_Block(side, dim, heads) for _ in range(depth))
        if not last:
            self.downsample = _Merging(dim)

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        return self.downsample(x)


class _Block(nn.Module):
    def __init__(self, side: int, dim: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.attn = _Attention(side, dim, heads)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = nn.ModuleDict({"fc1": nn.Linear(dim, 4 * dim), "fc2": nn.Linear(4 * dim, dim)})

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x).flatten(1, 2)).view(x.shape)
        return x + self.mlp["fc2"](F.gelu(self.mlp["fc1"](self.norm2(x))))


class _Attention(nn.Module):
    relative_position_index: Tensor

    def __init__(self, side: int, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.relative_position_bias_table = nn.Parameter(0.02 * torch.randn((2 * side - 1) ** 2, heads))
        self.register_buffer("relative_position_index", _relative(side))
        self.qkv, self.proj = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (split_heads(part, self.heads) for part in self.qkv(x).chunk(3, dim=-1))
        bias = self.relative_position_bias_table[self.relative_position_index].permute(2, 0, 1)[None]
        return self.proj(join_heads(F.scaled_dot_product_attention(q, k, v, attn_mask=bias)))


class _Merging(nn.Module):
    """Four neighbouring tokens become one of twice the width."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.reduction, self.norm = nn.Linear(4 * dim, 2 * dim, bias=False), nn.LayerNorm(4 * dim)

    def forward(self, x: Tensor) -> Tensor:
        four = [x[:, row::2, column::2] for column in (0, 1) for row in (0, 1)]
        return self.reduction(self.norm(torch.cat(four, dim=-1)))


def _relative(side: int) -> Tensor:
    """Row of the bias table for each pair of tokens, int64 (side², side²)."""
    y, x = (axis.flatten() for axis in torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij"))
    dy, dx = y[:, None] - y, x[:, None] - x
    return (dy + side - 1) * (2 * side - 1) + dx + side - 1

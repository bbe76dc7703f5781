"""A transformer over all spots of a slide that knows where they are: what TRIPLEX and its heirs share."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from napari_he2st.zoo.blocks.graph import scatter_mean
from napari_he2st.zoo.blocks.vit import Attention, Transformer, join_heads, split_heads

Place = Literal["grid", "dense", "mlp", "fourier", "none"]
_ROUNDING = 20


class _PackedAttention(Attention):
    """Attention whose query, key and value lie side by side, number by number."""

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        q, k, v = self.to_qkv(x).unflatten(-1, (self.heads, -1, 3)).transpose(-4, -3).unbind(-1)
        return self.to_out(join_heads(F.scaled_dot_product_attention(q, k, v)))


class SlideEncoder(nn.Module):
    """Transformer over all spots of a slide, with one of several ways to know where they are.

    Parameters
    ----------
    dim, depth, heads, mlp_dim, dropout
        Of the transformer, of at least two layers.
    kernel
        Of the convolution over the map of spots.
    place
        How tokens know their positions: after the first layer, by a convolution over the mean of each ``"grid"``
        cell (positions in µm) or over a ``"dense"`` map (array positions); ``"mlp"``; ``"fourier"`` tokens;
        ``"none"``.
    packed
        Query, key and value lie side by side, number by number, not one after the other.
    faithful
        With ``place="dense"``, hand tokens back in the order of the map, by column, then row, as published, which
        gives a spot the token of another.
    """

    def __init__(
        self,
        dim: int,
        *,
        depth: int,
        heads: int,
        mlp_dim: int,
        dropout: float,
        kernel: int,
        place: Place,
        packed: bool,
        faithful: bool = False,
    ) -> None:
        super().__init__()
        self.place = place

        def transformer(depth: int) -> Transformer:
            made = Transformer(dim, depth=depth, heads=heads, dim_head=dim // heads, mlp_dim=mlp_dim, dropout=dropout)
            if packed:
                for layer in made.layers:
                    layer[0].fn = _PackedAttention(dim, heads=heads, dim_head=dim // heads, dropout=dropout)
            return made

        if place == "fourier":
            self.spatial_token = nn.Parameter(torch.randn(1, 1, dim))
            self.pos_layer: nn.Module = _Fourier(dim)
            self.layers = nn.ModuleList(_SpatialLayer(dim, heads, mlp_dim, dropout) for _ in range(depth))
        elif place in ("grid", "dense"):
            self.pos_layer = _GridConv(dim, kernel) if place == "grid" else _DenseConv(dim, kernel, faithful)
            self.layer1, self.layer2 = transformer(1), transformer(depth - 1)
        else:
            if place == "mlp":
                self.pos_layer = _CellMlp(dim)
            self.layer = transformer(depth)
        self.norm = nn.LayerNorm(dim)

    def forward(self, x: Tensor, positions: Tensor) -> Tensor:
        """Tokens of unchanged shape (1, n, dim), at positions (1, n, 2)."""
        if self.place == "fourier":
            s = self.pos_layer(positions) + self.spatial_token
            for layer in self.layers:
                x, s = layer(x, s)
        elif self.place in ("grid", "dense"):
            x = self.layer2(self.pos_layer(self.layer1(x)[0], positions[0])[None])
        else:
            x = self.layer(x + self.pos_layer(positions[0]) if self.place == "mlp" else x)
        return self.norm(x)


def grid_cells(positions: Tensor) -> tuple[Tensor, tuple[int, int]]:
    """Cell (column, row) of each position on a grid of as many columns and rows as there are distinct values.

    Returns
    -------
    cells
        Float32 (n, 2).
    size
        Columns and rows.
    """
    low, high = positions.amin(0), positions.amax(0)
    columns, rows = (len((axis / _ROUNDING).round().unique()) for axis in positions.T)
    size = torch.tensor([columns - 1, rows - 1], device=positions.device)
    return ((positions - low) / (high - low + 1e-5) * size).round(), (columns, rows)


class _GridConv(nn.Module):
    """Mean of the tokens in each grid cell, convolved channel by channel (APEG)."""

    def __init__(self, dim: int, kernel: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(dim, dim, kernel, padding=kernel // 2, groups=dim)

    def forward(self, x: Tensor, positions: Tensor) -> Tensor:
        cells, (columns, rows) = grid_cells(positions)
        flat = (cells[:, 1] * columns + cells[:, 0]).long()
        grid = scatter_mean(x, flat, columns * rows).T.unflatten(1, (rows, columns))
        return self.proj(grid[None])[0].flatten(1).T[flat]


class _DenseConv(nn.Module):
    """Tokens on a dense grid of array positions, plus their convolution channel by channel (PEGH)."""

    def __init__(self, dim: int, kernel: int, faithful: bool) -> None:
        super().__init__()
        self.faithful = faithful
        self.proj1 = nn.Conv2d(dim, dim, kernel, padding=kernel // 2, groups=dim)

    def forward(self, x: Tensor, positions: Tensor) -> Tensor:
        cells = (positions - positions.amin(0)).long()
        columns, rows = (cells.amax(0) + 1).tolist()
        flat = cells[:, 1] * columns + cells[:, 0]
        grid = x.new_zeros(rows * columns, x.shape[1]).index_add(0, flat, x).T.unflatten(1, (rows, columns))
        grid = grid + self.proj1(grid[None])[0]
        if self.faithful:
            cells = cells.unique(dim=0)  # sorted by column, then row
            flat = cells[:, 1] * columns + cells[:, 0]
        return grid.flatten(1).T[flat]


class _CellMlp(nn.Module):
    """A code of the grid cell."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(2, dim // 2), nn.ReLU(), nn.Linear(dim // 2, dim))

    def forward(self, positions: Tensor) -> Tensor:
        return self.mlp(grid_cells(positions)[0])


class _Fourier(nn.Module):
    """Sines and cosines of learnt frequencies."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.freqs = nn.Parameter(10 * torch.randn(dim // 2, 2))

    def forward(self, positions: Tensor) -> Tensor:
        angle = 2 * torch.pi * positions @ self.freqs.T
        return torch.cat([angle.sin(), angle.cos()], dim=-1)


class CrossAttention(nn.Module):
    """Attention of several heads from queries to other tokens."""

    def __init__(self, dim: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.to_q, self.to_kv = nn.Linear(dim, dim, bias=False), nn.Linear(dim, 2 * dim, bias=False)
        self.to_out = nn.Sequential(nn.Linear(dim, dim), nn.Dropout(dropout))

    def forward(self, x: Tensor, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
        """Queries (n, q, dim) of unchanged shape, from tokens (n, m, dim), of which ``mask`` (n, m) exist."""
        parts = (self.to_q(x), *self.to_kv(tokens).chunk(2, dim=-1))
        q, k, v = (split_heads(part, self.heads) for part in parts)
        hidden = None
        if mask is not None:
            hidden = torch.zeros_like(mask, dtype=x.dtype).masked_fill(mask == 0, torch.finfo(torch.float16).min)
            hidden = hidden[:, None, None]
        return self.to_out(join_heads(F.scaled_dot_product_attention(q, k, v, attn_mask=hidden)))


class _SpatialLayer(nn.Module):
    """Positions and features ask each other in turn (SpatialFormer)."""

    def __init__(self, dim: int, heads: int, mlp_dim: int, dropout: float) -> None:
        super().__init__()
        hidden = mlp_dim // dim * dim
        self.cross_attn_s2i = CrossAttention(dim, heads, dropout)
        self.cross_attn_i2s = CrossAttention(dim, heads, dropout)
        self.self_attn_s = _PackedAttention(dim, heads=heads, dim_head=dim // heads, dropout=dropout)
        for name in ("norm_s1", "norm_s2", "norm_s3", "norm_i"):
            self.add_module(name, nn.LayerNorm(dim))
        for name in ("ffn_s", "ffn_i"):
            self.add_module(name, nn.Sequential(nn.Linear(dim, hidden), nn.ReLU(), nn.Linear(hidden, dim)))

    def forward(self, x: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
        s = self.norm_s1(s + self.cross_attn_s2i(s, x))
        s = self.norm_s2(s + self.self_attn_s(s))
        s = s + self.ffn_s(self.norm_s3(s))
        x = x + self.cross_attn_i2s(x, s)
        return x + self.ffn_i(self.norm_i(x)), s

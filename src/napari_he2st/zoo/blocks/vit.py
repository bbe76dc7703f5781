"""Vision transformers with the state-dict keys of the widely copied pre-norm implementation.

``layers.L.0.norm``, ``layers.L.0.fn.to_qkv``, ``layers.L.0.fn.to_out.0`` are attention;
``layers.L.1.norm``, ``layers.L.1.fn.net.0`` and ``.net.3`` the feed-forward part.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def split_heads(x: Tensor, heads: int) -> Tensor:
    """(…, tokens, heads × dim) to (…, heads, tokens, dim), the head being the slower part."""
    return x.unflatten(-1, (heads, -1)).transpose(-3, -2)


def join_heads(x: Tensor) -> Tensor:
    """The inverse of :func:`split_heads`."""
    return x.transpose(-3, -2).flatten(-2)


class Attention(nn.Module):
    """Self-attention of several heads.

    Parameters
    ----------
    dim, heads, dim_head
        Width of a token, number of heads, width of each.
    dropout
        On the output.
    grid
        Tokens lie on a lattice of ``grid`` × ``grid``, row by row; each head then learns a bias for every
        distance (rows, columns) between two of them.
    """

    def __init__(self, dim: int, *, heads: int, dim_head: int, dropout: float = 0.0, grid: int | None = None) -> None:
        super().__init__()
        self.heads = heads
        if grid is not None:
            self.attention_biases = nn.Parameter(torch.zeros(heads, grid * grid))
            self.register_buffer("offset", _grid_offsets(grid), persistent=False)
        self.to_qkv = nn.Linear(dim, 3 * heads * dim_head, bias=False)
        same = heads == 1 and dim_head == dim
        self.to_out = nn.Identity() if same else nn.Sequential(nn.Linear(heads * dim_head, dim), nn.Dropout(dropout))

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Tokens (n, tokens, dim) that look at those whose ``mask`` (n, tokens) is not 0."""
        q, k, v = (split_heads(part, self.heads) for part in self.to_qkv(x).chunk(3, dim=-1))
        bias = self.attention_biases[:, self.offset][None] if hasattr(self, "attention_biases") else None
        if mask is not None:
            # Finite, so that a row without any visible token gives a mean and not NaN.
            hidden = torch.zeros_like(mask, dtype=x.dtype).masked_fill(mask == 0, torch.finfo(torch.float16).min)
            bias = hidden[:, None, None] if bias is None else bias + hidden[:, None, None]
        return self.to_out(join_heads(F.scaled_dot_product_attention(q, k, v, attn_mask=bias)))


def _grid_offsets(size: int) -> Tensor:
    """Number of the distance between each two tokens of a square lattice, int64 (size², size²)."""
    y, x = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    rows, columns = y.flatten(), x.flatten()
    return (rows[:, None] - rows).abs() * size + (columns[:, None] - columns).abs()


class FeedForward(nn.Module):
    """Two linear layers with an exact GELU between them."""

    def __init__(self, dim: int, mlp_dim: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(dim, mlp_dim), nn.GELU(), nn.Dropout(dropout), nn.Linear(mlp_dim, dim), nn.Dropout(dropout)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Tokens of unchanged shape."""
        return self.net(x)


class PreNorm(nn.Module):
    """A layer that sees its input normalised."""

    def __init__(self, dim: int, fn: nn.Module) -> None:
        super().__init__()
        self.norm, self.fn = nn.LayerNorm(dim), fn

    def forward(self, x: Tensor, **options: Tensor | None) -> Tensor:
        """What the layer makes of the normalised tokens."""
        return self.fn(self.norm(x), **options)


class Transformer(nn.Module):
    """Attention and feed-forward layers in turn, each added to its input; no normalisation at the end.

    Parameters
    ----------
    dim, depth, heads, dim_head, mlp_dim
        Width, number of layers, heads, width of a head, width inside the feed-forward part.
    dropout
        After attention and inside the feed-forward part.
    grid
        See :class:`Attention`.
    """

    def __init__(
        self,
        dim: int,
        *,
        depth: int,
        heads: int,
        dim_head: int,
        mlp_dim: int,
        dropout: float = 0.0,
        grid: int | None = None,
    ) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            nn.ModuleList(
                (
                    PreNorm(dim, Attention(dim, heads=heads, dim_head=dim_head, dropout=dropout, grid=grid)),
                    PreNorm(dim, FeedForward(dim, mlp_dim, dropout)),
                )
            )
            for _ in range(depth)
        )

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Tokens (n, tokens, dim) of unchanged shape; see :class:`Attention` for ``mask``."""
        for attention, feed_forward in self.layers:
            x = x + attention(x, mask=mask)
            x = x + feed_forward(x)
        return x

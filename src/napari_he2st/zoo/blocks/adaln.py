"""Transformers steered by a condition through their normalisations (DiT; Peebles and Xie, ICCV 2023)."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from napari_he2st.zoo.blocks.vit import join_heads, split_heads

N_FREQUENCIES = 128
_EPS = 1e-6


def sinusoid(time: Tensor) -> Tensor:
    """Cosines, then sines, of times (n,) at 128 frequencies from 1 down to 1/10,000: float32 (n, 256)."""
    steps = torch.arange(N_FREQUENCIES, dtype=torch.float32, device=time.device)
    angles = time[:, None].float() * torch.exp(-math.log(10000) * steps / N_FREQUENCIES)
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


class TimeEmbedding(nn.Module):
    """Two linear layers (``mlp.0``, ``mlp.2``) on the sinusoid of a time."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(2 * N_FREQUENCIES, dim), nn.SiLU(), nn.Linear(dim, dim))

    def forward(self, time: Tensor) -> Tensor:
        """Float32 (n, dim), from times (n,)."""
        return self.mlp(sinusoid(time))


class _Attention(nn.Module):
    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv, self.proj = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        q, k, v = (split_heads(part, self.heads) for part in self.qkv(x).chunk(3, dim=-1))
        return self.proj(join_heads(F.scaled_dot_product_attention(q, k, v, attn_mask=mask)))


class _Mlp(nn.Module):
    def __init__(self, dim: int, hidden: int, gelu: str) -> None:
        super().__init__()
        self.gelu = gelu
        self.fc1, self.fc2 = nn.Linear(dim, hidden), nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x), approximate=self.gelu))


class AdaLNBlock(nn.Module):
    """Attention and perceptron, each shifted, scaled and gated by a condition; starts as the identity.

    Parameters
    ----------
    dim, heads, mlp_ratio
        Width, heads, and width inside the perceptron over ``dim``.
    gelu
        ``"tanh"`` for the approximate GELU, ``"none"`` for the exact one.
    """

    def __init__(self, dim: int, *, heads: int, mlp_ratio: float, gelu: Literal["tanh", "none"]) -> None:
        super().__init__()
        self.attn = _Attention(dim, heads)
        self.mlp = _Mlp(dim, int(dim * mlp_ratio), gelu)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), _zeroed(nn.Linear(dim, 6 * dim)))

    def forward(self, x: Tensor, condition: Tensor, mask: Tensor | None = None) -> Tensor:
        """Tokens (n, tokens, dim) of unchanged shape.

        Parameters
        ----------
        x
            Tokens.
        condition
            (n, dim), or (n, tokens, dim) where each token has its own.
        mask
            Bool (tokens, tokens): which tokens each one sees; None for all.
        """
        parts = _of_tokens(self.adaLN_modulation(condition), x).chunk(6, dim=-1)
        shift, scale, gate, shift_mlp, scale_mlp, gate_mlp = parts
        x = x + gate * self.attn(modulated(x, shift, scale), mask)
        return x + gate_mlp * self.mlp(modulated(x, shift_mlp, scale_mlp))


class AdaLNOutput(nn.Module):
    """A linear layer after a normalisation that a condition shifts and scales; starts at 0."""

    def __init__(self, dim: int, n_out: int) -> None:
        super().__init__()
        self.linear = _zeroed(nn.Linear(dim, n_out))
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), _zeroed(nn.Linear(dim, 2 * dim)))

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """(n, tokens, n_out); arguments as of :class:`AdaLNBlock`."""
        shift, scale = _of_tokens(self.adaLN_modulation(condition), x).chunk(2, dim=-1)
        return self.linear(modulated(x, shift, scale))


def modulated(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """Normalised over the last axis, then scaled by 1 + ``scale`` and shifted."""
    return F.layer_norm(x, x.shape[-1:], eps=_EPS) * (1 + scale) + shift


def _of_tokens(condition: Tensor, x: Tensor) -> Tensor:
    return condition if condition.ndim == x.ndim else condition[:, None]


def _zeroed(layer: nn.Linear) -> nn.Linear:
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer

"""Transformer layers of visual autoregression, steered by a condition (VAR; Tian et al., NeurIPS 2024)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from napari_he2st.zoo.blocks.adaln import modulated
from napari_he2st.zoo.blocks.vit import join_heads, split_heads

MAX_LOG_SCALE = math.log(100)
"""Of the factor of the queries, as a logarithm."""


class _Attention(nn.Module):
    zero_k_bias: Tensor

    def __init__(self, dim: int, heads: int, dropout: float, attention_dropout: float, unit: bool) -> None:
        super().__init__()
        self.heads, self.attention_dropout = heads, attention_dropout
        if unit:
            self.scale_mul_1H11 = nn.Parameter(torch.full((1, heads, 1, 1), math.log(4.0)))
        self.q_bias, self.v_bias = nn.Parameter(torch.zeros(dim)), nn.Parameter(torch.zeros(dim))
        self.register_buffer("zero_k_bias", torch.zeros(dim))
        self.mat_qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.proj, self.dropout = nn.Linear(dim, dim), nn.Dropout(dropout)

    def forward(self, x: Tensor, seen: Tensor) -> Tensor:
        bias = torch.cat([self.q_bias, self.zero_k_bias, self.v_bias])
        q, k, v = (split_heads(part, self.heads) for part in (self.mat_qkv(x) + bias).chunk(3, dim=-1))
        scale = 0.25 / math.sqrt(q.shape[-1])
        if hasattr(self, "scale_mul_1H11"):
            q, k, scale = (
                F.normalize(q, dim=-1) * self.scale_mul_1H11.clamp(max=MAX_LOG_SCALE).exp(),
                F.normalize(k, dim=-1),
                1.0,
            )
        dropout = self.attention_dropout if self.training else 0.0
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=seen, dropout_p=dropout, scale=scale)
        return self.dropout(self.proj(join_heads(out)))


class _FeedForward(nn.Module):
    def __init__(self, dim: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.fc1, self.fc2, self.dropout = nn.Linear(dim, hidden), nn.Linear(hidden, dim), nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        return self.dropout(self.fc2(self.dropout(F.gelu(self.fc1(x)))))


class GatedBlock(nn.Module):
    """Attention (``attn``) and perceptron (``ffn``) that a condition shifts, scales and gates.

    Parameters
    ----------
    dim, heads, hidden
        Width, heads, and width inside the perceptron.
    condition_dim
        Width of the condition; None where it is that of the tokens and only constants are added to it.
    dropout, attention_dropout, drop_path
        Within layers, of attention, of whole layers.
    unit_attention
        Compare queries and keys by their direction alone, with a factor that each head learns.
    """

    def __init__(
        self,
        dim: int,
        *,
        heads: int,
        hidden: int,
        condition_dim: int | None,
        dropout: float,
        attention_dropout: float,
        drop_path: float,
        unit_attention: bool,
    ) -> None:
        super().__init__()
        self.drop_path = drop_path
        if condition_dim is None:
            self.ada_gss = nn.Parameter(torch.randn(1, 1, 6, dim) / dim**0.5)
        self.attn = _Attention(dim, heads, dropout, attention_dropout, unit_attention)
        self.ffn = _FeedForward(dim, hidden, dropout)
        if condition_dim is not None:
            self.ada_lin = nn.Sequential(nn.SiLU(), nn.Linear(condition_dim, 6 * dim))

    def forward(self, x: Tensor, condition: Tensor, seen: Tensor) -> Tensor:
        """Tokens (n, tokens, dim) of unchanged shape; ``seen`` is bool (tokens, tokens): which ones each one sees."""
        if hasattr(self, "ada_gss"):
            parts = (self.ada_gss + condition[:, None, None]).unbind(2)
        else:
            parts = self.ada_lin(condition)[:, None].chunk(6, dim=-1)
        gate, gate_ffn, scale, scale_ffn, shift, shift_ffn = parts
        x = x + self._kept(gate * self.attn(modulated(x, shift, scale), seen))
        return x + self._kept(gate_ffn * self.ffn(modulated(x, shift_ffn, scale_ffn)))

    def _kept(self, x: Tensor) -> Tensor:
        if not self.training or self.drop_path == 0:
            return x
        keep = (torch.rand(len(x), 1, 1, device=x.device) >= self.drop_path).to(x)
        return x * keep / (1 - self.drop_path)

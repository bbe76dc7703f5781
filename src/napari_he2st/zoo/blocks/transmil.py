"""TransMIL: approximate attention among all tiles of a slide (Shao et al., NeurIPS 2021).

Attention is Nyström's: Xiong et al., "Nyströmformer" (2021).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from napari_he2st.zoo.blocks.vit import join_heads, split_heads

_HEADS = 8
_KERNEL = 33


class TransMIL(nn.Module):
    """The network.

    Parameters
    ----------
    feature_dim, n_classes, dim
        Width of a tile's feature, number of classes, width of the tokens.
    with_position
        Whether there is a vector that the published files of BPGT hold and never use.
    """

    def __init__(self, feature_dim: int, n_classes: int, *, dim: int = 512, with_position: bool = False) -> None:
        super().__init__()
        self.cls_token = nn.Parameter(torch.randn(1, 1, dim))
        if with_position:
            self.position_enc = nn.Parameter(torch.zeros(1, dim))
        self.pos_layer = _PositionConv(dim)
        self._fc1 = nn.Sequential(nn.Linear(feature_dim, dim), nn.ReLU())
        self.layer1 = _Layer(dim)
        self.layer2 = _Layer(dim)
        self.norm = nn.LayerNorm(dim)
        self._fc2 = nn.Linear(dim, n_classes)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Of bags (n, tiles, feature_dim) or of one (tiles, feature_dim).

        Returns
        -------
        logits, slide, tiles
            Shapes (n, n_classes), (n, dim), and (n, side², dim): tiles fill a square, the first ones coming
            again at its end.
        """
        h = self._fc1(features if features.ndim == 3 else features[None])
        side = math.ceil(math.sqrt(h.shape[1]))
        h = torch.cat([h, h[:, : side * side - h.shape[1]]], dim=1)
        h = torch.cat([self.cls_token.expand(len(h), -1, -1), h], dim=1)
        h = self.layer1(h)
        h = self.pos_layer(h, side)
        h = self.norm(self.layer2(h))
        return self._fc2(h[:, 0]), h[:, 0], h[:, 1:]


class _Layer(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.attn = NystromAttention(dim)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.attn(self.norm(x))


class _PositionConv(nn.Module):
    """Convolutions over the square of tiles tell where they are."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.proj, self.proj1, self.proj2 = (nn.Conv2d(dim, dim, k, 1, k // 2, groups=dim) for k in (7, 5, 3))

    def forward(self, x: Tensor, side: int) -> Tensor:
        grid = x[:, 1:].mT.unflatten(-1, (side, side))
        grid = self.proj(grid) + grid + self.proj1(grid) + self.proj2(grid)
        return torch.cat([x[:, :1], grid.flatten(2).mT], dim=1)


class NystromAttention(nn.Module):
    """Self-attention by way of landmarks, linear in the number of tokens.

    Parameters
    ----------
    dim
        Width of a token, a multiple of 8.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.landmarks, self.scale = dim // 2, (dim // _HEADS) ** -0.5
        self.to_qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.to_out = nn.Sequential(nn.Linear(dim, dim), nn.Dropout(0.1))
        self.res_conv = nn.Conv2d(_HEADS, _HEADS, (_KERNEL, 1), padding=(_KERNEL // 2, 0), groups=_HEADS, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Tokens (n, tokens, dim)."""
        n = x.shape[1]
        x = F.pad(x, (0, 0, -n % self.landmarks, 0))
        q, k, v = (split_heads(part, _HEADS) for part in self.to_qkv(x).chunk(3, dim=-1))
        q = q * self.scale
        marks_q, marks_k = (part.unflatten(2, (self.landmarks, -1)).mean(dim=3) for part in (q, k))
        to_marks = (q @ marks_k.mT).softmax(dim=-1)
        among = (marks_q @ marks_k.mT).softmax(dim=-1)
        from_marks = (marks_q @ k.mT).softmax(dim=-1)
        out = (to_marks @ pseudo_inverse(among)) @ (from_marks @ v) + self.res_conv(v)
        return self.to_out(join_heads(out))[:, -n:]


def pseudo_inverse(matrix: Tensor, steps: int = 6) -> Tensor:
    """Moore–Penrose inverse (…, m, m) by iteration (equation 11 of the Nyströmformer)."""
    size = matrix.abs()
    inverse = matrix.mT / (size.sum(dim=-1).max() * size.sum(dim=-2).max())
    one = torch.eye(matrix.shape[-1], dtype=matrix.dtype, device=matrix.device)
    for _ in range(steps):
        product = matrix @ inverse
        inverse = inverse @ (13 * one - product @ (15 * one - product @ (7 * one - product))) / 4
    return inverse

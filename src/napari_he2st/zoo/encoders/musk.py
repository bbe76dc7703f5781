"""MUSK: the image branch of a multiway transformer (BEiT-3) for images and text.

Xiang et al., "A vision–language foundation model for precision oncology", Nature 638 (2025).
Its text branch has its weights here, as in the checkpoint, and no forward pass.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from napari_he2st.zoo.blocks.vit import join_heads, split_heads


class Musk(nn.Module):
    """The network, tiles (n, 3, px, px) to class tokens (n, dim).

    Parameters
    ----------
    px, patch_px
        Width of a tile and of a patch.
    dim, depth, heads, mlp_ratio
        Of the transformer.
    vocabulary, text_positions
        Rows of the tables of the text branch.
    """

    def __init__(
        self,
        *,
        px: int = 384,
        patch_px: int = 16,
        dim: int = 1024,
        depth: int = 24,
        heads: int = 16,
        mlp_ratio: float = 4.0,
        vocabulary: int = 64010,
        text_positions: int = 1024,
    ) -> None:
        super().__init__()
        self.logit_scale = nn.Parameter(torch.zeros(()))
        self.beit3 = nn.Module()
        self.beit3.text_embed = nn.Embedding(vocabulary, dim)
        self.beit3.vision_embed = _Patches(dim, patch_px)
        rows = (px // patch_px) ** 2 + 3
        self.beit3.encoder = _Encoder(dim, depth, heads, int(dim * mlp_ratio), rows, text_positions)
        self.language_head = nn.Linear(dim, dim, bias=False)
        self.vision_head = nn.Linear(dim, dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Class tokens of normalised tiles."""
        return self.beit3.encoder(self.beit3.vision_embed(x))[:, 0]

    def project(self, features: Tensor) -> Tensor:
        """Class tokens in the space shared with text, of unit length."""
        return F.normalize(self.vision_head(features), dim=-1)

    def two_scales(self, x: Tensor) -> Tensor:
        """Class token of the tile beside the mean of those of its four magnified quarters, (n, 2 · dim)."""
        px = x.shape[-1]
        large = F.interpolate(x, scale_factor=2, mode="bicubic", align_corners=False)
        quarters = [self(large[..., top : top + px, left : left + px]) for top in (0, px) for left in (0, px)]
        return torch.cat([self(x), torch.stack(quarters).mean(0)], dim=-1)


class _Patches(nn.Module):
    def __init__(self, dim: int, patch_px: int) -> None:
        super().__init__()
        self.mask_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.proj = nn.Conv2d(3, dim, patch_px, patch_px)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.cls_token.expand(len(x), -1, -1), self.proj(x).flatten(2).mT], dim=1)


class _Multiway(nn.Module):
    """A layer for image tokens (A) and another for text tokens (B)."""

    def __init__(self, make: Callable[[], nn.Module]) -> None:
        super().__init__()
        self.A, self.B = make(), make()

    def forward(self, x: Tensor) -> Tensor:
        return self.A(x)


class _Encoder(nn.Module):
    def __init__(self, dim: int, depth: int, heads: int, hidden: int, rows: int, text_rows: int) -> None:
        super().__init__()
        self.embed_positions = nn.Module()
        self.embed_positions.A = nn.Embedding(rows, dim)
        self.embed_positions.B = nn.Embedding(text_rows, dim)
        self.layers = nn.ModuleList(_Layer(dim, heads, hidden) for _ in range(depth))
        self.layer_norm = _Multiway(lambda: nn.LayerNorm(dim))

    def forward(self, x: Tensor) -> Tensor:
        # The first two rows of the table are never used.
        x = x + self.embed_positions.A.weight[2 : 2 + x.shape[1]]
        for layer in self.layers:
            x = layer(x)
        return self.layer_norm(x)


class _Layer(nn.Module):
    def __init__(self, dim: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.self_attn = _Attention(dim, heads)
        self.self_attn_layer_norm = _Multiway(lambda: nn.LayerNorm(dim))
        self.ffn = _Multiway(lambda: _FeedForward(dim, hidden))
        self.final_layer_norm = _Multiway(lambda: nn.LayerNorm(dim))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.self_attn(self.self_attn_layer_norm(x))
        return x + self.ffn(self.final_layer_norm(x))


class _Attention(nn.Module):
    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.k_proj, self.v_proj, self.q_proj, self.out_proj = (
            _Multiway(lambda: nn.Linear(dim, dim)) for _ in range(4)
        )
        self.inner_attn_ln = _Multiway(lambda: nn.LayerNorm(dim))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (split_heads(part(x), self.heads) for part in (self.q_proj, self.k_proj, self.v_proj))
        return self.out_proj(self.inner_attn_ln(join_heads(F.scaled_dot_product_attention(q, k, v))))


class _FeedForward(nn.Module):
    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.fc2 = nn.Linear(hidden, dim)
        self.ffn_layernorm = nn.LayerNorm(hidden)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(self.ffn_layernorm(F.gelu(self.fc1(x))))

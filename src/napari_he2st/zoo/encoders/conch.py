"""CONCH and CONCH v1.5: a vision transformer whose tokens a learned query looks at.

Lu et al., "A visual-language foundation model for computational pathology", Nature Medicine 30 (2024).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from napari_he2st.zoo.blocks.vit import join_heads, split_heads
from napari_he2st.zoo.guard import safe_import


class Conch(nn.Module):
    """CONCH's image tower, tiles (n, 3, 448, 448) to features (n, dim).

    Parameters
    ----------
    px, patch_px
        Width of a tile and of a patch.
    dim, dim_caption
        Width of the contrastive and of the caption tokens.
    heads
        Of the two poolers.
    n_contrast, n_caption
        Their queries; those of the caption pooler take no part in a feature but in the checkpoint.
    trunk
        timm's name of the trunk.
    depth
        Its blocks, if other than its own.
    """

    def __init__(
        self,
        *,
        px: int = 448,
        patch_px: int = 16,
        dim: int = 512,
        dim_caption: int = 768,
        heads: int = 8,
        n_contrast: int = 1,
        n_caption: int = 256,
        trunk: str = "vit_base_patch16_224",
        depth: int = 0,
    ) -> None:
        super().__init__()
        self.proj_contrast = nn.Parameter(torch.zeros(dim, dim))
        self.trunk = _trunk(trunk, depth, img_size=px, patch_size=patch_px)
        width = self.trunk.embed_dim
        self.attn_pool_contrast = _QueryPool(dim, width, heads, n_contrast)
        self.ln_contrast = nn.LayerNorm(dim)
        self.attn_pool_caption = _QueryPool(dim_caption, width, heads, n_caption)
        self.ln_caption = nn.LayerNorm(dim_caption)

    def forward(self, x: Tensor) -> Tensor:
        """Features before the contrastive projection, of normalised tiles."""
        return self.ln_contrast(self.attn_pool_contrast(self.trunk.forward_features(x)))[:, 0]

    def project(self, features: Tensor) -> Tensor:
        """Features in the space shared with text, not normalised."""
        return features @ self.proj_contrast


class Conch15(nn.Module):
    """CONCH v1.5's image tower, tiles (n, 3, 448, 448) to features (n, 768).

    Parameters
    ----------
    dim, heads, n_queries
        Of the pooler.
    trunk
        timm's name of the trunk, made for tiles of 224 px.
    depth, init_values
        Its blocks, if other than its own, and the size its layer scales start from.
    """

    def __init__(
        self,
        *,
        dim: int = 768,
        heads: int = 8,
        n_queries: int = 1,
        trunk: str = "vit_large_patch16_224",
        depth: int = 0,
        init_values: float = 1.0,
    ) -> None:
        super().__init__()
        self.trunk = _trunk(trunk, depth, init_values=init_values)
        self.attn_pool_contrast = _BiasFreePool(dim, self.trunk.embed_dim, heads, n_queries)
        self.ln_contrast = nn.LayerNorm(dim)

    def forward(self, x: Tensor) -> Tensor:
        """Features of normalised tiles, of any multiple of 16 px."""
        trunk = self.trunk
        patches = trunk.patch_embed.proj(x)
        where = _stretched(trunk.pos_embed, patches.shape[-2:])
        tokens = torch.cat([trunk.cls_token.expand(len(x), -1, -1), patches.flatten(2).mT], dim=1)
        tokens = trunk.norm(trunk.blocks(tokens + where))
        return self.ln_contrast(self.attn_pool_contrast(tokens)[:, 0])


def _trunk(name: str, depth: int, **arguments: object) -> nn.Module:
    if depth:
        arguments["depth"] = depth
    return safe_import("timm").create_model(name, num_classes=0, **arguments)


def _stretched(table: Tensor, size: tuple[int, int]) -> Tensor:
    """Position embeddings for a map of another size, stretched a little more than needed as published."""
    cls, rows = table[:, :1], table[:, 1:]
    width = round(rows.shape[1] ** 0.5)
    if size == (width, width):
        return table
    grid = rows.mT.unflatten(-1, (width, width))
    factors = [(n + 0.1) / width for n in size]
    grid = F.interpolate(grid, scale_factor=factors, mode="bicubic", align_corners=False)
    return torch.cat([cls, grid.flatten(2).mT], dim=1)


class _QueryPool(nn.Module):
    """Learned queries look at all tokens."""

    def __init__(self, dim: int, dim_tokens: int, heads: int, n_queries: int) -> None:
        super().__init__()
        self.query = nn.Parameter(torch.randn(n_queries, dim))
        self.attn = nn.MultiheadAttention(dim, heads, kdim=dim_tokens, vdim=dim_tokens, batch_first=True)
        self.ln_q = nn.LayerNorm(dim)
        self.ln_k = nn.LayerNorm(dim_tokens)

    def forward(self, tokens: Tensor) -> Tensor:
        query = self.ln_q(self.query).expand(len(tokens), -1, -1)
        tokens = self.ln_k(tokens)
        return self.attn(query, tokens, tokens, need_weights=False)[0]


class _BiasFreePool(nn.Module):
    """The same with linear layers that have no bias."""

    def __init__(self, dim: int, dim_tokens: int, heads: int, n_queries: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Parameter(torch.randn(n_queries, dim))
        self.ln_k = nn.LayerNorm(dim_tokens)
        self.ln_q = nn.LayerNorm(dim)
        self.to_q = nn.Linear(dim, dim, bias=False)
        self.to_kv = nn.Linear(dim_tokens, 2 * dim, bias=False)
        self.to_out = nn.Linear(dim, dim, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        q = self.to_q(self.ln_q(self.query)).expand(len(tokens), -1, -1)
        k, v = self.to_kv(self.ln_k(tokens)).chunk(2, dim=-1)
        q, k, v = (split_heads(part, self.heads) for part in (q, k, v))
        return self.to_out(join_heads(F.scaled_dot_product_attention(q, k, v)))

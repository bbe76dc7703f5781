"""M2ORT: a transformer that compares three magnifications of one tile (Wang et al., arXiv 2401.10608, 2024)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from napari_he2st.core.errors import ModelError
from napari_he2st.zoo.base import Expression, Predictor, Spots
from napari_he2st.zoo.blocks.losses import nan_mse
from napari_he2st.zoo.blocks.symmetry import random_symmetries
from napari_he2st.zoo.blocks.vit import join_heads, split_heads
from napari_he2st.zoo.inputs import Tiles
from napari_he2st.zoo.recipe import Recipe


class M2ORT(Predictor):
    """Queries from the full tile, keys from it at half, values at quarter size.

    Parameters
    ----------
    n_genes
        Size of the panel.
    dim, depth, heads, dim_head, mlp_dim
        Of the transformer; ``dim`` is a multiple of 12, a third per magnification.
    pool
        What the head sees: the class token or the mean of all tokens.
    patch_px
        Width of a patch of the full tile; half and a quarter of it in the smaller ones.
    tile_px
        Width of the tile, a multiple of ``patch_px``.
    dropout
        In the transformer.
    """

    unit = Spots()
    targets = {"expression": Expression("log1p_cpm_panel", panel="hvg:250")}
    recipe = Recipe("adam", lr=1e-4, epochs=200, batch_size=96)

    def __init__(
        self,
        n_genes: int,
        *,
        dim: int = 768,
        depth: int = 8,
        heads: int = 12,
        dim_head: int = 64,
        mlp_dim: int = 512,
        pool: Literal["cls", "mean"] = "cls",
        patch_px: int = 16,
        tile_px: int = 224,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if dim % 12 or patch_px % 4 or tile_px % patch_px:
            message = f"dim {dim} is no multiple of 12, patch_px {patch_px} of 4, or tile_px {tile_px} of patch_px"
            raise ModelError(message)
        self.inputs = {"tiles": Tiles(px=tile_px)}
        self.patch_px, self.pool = patch_px, pool
        self.pos_embedding = nn.Parameter(torch.randn(1, (tile_px // patch_px) ** 2 + 1, dim))
        self.cls_token = nn.Parameter(torch.randn(1, 1, dim))
        for level in range(3):
            pixels = 3 * (patch_px >> level) ** 2
            embedding = nn.Sequential(
                nn.Identity(),  # numbers the layers as published; there it cuts the patches
                nn.LayerNorm(pixels),
                nn.Linear(pixels, dim >> level),
                nn.GELU(),
                nn.Linear(dim >> level, dim // 3),
                nn.LayerNorm(dim // 3),
            )
            self.add_module(f"to_patch_embedding{level + 1}", embedding)
        self.transformer = _Transformer(dim, depth, heads, dim_head, mlp_dim, dropout)
        self.mlp_head = nn.Linear(dim, n_genes)

    def prepare(self, *, tiles: Tensor) -> dict[str, Tensor]:
        """The tile in 0 … 1, at full, half and quarter size."""
        px = tiles.shape[-1]
        levels = {"full": tiles, "half": pillow_bilinear(tiles, px // 2), "quarter": pillow_bilinear(tiles, px // 4)}
        return {name: level.float() / 255 for name, level in levels.items()}

    def forward(self, full: Tensor, half: Tensor, quarter: Tensor) -> Tensor:
        """Ln (1 + CPM of the panel), float32 (n, genes)."""
        levels = [
            embedding(_patches(image, self.patch_px >> level))
            for level, (embedding, image) in enumerate(
                (
                    (self.to_patch_embedding1, full),
                    (self.to_patch_embedding2, half),
                    (self.to_patch_embedding3, quarter),
                )
            )
        ]
        x = torch.cat([self.cls_token.expand(len(full), -1, -1), torch.cat(levels, dim=2)], dim=1)
        x = self.transformer(x + self.pos_embedding)
        return self.mlp_head(x[:, 0] if self.pool == "cls" else x.mean(1))

    def loss(self, targets: Mapping[str, Tensor], *, full: Tensor, half: Tensor, quarter: Tensor) -> Tensor:
        """Mean squared error; the three magnifications are turned and mirrored together."""
        return nan_mse(self(*random_symmetries(full, half, quarter)), targets["expression"])


def _patches(images: Tensor, px: int) -> Tensor:
    """Images (n, c, height, width) cut into patches, (n, patches, px · px · c), the channel running fastest."""
    cut = images.unfold(2, px, px).unfold(3, px, px)  # (n, c, rows, columns, px, px)
    return cut.permute(0, 2, 3, 4, 5, 1).flatten(3).flatten(1, 2)


def pillow_bilinear(tiles: Tensor, px: int) -> Tensor:
    """Shrink square uint8 images (n, 3, size, size) to ``px`` × ``px`` exactly as Pillow's BILINEAR does.

    Pillow filters along x, rounds half up, then filters along y and rounds again.
    """
    weights = _pillow_weights(tiles.shape[-1], px).to(tiles.device)
    across = (tiles.double() @ weights.T).add(0.5).floor()
    return (weights @ across).add(0.5).floor().clamp(0, 255).to(torch.uint8)


def _pillow_weights(size: int, px: int) -> Tensor:
    """Triangle filter from ``size`` to ``px`` pixels, float64 (px, size), in Pillow's fixed precision."""
    scale, unit = size / px, 2**22
    centre = (torch.arange(px, dtype=torch.float64) + 0.5) * scale
    distance = (torch.arange(size, dtype=torch.float64) + 0.5 - centre[:, None]) / scale
    weights = (1 - distance.abs()).clamp(min=0)
    return (weights / weights.sum(1, keepdim=True) * unit + 0.5).floor() / unit


class _Transformer(nn.Module):
    """Pre-norm layers with a last normalisation."""

    def __init__(self, dim: int, depth: int, heads: int, dim_head: int, mlp_dim: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.layers = nn.ModuleList(
            nn.ModuleList((_Attention(dim, heads, dim_head, dropout), _FeedForward(dim, mlp_dim, dropout)))
            for _ in range(depth)
        )

    def forward(self, x: Tensor) -> Tensor:
        for attention, feed_forward in self.layers:
            x = x + attention(x)
            x = x + feed_forward(x)
        return self.norm(x)


class _Attention(nn.Module):
    """Attention whose queries, keys and values come from one third of the channels each."""

    def __init__(self, dim: int, heads: int, dim_head: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(dim)
        self.to_qkv1, self.to_qkv2, self.to_qkv3 = (nn.Linear(dim // 3, heads * dim_head, bias=False) for _ in range(3))
        self.to_out = nn.Sequential(nn.Linear(heads * dim_head, dim), nn.Dropout(dropout))

    def forward(self, x: Tensor) -> Tensor:
        full, half, quarter = self.norm(x).chunk(3, dim=-1)
        q, k, v = self.to_qkv1(full), self.to_qkv2(half), self.to_qkv3(quarter)
        out = F.scaled_dot_product_attention(*(split_heads(part, self.heads) for part in (q, k, v)))
        return self.to_out(join_heads(out))


class _FeedForward(nn.Module):
    def __init__(self, dim: int, mlp_dim: int, dropout: float) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.LayerNorm(dim),
            nn.Linear(dim, mlp_dim),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(mlp_dim, dim),
            nn.Dropout(dropout),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)

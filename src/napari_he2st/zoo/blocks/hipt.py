"""HIPT (CVPR 2022, arXiv 2206.02647): a vision transformer of 256-pixel patches, and one of whole regions of them.

State-dict keys are those of the published checkpoints, DINO's.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from napari_he2st.zoo.blocks.vit import join_heads, split_heads

CELL_PX, PATCH_PX = 16, 256
"""Widths in pixels of a token of the first transformer, and of the patch that it sees."""
_GRID = 14
_SURPLUS = 0.1
"""Added to the number of tokens per side before the table of positions is scaled, as in the original."""


class ViT256(nn.Module):
    """Images to tokens of 16 pixels (ViT-S/16 by default).

    Parameters
    ----------
    dim, depth, heads
        Width of a token, number of layers and of heads.
    """

    def __init__(self, dim: int = 384, depth: int = 12, heads: int = 6) -> None:
        super().__init__()
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.pos_embed = nn.Parameter(0.02 * torch.randn(1, 1 + _GRID**2, dim))
        self.patch_embed = nn.ModuleDict({"proj": nn.Conv2d(3, dim, CELL_PX, CELL_PX)})
        self.blocks = nn.ModuleList(DinoBlock(dim, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(dim, eps=1e-6)

    def tokens(self, images: Tensor) -> Tensor:
        """Normalised tokens (n, 1 + rows × columns, dim) of images (n, 3, height, width), the class first."""
        cells = self.patch_embed["proj"](images)
        return _encode(self, cells.flatten(2).transpose(1, 2), cells.shape[-2:])

    def forward(self, images: Tensor) -> Tensor:
        """Class token, (n, dim), of standardised images (n, 3, height, width)."""
        return self.tokens(images)[:, 0]


class ViT4K(nn.Module):
    """A map of patch features to tokens that know the region around them.

    Parameters
    ----------
    dim_in
        Width of a patch feature.
    dim, depth, heads
        As in :class:`ViT256`.
    """

    def __init__(self, dim_in: int = 384, dim: int = 192, depth: int = 6, heads: int = 6) -> None:
        super().__init__()
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.pos_embed = nn.Parameter(0.02 * torch.randn(1, 1 + _GRID**2, dim))
        self.phi = nn.Sequential(nn.Linear(dim_in, dim), nn.GELU())
        self.blocks = nn.ModuleList(DinoBlock(dim, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(dim, eps=1e-6)

    def tokens(self, patches: Tensor) -> Tensor:
        """Normalised tokens (n, 1 + rows × columns, dim) of maps (n, dim_in, rows, columns), the class first."""
        return _encode(self, self.phi(patches.flatten(2).transpose(1, 2)), patches.shape[-2:])

    def forward(self, patches: Tensor) -> Tensor:
        """Class token, (n, dim), of maps (n, dim_in, rows, columns)."""
        return self.tokens(patches)[:, 0]


class HIPT(nn.Module):
    """Both transformers, one above the other.

    Parameters
    ----------
    dim, depth, heads
        Of :class:`ViT256`.
    region_dim, region_depth, region_heads
        Of :class:`ViT4K`.
    """

    def __init__(
        self,
        dim: int = 384,
        depth: int = 12,
        heads: int = 6,
        region_dim: int = 192,
        region_depth: int = 6,
        region_heads: int = 6,
    ) -> None:
        super().__init__()
        self.model256 = ViT256(dim, depth, heads)
        self.model4k = ViT4K(dim, region_dim, region_depth, region_heads)

    def patches(self, image: Tensor, batch: int = 16) -> tuple[Tensor, Tensor]:
        """Patch features and, within each patch, those of its cells.

        Parameters
        ----------
        image
            Standardised, (1, 3, height, width), sides a multiple of 256.
        batch
            Patches that go through the network together.

        Returns
        -------
        classes
            (dim, rows, columns), a patch each.
        cells
            (dim, rows, columns, 16, 16).
        """
        grid = F.unfold(image, PATCH_PX, stride=PATCH_PX)[0].T.unflatten(1, (3, PATCH_PX, PATCH_PX))
        rows, columns = (side // PATCH_PX for side in image.shape[-2:])
        tokens = torch.cat([self.model256.tokens(part) for part in grid.split(batch)])
        side = PATCH_PX // CELL_PX
        classes = tokens[:, 0].T.unflatten(1, (rows, columns))
        cells = tokens[:, 1:].permute(2, 0, 1).unflatten(1, (rows, columns)).unflatten(3, (side, side))
        return classes, cells

    def region(self, classes: Tensor) -> tuple[Tensor, Tensor]:
        """The region's feature (1, region_dim), and each patch's within it (1, region_dim, rows, columns)."""
        tokens = self.model4k.tokens(classes[None])
        return tokens[:, 0], tokens[:, 1:].transpose(1, 2).unflatten(2, classes.shape[-2:])

    def forward(self, image: Tensor) -> Tensor:
        """The region's feature, (n, region_dim), of standardised images (n, 3, height, width)."""
        return torch.cat([self.region(self.patches(one[None])[0])[0] for one in image])


class DinoBlock(nn.Module):
    """Pre-norm attention and feed-forward part four times as wide, each added to its input.

    Parameters
    ----------
    dim, heads
        Width of a token and number of heads.
    eps
        Of the normalisations.
    """

    def __init__(self, dim: int, heads: int, *, eps: float = 1e-6) -> None:
        super().__init__()
        self.heads = heads
        self.norm1 = nn.LayerNorm(dim, eps=eps)
        self.attn = nn.ModuleDict({"qkv": nn.Linear(dim, 3 * dim), "proj": nn.Linear(dim, dim)})
        self.norm2 = nn.LayerNorm(dim, eps=eps)
        self.mlp = nn.ModuleDict({"fc1": nn.Linear(dim, 4 * dim), "fc2": nn.Linear(4 * dim, dim)})

    def forward(self, x: Tensor) -> Tensor:
        """Tokens (n, tokens, dim) of unchanged shape."""
        q, k, v = (split_heads(part, self.heads) for part in self.attn["qkv"](self.norm1(x)).chunk(3, dim=-1))
        x = x + self.attn["proj"](join_heads(F.scaled_dot_product_attention(q, k, v)))
        return x + self.mlp["fc2"](F.gelu(self.mlp["fc1"](self.norm2(x))))


def _encode(model: ViT256 | ViT4K, x: Tensor, grid: tuple[int, int]) -> Tensor:
    x = torch.cat([model.cls_token.expand(len(x), -1, -1), x], dim=1) + _positions(model.pos_embed, grid)
    for block in model.blocks:
        x = block(x)
    return model.norm(x)


def _positions(table: Tensor, grid: tuple[int, int]) -> Tensor:
    """The table of 14 × 14 positions brought to another lattice; the class keeps its own."""
    rows, columns = grid
    if rows == columns == _GRID:
        return table
    square = table[:, 1:].transpose(1, 2).unflatten(2, (_GRID, _GRID))
    scale = ((rows + _SURPLUS) / _GRID, (columns + _SURPLUS) / _GRID)
    scaled = F.interpolate(square, scale_factor=scale, mode="bicubic", align_corners=False)
    return torch.cat([table[:, :1], scaled.flatten(2).transpose(1, 2)], dim=1)

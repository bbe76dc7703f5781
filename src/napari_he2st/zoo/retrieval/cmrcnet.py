"""CMRCNet: contrastive retrieval that also rebuilds a masked image from expression (arXiv 2506.08854)."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from napari_he2st.zoo.blocks.contrast import ProjectionHead, soft_clip_losses
from napari_he2st.zoo.blocks.hipt import DinoBlock
from napari_he2st.zoo.blocks.pixels import standardise
from napari_he2st.zoo.blocks.retrieval import Retrieval
from napari_he2st.zoo.blocks.symmetry import random_symmetry
from napari_he2st.zoo.blocks.vit import join_heads, split_heads
from napari_he2st.zoo.inputs import Tiles
from napari_he2st.zoo.recipe import Recipe

_TOKENS, _TWICE = 8, 2
_DROPOUT = 0.25


class CMRCNet(Retrieval):
    """A vision transformer and a linear head meet; in training, expression fills in the image's masked tokens.

    Parameters
    ----------
    n_genes
        Size of the panel.
    image_dim, depth, heads, patch_px
        Of the vision transformer.
    dim, dropout
        Of the embeddings and their heads; a multiple of 8.
    temperature
        Of the loss; the targets are multiplied by it, as published.
    kept_share
        Share of the image tokens' numbers that are not masked.
    n_neighbours
        Number of reference spots that a prediction is made of.
    tile_px
        Width of the tile, a multiple of ``patch_px``.
    """

    recipe = Recipe("adamw", lr=5e-5, weight_decay=1e-3, epochs=60, batch_size=64, schedule="cosine:60")

    def __init__(
        self,
        n_genes: int,
        *,
        image_dim: int = 768,
        depth: int = 8,
        heads: int = 8,
        patch_px: int = 32,
        dim: int = 256,
        dropout: float = 0.1,
        temperature: float = 1.0,
        kept_share: float = 0.5,
        n_neighbours: int = 50,
        tile_px: int = 224,
    ) -> None:
        super().__init__()
        self.n_neighbours = n_neighbours
        self.inputs = {"tiles": Tiles(px=tile_px)}
        self.temperature, self.kept_share = temperature, kept_share
        self.image_encoder = _ImageEncoder(tile_px, patch_px, image_dim, depth, heads)
        self.image_projection = ProjectionHead(image_dim, dim, dropout=dropout)
        self.spot_projection = ProjectionHead(n_genes, dim, dropout=dropout)
        self.spot_projection_restruction = nn.Sequential(  # as published, in name too
            nn.Linear(n_genes, _TOKENS * dim), nn.ELU(), nn.AlphaDropout(_DROPOUT)
        )
        self.latent_linear_768_2_256 = nn.Linear(image_dim, dim)
        self.first_attention = nn.MultiheadAttention(dim, 4, batch_first=True)
        layer = _CrossModal(dim, 8)
        self.cross_modal_image_layers = nn.ModuleList([layer] * _TWICE)  # one layer, passed twice

    def prepare(self, *, tiles: Tensor) -> dict[str, Tensor]:
        """Tiles standardised as ImageNet's."""
        return {"images": standardise(tiles)}

    def embed_images(self, *, images: Tensor) -> Tensor:
        """Embeddings of tiles (n, 3, px, px), not normalised."""
        return self.image_projection(self.image_encoder(images).mean(1))

    def embed_spots(self, expression: Tensor) -> Tensor:
        """Embeddings of expression, not normalised."""
        return self.spot_projection(expression)

    def rebuild(self, tokens: Tensor, expression: Tensor, kept: Tensor) -> Tensor:
        """The image's embedding, float32 (n, dim), from its tokens where ``kept`` is 1, and expression."""
        genes = self.spot_projection_restruction(expression).unflatten(1, (_TOKENS, -1))
        z = self.latent_linear_768_2_256(tokens) * kept
        z = self.first_attention(z, genes, genes, need_weights=False)[0]
        for layer in self.cross_modal_image_layers:
            z = layer(z, genes)
        return z.mean(1)

    def forward(self, images: Tensor, expression: Tensor, kept: Tensor) -> tuple[Tensor, Tensor]:
        """Both parts of the loss of a batch.

        Parameters
        ----------
        images
            Standardised tiles, (n, 3, px, px).
        expression
            (n, genes).
        kept
            0 where a number of an image token is masked, (n, tokens, dim).
        """
        tokens = self.image_encoder(images)
        image = self.image_projection(tokens.mean(1))
        pairs = soft_clip_losses(
            image, self.embed_spots(expression), self.temperature, target_temperature=1 / self.temperature
        )
        rebuilt = self.rebuild(tokens, expression, kept)
        return pairs.log1p().mean(), F.mse_loss(image, rebuilt).log1p()

    def loss(self, targets: Mapping[str, Tensor], *, images: Tensor) -> Tensor:
        """Both parts, of randomly turned and mirrored tiles under a random mask."""
        shape = len(images), self.image_encoder.pos_embed.shape[1], self.latent_linear_768_2_256.out_features
        kept = (torch.rand(shape, device=images.device) < self.kept_share).to(images)
        contrastive, reconstruction = self(random_symmetry(images), targets["expression"].nan_to_num(), kept)
        return contrastive + reconstruction


class _ImageEncoder(nn.Module):
    """A vision transformer; all its tokens count."""

    def __init__(self, tile_px: int, patch_px: int, dim: int, depth: int, heads: int) -> None:
        super().__init__()
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.pos_embed = nn.Parameter(0.02 * torch.randn(1, 1 + (tile_px // patch_px) ** 2, dim))
        self.patch_embed = nn.ModuleDict({"proj": nn.Conv2d(3, dim, patch_px, patch_px)})
        self.blocks = nn.ModuleList(DinoBlock(dim, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.head = nn.Linear(dim, 1000)  # published, plays no part

    def forward(self, images: Tensor) -> Tensor:
        x = self.patch_embed["proj"](images).flatten(2).transpose(1, 2)
        x = torch.cat([self.cls_token.expand(len(x), -1, -1), x], dim=1) + self.pos_embed
        for block in self.blocks:
            x = block(x)
        return self.norm(x)


class _CrossModal(DinoBlock):
    """Image tokens look at each other, then at the gene tokens."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__(dim, heads, eps=1e-5)
        query, key = (nn.Sequential(nn.Linear(dim, dim), nn.ReLU(), nn.Dropout(_DROPOUT)) for _ in range(2))
        self.cross_attention = nn.ModuleDict(
            {"fc_q": query, "fc_k": key, "fc_v1": nn.Linear(dim, dim), "fc_v2": nn.Linear(dim, dim)}
        )

    def forward(self, z: Tensor, genes: Tensor) -> Tensor:
        z = super().forward(z)
        cross = self.cross_attention
        q, k = cross["fc_q"](z), cross["fc_k"](genes)
        parts = (q, k, cross["fc_v1"](q), cross["fc_v2"](k))
        q, k, own, others = (split_heads(part, self.heads) for part in parts)
        weights = (q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])).softmax(-1)
        return z + join_heads(own + weights @ others)

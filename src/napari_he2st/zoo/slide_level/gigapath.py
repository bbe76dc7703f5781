"""Prov-GigaPath's slide encoder with a head that is fine-tuned (Xu et al., Nature 630, 2024).

Attention is LongNet's: Ding et al., "LongNet: scaling transformers to 1,000,000,000 tokens" (2023).
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from napari_he2st.zoo.blocks.bags import BagClassifier, width_of
from napari_he2st.zoo.blocks.vit import join_heads, split_heads
from napari_he2st.zoo.recipe import Recipe

_HEADS = 16
_RATIOS = (1, 2, 4, 8, 16)
_UNSEEN = -1e8


class GigaPath(BagClassifier):
    """Tiles of a slide that look at each other over ever larger distances, and a linear head.

    Parameters
    ----------
    n_classes
        Number of classes.
    encoder, feature_dim
        Of the tiles, and the width of its features (by default the encoder's).
    dim, depth, mlp_ratio
        Of the slide encoder.
    layers
        States that the head sees, counted from the input embedding, 0.
    dropout
        In training.
    n_grids
        Positions along each side of the table of positions.
    tile_px, tile_mpp, max_tiles
        Of the tiles.
    max_slide_px
        Width of the largest slide, which sets how far attention reaches.
    """

    recipe = Recipe("adamw", lr=5e-4, weight_decay=0.05, epochs=5, batch_size=1, schedule="cosine:5")

    def __init__(
        self,
        n_classes: int = 2,
        *,
        encoder: str = "gigapath",
        feature_dim: int | None = None,
        dim: int = 768,
        depth: int = 12,
        mlp_ratio: float = 4.0,
        layers: tuple[int, ...] = (11,),
        dropout: float = 0.1,
        n_grids: int = 1000,
        tile_px: int = 256,
        tile_mpp: float | None = 0.5,
        max_tiles: int | None = None,
        max_slide_px: int = 262144,
    ) -> None:
        super().__init__(encoder=encoder, tile_px=tile_px, tile_mpp=tile_mpp, max_tiles=max_tiles)
        self.layers, self.tile_px, self.tile_mpp = tuple(layers), tile_px, tile_mpp or 0.5
        self.slide_encoder = SlideEncoder(
            width_of(encoder, feature_dim),
            dim=dim,
            depth=depth,
            mlp_ratio=mlp_ratio,
            dropout=dropout,
            n_grids=n_grids,
            tile_px=tile_px,
            max_slide_px=max_slide_px,
        )
        self.classifier = nn.Sequential(nn.Linear(dim * len(self.layers), n_classes))

    def forward(self, features: Tensor, coords: Tensor) -> Tensor:
        """Logits (n, n_classes) of bags (n, tiles, feature_dim) with corners in pixels (n, tiles, 2)."""
        states = self.slide_encoder.states(features, coords)
        seen = [self.slide_encoder.norm(states[layer])[:, 0] for layer in self.layers]
        return self.classifier(torch.cat(seen, dim=-1))

    def scores(self, features: Tensor, centres: Tensor) -> tuple[Tensor, Tensor]:
        """Class probabilities, and how alike the state of each tile is to that of the slide (cosine)."""
        coords = self._corners(centres)
        logits = self(features[None], coords)
        state = self.slide_encoder.norm(self.slide_encoder.states(features[None], coords)[self.layers[-1]])[0]
        return logits[0].softmax(dim=-1), F.cosine_similarity(state[1:], state[:1])[:, None]

    def bag_loss(self, label: Tensor, features: Tensor, centres: Tensor) -> Tensor:
        """Cross-entropy of the slide."""
        return F.cross_entropy(self(features[None], self._corners(centres)), label[None])

    def _corners(self, centres: Tensor) -> Tensor:
        """Corners in pixels of the tiles' pixel size, counted from the first of them."""
        px = centres / self.tile_mpp
        return (px - px.amin(dim=0))[None]


class SlideEncoder(nn.Module):
    """LongNet over the tiles of a slide.

    Parameters
    ----------
    feature_dim, dim, depth, mlp_ratio, dropout
        Width of a tile's feature, of a token, number of layers, width of their hidden part, share dropped.
    n_grids, tile_px
        Positions along each side of the table, and pixels of each.
    max_slide_px
        Width of the largest slide.
    """

    def __init__(
        self,
        feature_dim: int = 1536,
        *,
        dim: int = 768,
        depth: int = 12,
        mlp_ratio: float = 4.0,
        dropout: float = 0.25,
        n_grids: int = 1000,
        tile_px: int = 256,
        max_slide_px: int = 262144,
    ) -> None:
        super().__init__()
        self.n_grids, self.tile_px, self.dim = n_grids, tile_px, dim
        self.segments = segment_lengths(max_slide_px, tile_px)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.patch_embed = nn.Module()
        self.patch_embed.proj = nn.Linear(feature_dim, dim)
        self.encoder = nn.Module()
        self.encoder.layers = nn.ModuleList(_Layer(dim, int(dim * mlp_ratio), dropout) for _ in range(depth))
        self.encoder.layer_norm = nn.LayerNorm(dim)
        self.norm = nn.LayerNorm(dim, eps=1e-6)

    def forward(self, features: Tensor, coords: Tensor, *, average: bool = False) -> Tensor:
        """Embedding of slides (n, dim).

        Parameters
        ----------
        features
            Shape (n, tiles, feature_dim).
        coords
            Corners of the tiles (x, y) in pixels, (n, tiles, 2).
        average
            Take the mean of the tiles instead of the slide's own token.
        """
        x = self.encoder.layer_norm(self.states(features, coords)[-1])
        return self.norm(x[:, 1:].mean(dim=1)) if average else self.norm(x)[:, 0]

    def states(self, features: Tensor, coords: Tensor) -> list[Tensor]:
        """What goes into the first layer and what leaves each, (n, 1 + tiles, dim), the slide's token first."""
        x = self.patch_embed.proj(features) + sine_table(self.positions(coords) - 1, self.n_grids, self.dim).to(
            features
        )
        found = [torch.cat([self.cls_token.expand(len(x), -1, -1), x], dim=1)]
        for layer in self.encoder.layers:
            found.append(layer(found[-1], self.segments))
        return found

    def positions(self, coords: Tensor) -> Tensor:
        """Row of the position table of each tile, int64; row 0 is the slide's own."""
        step = (coords / self.tile_px).floor().long()
        return step[..., 0] * self.n_grids + step[..., 1] + 1


def segment_lengths(max_slide_px: int, tile_px: int) -> list[int]:
    """How many tokens see each other in each branch of attention."""
    last = int(math.log2((max_slide_px / tile_px) ** 2))
    return [int(2**power) for power in np.linspace(10, last, len(_RATIOS)).tolist()]


def sine_table(index: Tensor, n_grids: int, dim: int) -> Tensor:
    """Rows of the table of sines and cosines of positions, float64 (…, dim).

    The first half tells the fast coordinate, ``index`` modulo ``n_grids``, the second the slow one.
    """
    quarter = dim // 4
    omega = 10000 ** (-torch.arange(quarter, dtype=torch.float64, device=index.device) / quarter)
    parts = []
    for place in (index % n_grids, index // n_grids):
        angle = place[..., None].double() * omega
        parts += [angle.sin(), angle.cos()]
    return torch.cat(parts, dim=-1)


class _Layer(nn.Module):
    def __init__(self, dim: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.self_attn = _DilatedAttention(dim)
        self.self_attn_layer_norm = nn.LayerNorm(dim)
        self.ffn = nn.Module()
        self.ffn.fc1 = nn.Linear(dim, hidden)
        self.ffn.fc2 = nn.Linear(hidden, dim)
        self.ffn.ffn_layernorm = nn.LayerNorm(hidden)
        self.final_layer_norm = nn.LayerNorm(dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, segments: list[int]) -> Tensor:
        x = x + self.dropout(self.self_attn(self.self_attn_layer_norm(x), segments))
        hidden = self.ffn.ffn_layernorm(F.gelu(self.ffn.fc1(self.final_layer_norm(x))))
        return x + self.dropout(self.ffn.fc2(hidden))


class _DilatedAttention(nn.Module):
    """Tokens see all of a short segment, and ever fewer of ever longer ones."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.k_proj, self.v_proj, self.q_proj, self.out_proj = (nn.Linear(dim, dim) for _ in range(4))
        self.inner_attn_ln = nn.LayerNorm(dim)

    def forward(self, x: Tensor, segments: list[int]) -> Tensor:
        q, k, v = (split_heads(part(x), _HEADS) for part in (self.q_proj, self.k_proj, self.v_proj))
        branches = [dilated(q, k, v, length, ratio) for length, ratio in zip(segments, _RATIOS, strict=True)]
        weight = torch.stack([size for _, size in branches]).detach().softmax(dim=0)
        out = sum(
            (seen * share[..., None] for (seen, _), share in zip(branches, weight, strict=True)), torch.zeros_like(q)
        )
        return self.out_proj(self.inner_attn_ln(join_heads(out)))


def dilated(q: Tensor, k: Tensor, v: Tensor, length: int, ratio: int) -> tuple[Tensor, Tensor]:
    """One branch: within segments, each head sees every ``ratio``-th token, from an offset of its own.

    Parameters
    ----------
    q, k, v
        Shape (n, heads, tokens, dim).
    length
        Tokens of a segment; those it is filled up with are zeros that are seen, as published.
    ratio
        Step between the tokens that a head sees.

    Returns
    -------
    out, size
        (n, heads, tokens, dim), 0 where a head does not see a token; and the logarithm of the sum of its
        exponentials, (n, heads, tokens), −10⁸ there.
    """
    n, heads, tokens, dim = q.shape
    length = min(length, tokens)
    fill, inner = -tokens % length, -length % ratio
    step = -(-heads // ratio)
    offset = torch.arange(heads, device=q.device) // step

    def thinned(x: Tensor) -> Tensor:
        x = F.pad(x, (0, 0, 0, fill)).unflatten(2, (-1, length))
        x = F.pad(x, (0, 0, 0, inner)).unflatten(3, (-1, ratio))
        return x[:, torch.arange(heads, device=x.device), :, :, offset].transpose(0, 1)

    few_q, few_k, few_v = thinned(q), thinned(k), thinned(v)
    logits = few_q @ few_k.mT * dim**-0.5
    size = logits.logsumexp(dim=-1)
    seen = (logits - size[..., None]).exp() @ few_v
    segments, kept = seen.shape[2], seen.shape[3]
    out = q.new_zeros(n, heads, segments, kept, ratio, dim)
    sizes = q.new_full((n, heads, segments, kept, ratio), _UNSEEN)
    head = torch.arange(heads, device=q.device)
    out[:, head, :, :, offset] = seen.transpose(0, 1)
    # A sum that is exactly 0 counts as none, as published.
    sizes[:, head, :, :, offset] = torch.where(size == 0, _UNSEEN, size).transpose(0, 1)
    out = out.flatten(3, 4)[:, :, :, :length].flatten(2, 3)[:, :, :tokens]
    return out, sizes.flatten(3, 4)[:, :, :, :length].flatten(2, 3)[:, :, :tokens]

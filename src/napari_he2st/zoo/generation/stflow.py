"""STFlow: flow matching over all spots of a slide (Huang et al., ICML 2025, arXiv 2506.05361)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor, nn

from napari_he2st.core.noise import Noise
from napari_he2st.zoo.base import Expression, Predictor, Slide
from napari_he2st.zoo.blocks.adaln import TimeEmbedding
from napari_he2st.zoo.blocks.draws import normal, uniform
from napari_he2st.zoo.blocks.flow import between, flow
from napari_he2st.zoo.blocks.frames import in_frames
from napari_he2st.zoo.blocks.losses import nan_mse
from napari_he2st.zoo.blocks.mlp import Activation, NormedMlp
from napari_he2st.zoo.blocks.patches import random_patch
from napari_he2st.zoo.blocks.vit import split_heads
from napari_he2st.zoo.inputs import Features, Positions
from napari_he2st.zoo.recipe import Recipe

_PX_UM = 0.5
_FAR = 1e9
_FIRST_TIME = 0.01
_ZERO_SHARE = 0.5
_COUNT_MEAN = math.exp(0.1)


class STFlow(Predictor):
    """Expression flows from counts drawn at random to what image and neighbouring spots suggest.

    Parameters
    ----------
    n_genes
        Size of the panel.
    encoder, feature_dim
        See :class:`~napari_he2st.zoo.inputs.Features`, and the size of its features.
    dim, edge_dim, depth, heads, dropout, attention_dropout
        Of the transformer along the edges of the graph.
    neighbours
        Nearest spots that each spot attends to.
    activation
        Of its perceptrons.
    prior
        Where the flow starts: zero-inflated counts as log (1 + count), standard normal, or zero.
    tile_px, mpp
        Width of the tile around the spot and its pixel size.
    faithful
        As published, the rows that fill up a batch of slides of unequal size are neighbours at (0, 0). By default
        no spot sees them. A slide by itself has none.
    """

    unit = Slide()
    targets = {"expression": Expression("log1p", panel="hvg:50")}
    recipe = Recipe("adam", lr=5e-4, epochs=500, batch_size=1, clip=1.0)
    draws = 1

    def __init__(
        self,
        n_genes: int,
        *,
        encoder: str = "uni",
        feature_dim: int = 1024,
        dim: int = 128,
        edge_dim: int = 128,
        depth: int = 4,
        heads: int = 4,
        dropout: float = 0.2,
        attention_dropout: float = 0.2,
        neighbours: int = 8,
        activation: Activation = "swiglu",
        prior: Literal["zinb", "gaussian", "zero"] = "zinb",
        tile_px: int = 224,
        mpp: float | None = 0.5,
        faithful: bool = False,
    ) -> None:
        super().__init__()
        self.inputs = {"features": Features(encoder=encoder, px=tile_px, mpp=mpp), "um": Positions(kind="um")}
        self.n_genes, self.neighbours, self.prior, self.faithful = n_genes, neighbours, prior, faithful
        blocks = [_Block(n_genes, dim, edge_dim, heads, dropout, attention_dropout, activation) for _ in range(depth)]
        self.backbone = nn.ModuleDict({"blks": nn.ModuleList(blocks)})
        self.fourier_proj = TimeEmbedding(dim)
        self.image_transform = nn.Linear(feature_dim, dim)

    def prepare(self, *, features: Tensor, um: Tensor) -> dict[str, Tensor]:
        """One slide per batch, its positions in pixels of 0.5 µm around their mean."""
        return {"img_features": features[None], "coords": ((um - um.mean(0)) / _PX_UM)[None]}

    def forward(self, noisy_exp: Tensor, img_features: Tensor, coords: Tensor, t: Tensor) -> Tensor:
        """Expression at the end of the flow, float32 (slides, spots, genes).

        Parameters
        ----------
        noisy_exp
            Expression at time ``t`` (slides,) in 0 … 1, of the shape of the result.
        img_features
            (slides, spots, features); rows of 0 fill up the shorter slides of a batch.
        coords
            Positions in pixels, (slides, spots, 2).
        """
        n_slides, n_spots, n_genes = noisy_exp.shape
        x = self.image_transform(img_features) + self.fourier_proj(t)[:, None]
        slide = torch.arange(n_slides, device=coords.device).repeat_interleave(n_spots)
        real = None if self.faithful else (img_features != 0).any(-1).flatten()
        near = nearest_spots(coords.flatten(0, 1), slide, min(self.neighbours, n_spots - 1), real)
        edges = _edges(coords.flatten(0, 1), near)
        x, genes = x.flatten(0, 1), noisy_exp.flatten(0, 1)
        ends = []
        for block in self.backbone["blks"]:
            x, genes = block(x, genes, edges, near)
            ends.append(genes)
        return torch.stack(ends).mean(0).view(n_slides, n_spots, n_genes)

    def loss(self, targets: Mapping[str, Tensor], *, img_features: Tensor, coords: Tensor) -> Tensor:
        """MSE to the clean expression at a random time, mean over two random patches of neighbouring spots."""
        expression, losses = targets["expression"][None], []
        for _ in range(2):
            spots = random_patch(coords[0], 2, len(coords[0]))
            clean = expression[:, spots]
            time = torch.rand(1, device=coords.device)
            noise = torch.rand(2, *clean.shape, device=coords.device)
            noisy = between(self._start(noise, torch.randn_like(clean)), clean.nan_to_num(), time)
            losses.append(nan_mse(self(noisy, img_features[:, spots], coords[:, spots], time), clean))
        return torch.stack(losses).mean()

    def predict(self, *, img_features: Tensor, coords: Tensor, noise: Noise | None = None, steps: int = 5) -> Tensor:
        """Drawn log (1 + counts) of the spots of the one slide, float32 (spots, genes), in ``steps`` − 1 steps."""
        rows = img_features[0]
        given = uniform(noise, rows, 2, self.n_genes).transpose(0, 1)[:, None]
        start = self._start(given, normal(noise, rows, self.n_genes)[None])
        times = torch.linspace(_FIRST_TIME, 1, max(steps, 2), device=rows.device)
        return flow(lambda x, t: self(x, img_features, coords, t), start, times)[-1][0]

    def _start(self, evenly: Tensor, normally: Tensor) -> Tensor:
        if self.prior == "zinb":
            return zinb_counts(*evenly).log1p()
        return normally if self.prior == "gaussian" else torch.zeros_like(normally)


def zinb_counts(inflation: Tensor, rank: Tensor) -> Tensor:
    """Zero-inflated negative binomial counts of dispersion 1 and mean exp(0.1), by inverting uniform numbers."""
    ratio = _COUNT_MEAN / (1 + _COUNT_MEAN)
    counts = (torch.log1p(-rank) / math.log(ratio)).floor()
    return torch.where(inflation < _ZERO_SHARE, torch.zeros_like(counts), counts)


def nearest_spots(positions: Tensor, slide: Tensor, k: int, real: Tensor | None = None) -> Tensor:
    """The ``k`` nearest other spots of the same slide, int64 (n, k).

    Parameters
    ----------
    positions, slide
        (n, 2), and which slide each belongs to, (n,).
    real
        Bool (n,): rows that may be neighbours; None for all.
    """
    distance = torch.cdist(positions, positions, compute_mode="donot_use_mm_for_euclid_dist")
    hidden = slide[:, None] != slide
    if real is not None:
        hidden = hidden | ~real
    distance = distance.masked_fill(hidden, _FAR).fill_diagonal_(_FAR)
    return distance.topk(k, dim=1, largest=False).indices


def _edges(positions: Tensor, near: Tensor) -> Tensor:
    """Where neighbours lie in the four frames of each neighbourhood, and how far: (n, 4, k, 3)."""
    offset = positions[near] - positions[:, None]
    projected, _ = in_frames(offset)
    length = offset.norm(dim=-1, keepdim=True)[:, None].expand(-1, projected.shape[1], -1, -1)
    return torch.cat([projected, length], dim=-1)


class _Attention(nn.Module):
    """Attention along edges, from both spots, the edge, and the difference of their present expression."""

    def __init__(
        self, n_genes: int, dim: int, edge_dim: int, heads: int, dropout: float, edge_dropout: float, act: Activation
    ) -> None:
        super().__init__()
        self.heads = heads
        width = 2 * dim // heads + edge_dim // heads + n_genes
        scoring: Activation = "swiglu" if act == "swiglu" else "gelu"
        self.layernorm_qkv = nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, 3 * dim))
        self.mlp_attn = NormedMlp(width, dim, 1, activation=scoring, dropout=edge_dropout)
        self.edge_trans = NormedMlp(3, edge_dim, edge_dim, activation=act, dropout=dropout)
        self.W_output = NormedMlp(dim + edge_dim, dim, dim, activation=act, dropout=dropout)

    def forward(self, x: Tensor, genes: Tensor, edges: Tensor, near: Tensor) -> Tensor:
        q, k, v = (split_heads(part, self.heads).transpose(0, 1) for part in self.layernorm_qkv(x).chunk(3, dim=-1))
        edge = self.edge_trans(edges).mean(1).unflatten(-1, (self.heads, -1))
        change = (genes[near] - genes[:, None])[:, :, None].expand(-1, -1, self.heads, -1)
        query = q[:, None].expand(-1, near.shape[1], -1, -1)
        weight = self.mlp_attn(torch.cat([query, k[near], edge, change], dim=-1)).softmax(1)
        gathered = [(weight * values).sum(1).flatten(1) for values in (v[near], edge)]
        return self.W_output(torch.cat(gathered, dim=-1))


class _GeneUpdate(nn.Module):
    def __init__(self, dim: int, n_genes: int, dropout: float) -> None:
        super().__init__()
        self.output = nn.Sequential(
            nn.Linear(dim, dim), nn.GELU(), nn.LayerNorm(dim), nn.Dropout(dropout), nn.Linear(dim, n_genes)
        )
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        return self.dropout(self.output(x))


class _Block(nn.Module):
    """Attention along edges and a perceptron, both added, and the expression read anew from the result."""

    def __init__(
        self, n_genes: int, dim: int, edge_dim: int, heads: int, dropout: float, edge_dropout: float, act: Activation
    ) -> None:
        super().__init__()
        self.attn = _Attention(n_genes, dim, edge_dim, heads, dropout, edge_dropout, act)
        self.mlp = NormedMlp(dim, 4 * dim, dim, activation=act, dropout=dropout)
        self.gene_updater = _GeneUpdate(dim, n_genes, dropout)

    def forward(self, x: Tensor, genes: Tensor, edges: Tensor, near: Tensor) -> tuple[Tensor, Tensor]:
        x = x + self.attn(x, genes, edges, near)
        x = x + self.mlp(x)
        return x, self.gene_updater(x)

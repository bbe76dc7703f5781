"""BPGT: mutations of many genes at once, with what is known about the genes (arXiv 2406.02990).

The published repository lacks the decoder that joins genes and tiles; it is written here after
Ridnik et al., "ML-Decoder" (2021). The other parts are the published ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from napari_he2st.zoo.blocks.bags import BagClassifier, width_of
from napari_he2st.zoo.blocks.transmil import TransMIL
from napari_he2st.zoo.blocks.vit import join_heads, split_heads
from napari_he2st.zoo.recipe import Recipe

_HEADS = 8
_TEXT_DIM = 768
_ABSENT = -100.0


class BPGT(BagClassifier):
    """Genes know each other before they look at the tiles.

    Parameters
    ----------
    labels
        Genes whose mutation is predicted.
    encoder, feature_dim
        Of the tiles, and the width of its features (by default the encoder's).
    dim, depth
        Width of all tokens, a multiple of 8, and layers of the gene encoder.
    n_organs
        Organs whose mutations say which genes belong together; 0 for a single one.
    tile_px, tile_mpp, max_tiles
        Of the tiles.

    Notes
    -----
    ``extras`` may hold ``words`` (genes, 768), text embeddings of the genes, ``adjacency`` (genes, genes),
    ``together`` (genes, genes) and ``organs`` (genes, n_organs), as :func:`mutual_information` and
    :func:`organ_encoding` give them. Without them genes start from learned vectors and are all neighbours.
    """

    recipe = Recipe("adam", lr=1e-3, weight_decay=1e-5, epochs=150, batch_size=1, schedule="cosine:150")

    def __init__(
        self,
        labels: Sequence[str] = ("label",),
        *,
        encoder: str = "vit-s16",
        feature_dim: int | None = None,
        dim: int = 256,
        depth: int = 2,
        n_organs: int = 0,
        tile_px: int = 256,
        tile_mpp: float | None = 0.5,
        max_tiles: int | None = 4000,
    ) -> None:
        super().__init__(encoder=encoder, tile_px=tile_px, tile_mpp=tile_mpp, max_tiles=max_tiles)
        self.labels, n = tuple(labels), len(labels)
        self.n_organs = n_organs
        self.words = nn.Parameter(torch.randn(n, _TEXT_DIM) * 0.02)
        self.word_proj = nn.Linear(_TEXT_DIM, dim)
        self.gcn = GeneEncoder(dim, depth, n + 1, n_organs)
        self.visual = TransMIL(width_of(encoder, feature_dim), max(n_organs, 1), dim=dim, with_position=True)
        self.decoder = nn.MultiheadAttention(dim, _HEADS, batch_first=True)
        self.decoder_norm = nn.LayerNorm(dim)
        self.fc = nn.Linear(dim, n)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (n_labels,) of a slide, and how much its tiles are looked at, (tiles, 1)."""
        words = self.extras.get("words")
        words = self.words if words is None else torch.as_tensor(words, dtype=features.dtype, device=features.device)
        n = len(self.labels)
        adjacency = self._known("adjacency", np.ones((n, n)))
        together = self._known("together", np.ones((n, n)))
        organs = self._known("organs", np.zeros((n, self.n_organs))) if self.n_organs else None
        genes, _ = self.gcn(self.word_proj(words), adjacency, with_node(together), organs)
        _, _, tiles = self.visual(features)
        seen, shares = self.decoder(genes[None], tiles, tiles)
        node = self.decoder_norm(genes[None] + seen)[0, 0]
        return self.fc(node), shares[0, 0, : len(features), None]

    def _known(self, name: str, otherwise: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(self.extras.get(name, otherwise), dtype=np.float64)

    def scores(self, features: Tensor, centres: Tensor) -> tuple[Tensor, Tensor]:
        """Probability of each mutation, and how much the tiles are looked at."""
        logits, shares = self(features)
        return logits.sigmoid(), shares

    def loss(self, targets: Mapping[str, Tensor], *, features: Tensor, centres: Tensor) -> Tensor:
        """Comparative multi-label loss where a gene is mutated, else that none is; unknown labels are −1."""
        logits, _ = self(features)
        wanted = targets["label"].reshape(-1)
        known = wanted >= 0
        if bool((wanted[known] > 0).any()):
            return comparative_loss(logits[known][None], wanted[known][None])
        return F.softplus(logits[known]).mean()


class GeneEncoder(nn.Module):
    """Attention among genes, and a virtual one that sees all, shifted by what is known about pairs.

    Parameters
    ----------
    dim, depth
        Width of a gene, and layers.
    n_tokens
        Genes and the virtual one.
    n_organs
        Length of what is known of each gene; 0 for nothing.
    with_node
        Whether there is a virtual gene.
    """

    def __init__(self, dim: int, depth: int, n_tokens: int, n_organs: int, *, with_node: bool = True) -> None:
        super().__init__()
        self.with_node = with_node
        if with_node:
            self.cls_token = nn.Parameter(torch.zeros(1, dim))
        self.mask_scalar_proj = nn.Parameter(torch.zeros(n_tokens, n_tokens))
        self.adj_scalar_proj = nn.Parameter(torch.zeros(n_tokens, n_tokens))
        self.layers = nn.ModuleList(_GeneLayer(dim) for _ in range(depth))
        if n_organs:
            self.pe_proj = nn.Linear(n_organs, dim)

    def forward(
        self,
        genes: Tensor,
        adjacency: NDArray[np.float64],
        mask: NDArray[np.float64],
        organs: NDArray[np.float64] | None,
    ) -> tuple[Tensor, Tensor]:
        """Genes (tokens, dim), the virtual one first, and the last layer's attention (1, tokens, tokens).

        Parameters
        ----------
        genes
            Shape (genes, dim).
        adjacency
            Which genes belong together, (genes, genes).
        mask
            How often genes are mutated in the same organs, (tokens, tokens).
        organs
            Organs each gene is mutated in, (genes, n_organs).
        """

        def tensor(values: NDArray[np.float64]) -> Tensor:
            return torch.from_numpy(values).to(genes)

        h = torch.cat([self.cls_token, genes]) if self.with_node else genes
        if organs is not None:
            h = h + self.pe_proj(tensor(with_ones(organs) if self.with_node else organs))
        laplacian = tensor(structure(adjacency, node=self.with_node))
        shifts = self.adj_scalar_proj * laplacian + self.mask_scalar_proj * tensor(shared_mask(mask))
        attention = h.new_zeros(())
        h = h[None]
        for layer in self.layers:
            h, attention = layer(h, shifts)
        return h[0], attention


class _GeneLayer(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)  # in the published files, and never used
        self.multihead_attn = nn.Module()
        self.multihead_attn.linears = nn.ModuleList(nn.Linear(dim, dim) for _ in range(4))
        self.linear1 = nn.Linear(dim, dim)
        self.dropout = nn.Dropout(0.1)
        self.linear2 = nn.Linear(dim, dim)
        self.norm2 = nn.LayerNorm(dim)
        self.norm3 = nn.LayerNorm(dim)

    def forward(self, x: Tensor, shifts: Tensor) -> tuple[Tensor, Tensor]:
        *three, last = self.multihead_attn.linears
        q, k, v = (split_heads(linear(x), _HEADS) for linear in three)
        shares = (q @ k.mT / q.shape[-1] ** 0.5 + shifts).softmax(dim=-1)
        x = self.norm2(x + self.dropout(last(join_heads(self.dropout(shares) @ v))))
        x = self.norm3(x + self.dropout(self.linear2(self.dropout(self.linear1(x).relu()))))
        return x, shares.mean(dim=1)


def with_node(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    """A matrix with a first row and column of ones."""
    return np.pad(matrix, ((1, 0), (1, 0)), constant_values=1.0)


def with_ones(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rows below one of ones."""
    return np.pad(rows, ((1, 0), (0, 0)), constant_values=1.0)


def structure(adjacency: NDArray[np.float64], *, node: bool = True) -> NDArray[np.float64]:
    """Absolute normalised Laplacian of the genes' graph, with a virtual gene first.

    All ones where every gene is a neighbour of every other.
    """
    full = bool((adjacency == 1).all())
    joined = with_node(adjacency) if node else adjacency
    if full:
        return np.ones_like(joined)
    root = np.clip(joined.sum(axis=1) - 1, 1, None) ** -0.5
    return np.abs(np.eye(len(joined)) - root[:, None] * joined * root)


def shared_mask(mask: NDArray[np.float64]) -> NDArray[np.float64]:
    """A mask whose sum is larger than its number of entries, over its number of rows; else as it is."""
    return mask / len(mask) if mask.sum() > len(mask) ** 2 else mask


def mutual_information(
    labels: NDArray[np.integer], organs: NDArray[np.integer], *, node: bool = False
) -> NDArray[np.float64]:
    """Share of the organs in which both of two genes are found mutated; 1 on the diagonal.

    Parameters
    ----------
    labels
        0 or 1, shape (patients, genes).
    organs
        Number of each patient's organ, (patients,).
    node
        Put a virtual gene first, which is 1 with all.
    """
    found = _found_in(labels, organs).astype(np.float64)
    shared = found @ found.T / found.shape[1]
    np.fill_diagonal(shared, 1.0)
    return with_node(shared) if node else shared


def organ_encoding(labels: NDArray[np.integer], organs: NDArray[np.integer]) -> NDArray[np.float64]:
    """Whether a gene is found mutated in an organ: 0 or 1, (genes, organs)."""
    return _found_in(labels, organs).astype(np.float64)


def _found_in(labels: NDArray[np.integer], organs: NDArray[np.integer]) -> NDArray[np.bool_]:
    return np.stack([(labels[organs == organ] > 0).any(axis=0) for organ in np.unique(organs)], axis=1)


def comparative_loss(logits: Tensor, labels: Tensor, *, margin: float = 4.0) -> Tensor:
    """Mutated genes shall stand above the others; samples without one do not count.

    Parameters
    ----------
    logits, labels
        Shape (n, genes); labels are 0 or 1.
    margin
        Weight and temperature of the mutated.
    """
    mutated = labels > 0
    others = (logits + torch.where(mutated, _ABSENT, 0.0)).logsumexp(dim=1)
    lowest = (-logits / margin + torch.where(mutated, 0.0, _ABSENT)).logsumexp(dim=1)
    return F.softplus(others + margin * lowest)[mutated.any(dim=1)].mean()

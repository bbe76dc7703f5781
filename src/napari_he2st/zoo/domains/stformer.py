"""stFormer: genes of a spot as tokens, which attend to those of the spots around it (Cao et al. 2024)."""

from __future__ import annotations

from math import ceil
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from napari_he2st.analysis.domains.grouping import Grouping, group
from napari_he2st.analysis.graphs import nearest
from napari_he2st.core.types import Domains
from napari_he2st.zoo.base import DomainMethod
from napari_he2st.zoo.blocks.expression import most_variable, normalised
from napari_he2st.zoo.recipe import Recipe

if TYPE_CHECKING:
    from anndata import AnnData

MASK, PAD = -1.0, -2.0  # values that stand for a hidden gene and for no gene


class StFormer(DomainMethod):
    """A transformer learns to fill in hidden genes from the rest of the spot and its niche; its codes are grouped.

    The published weights are pickled programs for a vocabulary of 19,264 genes and cannot be loaded safely: the
    network is trained here, on the section itself, over the section's own genes. Niche tokens are the same genes of
    the nearest spots, where the published ones are ligands of deconvolved cell types.

    Parameters
    ----------
    n_genes
        Genes of highest variance: the vocabulary.
    n_tokens, n_niche_tokens
        Largest numbers of genes of a spot, and of its niche, that the network sees.
    n_neighbours
        Spots that make up the niche.
    dim, heads, mlp_dim, depth, n_bins
        Width, attention heads, hidden width, layers, and bins of the values' embedding.
    mask
        Share of genes that are hidden in training.
    pool
        How the genes' codes become the spot's; the largest value is published.
    lr, epochs, batch_size
        Of the training.
    grouping
        How spots are grouped in the end.
    """

    def __init__(
        self,
        *,
        n_genes: int = 1000,
        n_tokens: int = 256,
        n_niche_tokens: int = 256,
        n_neighbours: int = 6,
        dim: int = 64,
        heads: int = 4,
        mlp_dim: int = 256,
        depth: int = 2,
        n_bins: int = 50,
        mask: float = 0.15,
        pool: Literal["max", "mean"] = "mean",
        lr: float = 1e-3,
        epochs: int = 20,
        batch_size: int = 32,
        grouping: Grouping = "leiden",
    ) -> None:
        self.n_genes, self.n_tokens, self.n_niche_tokens = n_genes, n_tokens, n_niche_tokens
        self.n_neighbours, self.mask, self.pool, self.grouping = n_neighbours, mask, pool, grouping
        self.sizes = {"dim": dim, "heads": heads, "mlp_dim": mlp_dim, "depth": depth, "n_bins": n_bins}
        self.recipe = Recipe(lr=lr, epochs=epochs, batch_size=batch_size, schedule="step:1:0.9")

    def segment(self, adata: AnnData, *, n_domains: int | None, seed: int) -> Domains:
        """Group the spots."""
        chosen = most_variable(adata.X, self.n_genes)
        values = torch.from_numpy(normalised(adata.X)[:, chosen])
        near = torch.from_numpy(nearest(np.asarray(adata.obsm["spatial"]), self.n_neighbours))
        network = Network(len(chosen), **self.sizes)
        n, size = len(values), self.recipe.batch_size
        steps = max(n // size, 1)
        order = torch.empty(0)

        def loss(step: int) -> Tensor:
            nonlocal order
            if step % steps == 0:
                order = torch.randperm(n)
            spots = order[(step % steps) * size :][:size]
            genes, truth = tokens(values[spots], self.n_tokens)
            hidden = (torch.rand(truth.shape) < self.mask) & (truth != PAD)
            seen = truth.masked_fill(hidden, MASK)
            found = network(genes, seen, *self._niche(values, near[spots]))["expression"]
            return masked_loss(found, truth, hidden)

        recipe = Recipe(lr=self.recipe.lr, epochs=self.recipe.epochs * steps, clip=1.0)
        recipe = Recipe(**{**vars(recipe), "schedule": f"step:{steps}:0.9"})
        report = self.minimise(network, loss, recipe, patience=10 * steps)
        report["epochs"] = ceil(report["epochs"] / steps)
        report["seconds_per_epoch"] = round(report["seconds_per_epoch"] * steps, 4)
        with torch.no_grad():
            parts = [
                network(*tokens(values[s], self.n_tokens), *self._niche(values, near[s]), pool=self.pool)["spot"]
                for s in torch.arange(n).split(size)
            ]
        embedding = torch.cat(parts).numpy()
        labels, found = group(embedding, n_domains, seed, self.grouping)
        return Domains(labels, {**report, **found}, embedding)

    def _niche(self, values: Tensor, near: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Genes, values and bias of the niche's tokens: the mean over the nearest spots, each counting the same."""
        genes, found = tokens(values[near].mean(1), self.n_niche_tokens)
        return genes, found, torch.zeros_like(found).masked_fill(found == PAD, -torch.inf)


def tokens(values: Tensor, n: int) -> tuple[Tensor, Tensor]:
    """Gene and value of the ``n`` highest non-zero values of each spot, both (spots, n); the rest is padding."""
    top, genes = values.topk(min(n, values.shape[1]), dim=1)
    empty = top <= 0
    return genes.masked_fill(empty, values.shape[1]), top.masked_fill(empty, PAD)


class ValueEmbedding(nn.Module):
    """A value as a soft choice among learnt vectors, with vectors of its own for hidden and for absent values."""

    def __init__(self, dim: int, n_bins: int, alpha: float = 1.0, mask: float = MASK, pad: float = PAD) -> None:
        super().__init__()
        self.alpha, self.mask, self.pad = alpha, mask, pad
        self.mlp, self.mlp2 = nn.Linear(1, n_bins), nn.Linear(n_bins, n_bins)
        self.emb, self.emb_mask, self.emb_pad = nn.Embedding(n_bins, dim), nn.Embedding(1, dim), nn.Embedding(1, dim)

    def forward(self, values: Tensor) -> Tensor:
        """(…, dim), from values (…)."""
        h = F.leaky_relu(self.mlp(values[..., None]), 0.1)
        found = torch.softmax(self.alpha * h + self.mlp2(h), -1) @ self.emb.weight
        found = torch.where((values == self.mask)[..., None], self.emb_mask.weight[0], found)
        return torch.where((values == self.pad)[..., None], self.emb_pad.weight[0], found)


class _SelfAttention(nn.Module):
    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.Wqkv, self.out_proj = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)

    def forward(self, x: Tensor, valid: Tensor) -> Tensor:
        q, k, v = (_split(part, self.heads) for part in self.Wqkv(x).chunk(3, -1))
        found = F.scaled_dot_product_attention(q, k, v, attn_mask=valid[:, None, None])
        return self.out_proj(_join(found) * valid[..., None])


class _CrossAttention(nn.Module):
    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.Wq, self.Wkv, self.out_proj = nn.Linear(dim, dim), nn.Linear(dim, 2 * dim), nn.Linear(dim, dim)

    def forward(self, x: Tensor, niche: Tensor, bias: Tensor) -> Tensor:
        """What the niche adds; exactly nothing where it is empty."""
        some = torch.isfinite(bias).any(1)
        k, v = (_split(part, self.heads) for part in self.Wkv(niche).chunk(2, -1))
        bias = bias.masked_fill(~some[:, None], 0.0)
        found = F.scaled_dot_product_attention(_split(self.Wq(x), self.heads), k, v, attn_mask=bias[:, None, None])
        return self.out_proj(_join(found)) * some[:, None, None]


def _split(x: Tensor, heads: int) -> Tensor:
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


def _join(x: Tensor) -> Tensor:
    return x.transpose(1, 2).flatten(2)


class _Layer(nn.Module):
    """Self-attention, attention to the niche, and a map, each followed by a norm."""

    def __init__(self, dim: int, heads: int, mlp_dim: int, dropout: float) -> None:
        super().__init__()
        self.self_attn, self.cross_attn = _SelfAttention(dim, heads), _CrossAttention(dim, heads)
        self.linear1, self.linear2 = nn.Linear(dim, mlp_dim), nn.Linear(mlp_dim, dim)
        self.norm1, self.norm2, self.norm3 = nn.LayerNorm(dim), nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, valid: Tensor, niche: Tensor, bias: Tensor) -> Tensor:
        x = self.norm1(x + self.dropout(self.self_attn(x, valid)))
        x = self.norm2(x + self.dropout(self.cross_attn(x, niche, bias)))
        return self.norm3(x + self.dropout(self.linear2(self.dropout(F.relu(self.linear1(x))))))


class _Layers(nn.Module):
    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)


class _Head(nn.Module):
    """Maps with ReLU and norm, then one to classes."""

    def __init__(self, dim: int, n_classes: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for _ in range(2):
            layers += [nn.Linear(dim, dim), nn.ReLU(), nn.LayerNorm(dim)]
        self._decoder = nn.ModuleList(layers)
        self.out_layer = nn.Linear(dim, n_classes)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self._decoder:
            x = layer(x)
        return self.out_layer(x)


class _Values(nn.Module):
    """From a gene's code to its value."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        activation = nn.LeakyReLU(0.01)
        self.fc = nn.Sequential(nn.Linear(dim, dim), activation, nn.Linear(dim, dim), activation, nn.Linear(dim, 1))


class Network(nn.Module):
    """Embeddings of the spot's genes and of its niche's, a decoder between them, and heads.

    Parameters
    ----------
    n_genes
        Size of the vocabulary without padding.
    dim, heads, mlp_dim, depth, n_bins
        As in :class:`StFormer`.
    n_classes, n_gene_classes
        Of the optional heads over spots and over genes.
    """

    def __init__(
        self,
        n_genes: int,
        *,
        dim: int = 768,
        heads: int = 12,
        mlp_dim: int = 3072,
        depth: int = 6,
        n_bins: int = 100,
        alpha: float = 1.0,
        dropout: float = 0.1,
        n_classes: int | None = None,
        n_gene_classes: int | None = None,
    ) -> None:
        super().__init__()
        self.scfoundation_token_emb1 = ValueEmbedding(dim, n_bins, alpha)
        self.scfoundation_token_emb2 = ValueEmbedding(dim, n_bins, alpha)
        self.scfoundation_pos_emb1 = nn.Embedding(n_genes + 1, dim)
        self.scfoundation_pos_emb2 = nn.Embedding(n_genes + 1, dim)
        self.transformer_decoder = _Layers(*(_Layer(dim, heads, mlp_dim, dropout) for _ in range(depth)))
        self.decoder = _Values(dim)
        if n_classes is not None:
            self.cls_decoder = _Head(dim, n_classes)
        if n_gene_classes is not None:
            self.gcl_decoder = _Head(dim, n_gene_classes)

    def forward(
        self,
        genes: Tensor,
        values: Tensor,
        niche_genes: Tensor,
        niche_values: Tensor,
        bias: Tensor,
        pool: Literal["max", "mean"] = "max",
    ) -> dict[str, Tensor]:
        """``expression`` (spots, tokens), ``genes`` (spots, tokens, dim), ``spot`` (spots, dim), and heads.

        Parameters
        ----------
        genes, values
            Tokens of the spots, int64 and float (spots, tokens).
        niche_genes, niche_values, bias
            Those of the niche, and what is added to the scores of each; −inf where there is none.
        pool
            How the genes' codes become the spot's.
        """
        niche = self.scfoundation_token_emb1(niche_values) + self.scfoundation_pos_emb1(niche_genes)
        x = self.scfoundation_token_emb2(values) + self.scfoundation_pos_emb2(genes)
        valid = values != PAD
        valid[:, 0] |= ~valid.any(1)  # a spot without any gene is its padding
        for layer in self.transformer_decoder.layers:
            x = layer(x, valid, niche, bias)
        out = {"expression": self.decoder.fc(x).squeeze(-1), "genes": x, "spot": pooled(x, valid, pool)}
        if hasattr(self, "cls_decoder"):
            out["classes"] = self.cls_decoder(out["spot"])
        if hasattr(self, "gcl_decoder"):
            out["gene_classes"] = self.gcl_decoder(x)
        return out


def pooled(x: Tensor, valid: Tensor, how: Literal["max", "mean"]) -> Tensor:
    """Largest value or mean over the genes that are there."""
    if how == "max":
        return x.masked_fill(~valid[..., None], -torch.inf).amax(1)
    return (x * valid[..., None]).sum(1) / valid.sum(1, keepdim=True)


def masked_loss(found: Tensor, truth: Tensor, hidden: Tensor) -> Tensor:
    """Mean squared error over the hidden values."""
    return ((found - truth).square() * hidden).sum() / hidden.sum().clamp(min=1)

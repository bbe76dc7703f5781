"""GenAR: counts written token by token, from groups of genes to genes (Med. Image Anal. 114:104232, 2026)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from napari_he2st.core.errors import ModelError
from napari_he2st.core.noise import Noise
from napari_he2st.zoo.base import Batches, Expression, Predictor, Spots
from napari_he2st.zoo.blocks.adaln import modulated
from napari_he2st.zoo.blocks.draws import uniform
from napari_he2st.zoo.blocks.gated import GatedBlock
from napari_he2st.zoo.blocks.gene_order import gene_order
from napari_he2st.zoo.inputs import Features, Positions
from napari_he2st.zoo.recipe import Recipe

_SHARES = (0.02, 0.04, 0.2, 0.5, 1.0)
_IDENTITY_SHARE = 0.3
_IMAGE_DIM, _PLACE_DIM = 512, 256
_INNER_DROPOUT = 0.1
_RARE = 1e-6


class GenAR(Predictor):
    """Genes in an order in which similar ones are neighbours; means of ever smaller groups, at last their counts.

    Parameters
    ----------
    n_genes
        Size of the panel.
    encoder, feature_dim
        See :class:`~napari_he2st.zoo.inputs.Features`, and the size of its features.
    scale_dims
        Number of groups at each scale, the last one ``n_genes``; by default in the published proportions.
    vocabulary
        Counts that have a token, from 0; higher ones count as the highest.
    dim, depth, heads, mlp_ratio, condition_dim
        Of the transformer, and width of what image and position tell it.
    dropout, attention_dropout, drop_path, condition_dropout
        Within layers, of attention, of whole layers (growing up to this), of the condition.
    gene_identity
        Let the identity of a gene modulate its prediction.
    unit_attention
        Compare queries and keys by their direction alone.
    shared_modulation
        Layers add constants of their own to one condition in place of a linear map of it.
    sigma
        Width of the target's distribution, growing with the count: (factor, least).
    final_loss
        ``"gaussian_kl"``, or ``"cross_entropy"`` for hard targets.
    scale_weights
        Of the losses of the scales; None for equal ones.
    regression
        Predict numbers in place of tokens, with this loss.
    plain_ablation
        Of regression and cross entropy: read one channel of the output in place of all, and average losses over genes.
    tile_px, mpp
        Width of the tile around the spot and its pixel size.
    """

    unit = Spots()
    targets = {"expression": Expression("counts", panel="hvg:200")}
    recipe = Recipe("adam", lr=1e-4, epochs=200, batch_size=64, clip=1.0)
    draws = 4

    def __init__(
        self,
        n_genes: int,
        *,
        encoder: str = "uni",
        feature_dim: int = 1024,
        scale_dims: Sequence[int] | None = None,
        vocabulary: int = 2001,
        dim: int = 512,
        depth: int = 8,
        heads: int = 8,
        mlp_ratio: float = 4.0,
        condition_dim: int = 512,
        dropout: float = 0.0,
        attention_dropout: float = 0.0,
        drop_path: float = 0.1,
        condition_dropout: float = 0.1,
        gene_identity: bool = True,
        unit_attention: bool = True,
        shared_modulation: bool = False,
        sigma: tuple[float, float] = (0.1, 1.0),
        final_loss: Literal["gaussian_kl", "cross_entropy"] = "gaussian_kl",
        scale_weights: Sequence[float] | None = None,
        regression: Literal["mse", "gaussian_nll"] | None = None,
        plain_ablation: bool = False,
        tile_px: int = 224,
        mpp: float | None = None,
    ) -> None:
        super().__init__()
        self.inputs = {
            "features": Features(encoder=encoder, px=tile_px, mpp=mpp),
            "um": Positions(kind="um"),
            "every_um": Positions(kind="um", per="slide"),
        }
        self.scale_dims = tuple(scale_dims or sorted({1, *(max(1, round(n_genes * share)) for share in _SHARES)}))
        if self.scale_dims[-1] != n_genes:
            raise ModelError(f"The last scale has {self.scale_dims[-1]} groups for {n_genes} genes", where="scale_dims")
        self.vocabulary, self.sigma, self.final_loss = vocabulary, sigma, final_loss
        self.scale_weights = [1.0] * len(self.scale_dims) if scale_weights is None else list(scale_weights)
        self.regression, self.plain = regression, plain_ablation
        self.start_token = nn.Parameter(0.02 * torch.randn(1, 1, dim))
        self.condition_processor = _Condition(feature_dim, condition_dim, condition_dropout)
        self.gene_embedding = nn.Embedding(vocabulary, dim)
        if gene_identity:
            self.gene_identity_embedding = nn.Embedding(n_genes, dim)
            self.film_layer = nn.ModuleDict(
                {
                    "condition_projector": nn.Sequential(
                        nn.Linear(dim, dim // 2), nn.ReLU(), nn.Linear(dim // 2, 2 * dim)
                    )
                }
            )
            self.gene_identity_pooling = nn.ModuleDict({"scale_poolers": _poolers(self.scale_dims[:-1], dim)})
        self.gene_upsampling = nn.ModuleDict({"upsample_transforms": _upsamplers(len(self.scale_dims), dim)})
        lengths = [1 + sum(self.scale_dims[: i + 1]) for i in range(len(self.scale_dims))]
        self.hierarchical_pos_embedding = nn.ModuleDict(
            {f"scale_{i}": nn.Embedding(length, dim) for i, length in enumerate(lengths)}
        )
        self.scale_embedding = nn.Embedding(len(self.scale_dims), dim)
        paths = np.linspace(0, drop_path, depth).tolist()
        self.transformer_blocks = nn.ModuleList(
            GatedBlock(
                dim,
                heads=heads,
                hidden=int(dim * mlp_ratio),
                condition_dim=None if shared_modulation else condition_dim,
                dropout=dropout,
                attention_dropout=attention_dropout,
                drop_path=path,
                unit_attention=unit_attention,
            )
            for path in paths
        )
        self.head_norm = nn.ModuleDict({"ada_lin": nn.Sequential(nn.SiLU(), nn.Linear(condition_dim, 2 * dim))})
        self.output_head = nn.Linear(dim, vocabulary)
        self.apply(_initialise)

    def prepare(self, *, features: Tensor, um: Tensor, every_um: Tensor) -> dict[str, Tensor]:
        """Features, and positions from 0 to 1 over the spots of the slide, each axis by itself."""
        low, high = every_um.amin(0), every_um.amax(0)
        span = high - low
        return {"features": features, "place": (um - low) / torch.where(span > 0, span, torch.ones_like(span))}

    def forward(
        self,
        features: Tensor,
        place: Tensor,
        counts: Tensor | None = None,
        *,
        ranks: Tensor | None = None,
        temperature: float = 0.0,
        top_k: int = 0,
    ) -> tuple[list[Tensor], Tensor]:
        """What each scale predicts, and the values chosen at the last.

        Parameters
        ----------
        features, place
            (n, features), and position from 0 to 1, (n, 2).
        counts
            True counts in the order of the hierarchy, (n, genes), NaN where unmeasured: each scale is then shown the
            true values of the coarser ones, but placed by its own predictions. None to generate.
        ranks, temperature, top_k
            As in :meth:`predict`; ``ranks`` are uniform numbers, one per token, (n, tokens).

        Returns
        -------
        outputs
            Per scale (n, groups, vocabulary) logits, or (n, groups) numbers in regression.
        values
            (n, genes) counts.
        """
        condition = self.condition_processor(features, place)
        context, outputs, embedded, start = [self.start_token.expand(len(features), -1, -1)], [], None, 0
        for scale, width in enumerate(self.scale_dims):
            sequence = torch.cat([*context, self._places(scale, embedded, len(features))], dim=1)
            sequence = sequence + self.scale_embedding.weight[scale]
            sequence = sequence + self.hierarchical_pos_embedding[f"scale_{scale}"].weight[: sequence.shape[1]]
            seen = torch.ones(2 * sequence.shape[1:2], dtype=torch.bool, device=sequence.device).tril()
            for block in self.transformer_blocks:
                sequence = block(sequence, condition, seen)
            outputs.append(self._read(sequence[:, -width:], scale, condition))
            own = None if ranks is None else ranks[:, start : start + width]
            values = self._choose(outputs[-1], own, temperature, top_k)
            shown = values if counts is None else self._shown(pooled(counts, width))
            embedded = self._embed(values.detach())
            context.append(self._embed(shown))
            start += width
        return outputs, values

    def _places(self, scale: int, embedded: Tensor | None, n: int) -> Tensor:
        """Where the groups of a scale are predicted: made of what the coarser group that holds each was found to be."""
        width = self.scale_dims[scale]
        if embedded is None:
            return self.start_token.new_zeros(n, width, self.start_token.shape[-1])
        parent = torch.arange(width, device=embedded.device) * embedded.shape[1] // width
        transform = self.gene_upsampling["upsample_transforms"][f"scale_{scale - 1}_to_{scale}"]
        places = transform(embedded)[:, parent]
        if scale + 1 == len(self.scale_dims) and hasattr(self, "gene_identity_embedding"):
            places = (1 - _IDENTITY_SHARE) * places + _IDENTITY_SHARE * self.gene_identity_embedding.weight
        return places

    def _read(self, hidden: Tensor, scale: int, condition: Tensor) -> Tensor:
        factor, shift = self.head_norm["ada_lin"](condition)[:, None].chunk(2, dim=-1)
        hidden = modulated(hidden, shift, factor)
        if hasattr(self, "gene_identity_embedding"):
            identity = self.gene_identity_embedding.weight
            if scale + 1 < len(self.scale_dims):
                identity = self.gene_identity_pooling["scale_poolers"][f"scale_{scale}"](identity)
            gamma, beta = self.film_layer["condition_projector"](identity).chunk(2, dim=-1)
            hidden = gamma * hidden + beta
        out = self.output_head(hidden)
        if self.regression is None:
            return out
        return out[..., 0] if self.plain else F.softplus(out).mean(-1)

    def _choose(self, output: Tensor, ranks: Tensor | None, temperature: float, top_k: int) -> Tensor:
        if self.regression is not None:
            return output
        if temperature <= 0 or ranks is None or top_k == 1:
            return output.argmax(-1)
        if top_k:
            output = output.masked_fill(output < output.topk(top_k, dim=-1).values[..., -1:], -torch.inf)
        below = (output / temperature).softmax(-1).cumsum(-1)
        return (below < ranks[..., None] * below[..., -1:]).sum(-1)

    def _shown(self, means: Tensor) -> Tensor:
        """What later scales are shown of true values: tokens nearest to them, or themselves in regression."""
        if self.regression is not None:
            return means
        return (means - 0.5).ceil().long()

    def _embed(self, values: Tensor) -> Tensor:
        if self.regression is None:
            return self.gene_embedding(values)
        values = values.clamp(0, self.vocabulary - 1)
        share = (values - values.floor())[..., None]
        return (
            self.gene_embedding(values.floor().long()) * (1 - share) + self.gene_embedding(values.ceil().long()) * share
        )

    def scale_losses(self, outputs: Sequence[Tensor], counts: Tensor) -> list[Tensor]:
        """Loss of each scale over measured genes, from counts in the order of the hierarchy, (n, genes)."""
        losses = []
        for output, width in zip(outputs, self.scale_dims, strict=True):
            target, known = pooled(counts, width), _known_share(counts, width) > 0
            last = width == self.scale_dims[-1]
            if self.regression is not None:
                each = _regression_loss(output, target, self.regression)
            elif last and self.final_loss == "cross_entropy":
                each = F.cross_entropy(output.transpose(1, 2), target.long(), reduction="none")
            else:
                wanted = gaussian_tokens(target, self.vocabulary, *self.sigma) if last else _between(target, output)
                each = F.kl_div(output.log_softmax(-1), wanted, reduction="none").sum(-1)
            total = torch.where(known, each, torch.zeros_like(each)).sum()
            ablation = self.regression is not None or (last and self.final_loss == "cross_entropy")
            losses.append(total / (known.sum().clamp(min=1) if self.plain and ablation else len(counts)))
        return losses

    def loss(self, targets: Mapping[str, Tensor], *, features: Tensor, place: Tensor) -> Tensor:
        """Weighted mean of the losses of the scales."""
        counts = targets["expression"].clamp(0, self.vocabulary - 1)[:, self._order()]
        losses = self.scale_losses(self(features, place, counts)[0], counts)
        return sum(w * loss for w, loss in zip(self.scale_weights, losses, strict=True)) / sum(self.scale_weights)

    def predict(
        self,
        *,
        features: Tensor,
        place: Tensor,
        noise: Noise | None = None,
        reading: Literal["mean", "likeliest", "drawn"] = "mean",
        temperature: float = 1.0,
        top_k: int = 0,
    ) -> Tensor:
        """Counts of each gene, float32 (n, genes).

        ``reading`` says what becomes of the distributions over tokens. ``"mean"``: tokens of groups are drawn, and
        each gene has the mean over its own; the average of several draws is what a count is expected to be.
        ``"likeliest"``: the most likely token of each group and gene, as published, which understates genes that are
        seldom high. ``"drawn"``: tokens of genes are drawn too. It is drawn among the ``top_k`` most likely tokens, or
        (0) all of them, the more evenly the higher the ``temperature``.
        """
        if noise is None or reading == "likeliest":
            temperature = 0.0
        ranks = uniform(noise, features, sum(self.scale_dims)) if temperature > 0 else None
        outputs, values = self(features, place, ranks=ranks, temperature=temperature, top_k=top_k)
        if reading == "mean" and self.regression is None:
            values = outputs[-1].softmax(-1) @ torch.arange(float(self.vocabulary), device=features.device)
        return values[:, np.argsort(self._order())].float()

    def fit(self, batches: Batches, recipe: Recipe) -> Iterator[dict[str, float]]:
        """Order the genes by the training spots, then train, from how frequent each token is there on."""
        counts = torch.cat([targets["expression"] for targets, _ in batches])
        self.extras["order"] = gene_order(np.nan_to_num(counts.cpu().numpy()))
        if self.regression is None:
            self._start_at_frequencies(counts)
        yield from super().fit(batches, recipe)

    @torch.no_grad()
    def _start_at_frequencies(self, counts: Tensor) -> None:
        """Else tokens that never occur, up to 2,000, have to be unlearnt one by one before a mean means anything."""
        ordered = counts.clamp(0, self.vocabulary - 1)[:, self._order()]
        tokens = torch.cat([self._shown(pooled(ordered, width)).flatten() for width in self.scale_dims])
        frequency = tokens.bincount(minlength=self.vocabulary) / len(tokens)
        self.output_head.bias.copy_(frequency.clamp(min=_RARE).log())

    def _order(self) -> NDArray[np.intp]:
        return np.asarray(self.extras.get("order", np.arange(self.scale_dims[-1])), dtype=np.intp)


def pooled(counts: Tensor, width: int) -> Tensor:
    """Mean over the measured genes of each of ``width`` groups; 0 where none is."""
    share = _known_share(counts, width)
    mean = F.adaptive_avg_pool1d(counts.nan_to_num().float(), width)
    return mean / torch.where(share > 0, share, torch.ones_like(share))


def _known_share(counts: Tensor, width: int) -> Tensor:
    return F.adaptive_avg_pool1d(counts.isfinite().float(), width)


def gaussian_tokens(counts: Tensor, vocabulary: int, factor: float, least: float) -> Tensor:
    """Normal distribution over all tokens around each count, (…, vocabulary)."""
    sigma = (factor * counts + least)[..., None]
    tokens = torch.arange(vocabulary, dtype=torch.float32, device=counts.device)
    weight = (-(tokens - counts[..., None]).square() / (2 * sigma.square())).exp()
    return weight / weight.sum(-1, keepdim=True)


def _between(means: Tensor, like: Tensor) -> Tensor:
    """Weight on the two tokens around each mean."""
    share = (means - means.floor())[..., None]
    target = torch.zeros_like(like).scatter_add_(-1, means.floor().long()[..., None], 1 - share)
    return target.scatter_add_(-1, means.ceil().long()[..., None], share)


def _regression_loss(predicted: Tensor, target: Tensor, kind: str) -> Tensor:
    if kind == "mse":
        return (predicted - target).square()
    variance = (0.01 * predicted.exp() + 0.1).clamp(min=1e-4)
    return 0.5 * variance.log() + 0.5 * (target - predicted).square() / variance


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.trunc_normal_(module.weight, std=0.02)
    if isinstance(module, nn.Linear) and module.bias is not None:
        nn.init.zeros_(module.bias)


class _Pool(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width

    def forward(self, identity: Tensor) -> Tensor:
        return F.adaptive_avg_pool1d(identity.T, self.width).T


def _poolers(widths: Sequence[int], dim: int) -> nn.ModuleDict:
    return nn.ModuleDict(
        {
            f"scale_{i}": nn.Sequential(
                _Pool(width), nn.Linear(dim, dim), nn.LayerNorm(dim), nn.Dropout(_INNER_DROPOUT)
            )
            for i, width in enumerate(widths)
        }
    )


def _upsamplers(n_scales: int, dim: int) -> nn.ModuleDict:
    return nn.ModuleDict(
        {
            f"scale_{i}_to_{i + 1}": nn.Sequential(
                nn.Linear(dim, 2 * dim),
                nn.GELU(),
                nn.Linear(2 * dim, dim),
                nn.LayerNorm(dim),
                nn.Dropout(_INNER_DROPOUT),
            )
            for i in range(n_scales - 1)
        }
    )


class _Condition(nn.Module):
    """Image features, and position by a small network and by sines."""

    div_term: Tensor

    def __init__(self, feature_dim: int, dim: int, dropout: float) -> None:
        super().__init__()
        self.histology_processor = nn.Sequential(
            nn.LayerNorm(feature_dim),
            nn.Linear(feature_dim, _IMAGE_DIM),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(_IMAGE_DIM, _IMAGE_DIM),
            nn.LayerNorm(_IMAGE_DIM),
        )
        half = _PLACE_DIM // 2
        self.spatial_processor = nn.Sequential(
            nn.Linear(2, half), nn.GELU(), nn.Linear(half, _PLACE_DIM), nn.LayerNorm(_PLACE_DIM)
        )
        self.register_buffer("div_term", torch.exp(-math.log(10000) * torch.arange(0, half, 2) / half))
        self.final_projection = nn.Sequential(
            nn.Linear(_IMAGE_DIM + _PLACE_DIM, dim), nn.LayerNorm(dim), nn.Dropout(dropout)
        )

    def forward(self, features: Tensor, place: Tensor) -> Tensor:
        angles = place[..., None] * self.div_term
        waves = torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)
        where = self.spatial_processor(place) + waves
        return self.final_projection(torch.cat([self.histology_processor(features), where], dim=1))

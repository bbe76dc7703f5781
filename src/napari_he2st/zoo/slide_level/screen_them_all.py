"""Screen Them All: many biomarkers from one slide, by Agata or by PRISM's perceiver (arXiv 2408.09554)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from napari_he2st.zoo.blocks.bags import BagClassifier, width_of
from napari_he2st.zoo.blocks.trunks import adopt
from napari_he2st.zoo.recipe import Recipe

_POOLER_HEADS = 8


class ScreenThemAll(BagClassifier):
    """Attention over all tiles of a slide, with two logits for each biomarker.

    Parameters
    ----------
    labels
        Names of the biomarkers.
    head
        ``"agata"``, or ``"perceiver"``: PRISM's slide encoder below the same outputs.
    encoder, feature_dim
        Of the tiles, and the width of its features (by default the encoder's).
    dim, hidden_dim
        Width of the first layer, which is looked at, and of the second, which is averaged.
    n_queries
        What is seen by several is added up.
    scaled, absolute
        Divide the scores by the root of ``dim``; average the second layer's absolute values.
    n_latents, latent_dim, depth, inner_depth
        Of the perceiver.
    tile_px, tile_mpp, max_tiles
        Of the tiles.
    """

    recipe = Recipe("adamw", lr=5e-4, epochs=60, batch_size=1, schedule="step:30:0.5")

    def __init__(
        self,
        labels: Sequence[str] = ("label",),
        *,
        head: Literal["agata", "perceiver"] = "agata",
        encoder: str = "virchow2",
        feature_dim: int | None = None,
        dim: int = 512,
        hidden_dim: int = 512,
        n_queries: int = 1,
        scaled: bool = False,
        absolute: bool = False,
        n_latents: int = 512,
        latent_dim: int = 768,
        depth: int = 8,
        inner_depth: int = 6,
        tile_px: int = 224,
        tile_mpp: float | None = 0.5,
        max_tiles: int | None = None,
    ) -> None:
        super().__init__(encoder=encoder, tile_px=tile_px, tile_mpp=tile_mpp, max_tiles=max_tiles)
        self.labels, self.scaled, self.absolute = tuple(labels), scaled, absolute
        width = width_of(encoder, feature_dim)
        self.head = head
        if head == "perceiver":
            network = PerceiverResampler(
                n_latents=n_latents, dim=latent_dim, context_dim=width, depth=depth, inner_depth=inner_depth
            )
            adopt(self, network)
            self._network = (network,)  # in a tuple, so that keys carry no prefix
            self.heads = label_heads(self.labels, latent_dim)
            return
        self.linear1 = nn.Linear(width, dim)
        self.linear2 = nn.Linear(dim, hidden_dim)
        self.attention = nn.Module()
        self.attention.queries = nn.Linear(dim, n_queries, bias=False)
        self.heads = label_heads(self.labels, hidden_dim)

    def forward(self, bags: Tensor, padding: Tensor | None = None) -> tuple[dict[str, Tensor], Tensor, Tensor]:
        """Logits of slides.

        Parameters
        ----------
        bags
            Shape (n, tiles, feature_dim).
        padding
            Which tiles are padding, bool (n, tiles).

        Returns
        -------
        logits, slide, attention
            Label → (n, 2); (n, hidden_dim); scores before their softmax, (n, tiles, n_queries). Of the
            perceiver: (n, latent_dim); shares of the first look, mean over latents, (n, tiles, 1).
        """
        if self.head == "perceiver":
            network, valid = self._network[0], None if padding is None else ~padding
            slide, _ = network(bags, valid)
            return {name: head(slide) for name, head in self.heads.items()}, slide, network.first_look(bags, valid)
        seen = self.linear1(bags).relu()
        values = self.linear2(seen).relu()
        scores = self.attention.queries(seen)
        if self.scaled:
            scores = scores / seen.shape[-1] ** 0.5
        if padding is not None:
            scores = scores.masked_fill(padding[..., None], -torch.inf)
        if self.absolute:
            values = values.abs()
        slide = (scores.softmax(dim=1).mT @ values).sum(dim=1)
        return {name: head(slide) for name, head in self.heads.items()}, slide, scores

    def scores(self, features: Tensor, centres: Tensor) -> tuple[Tensor, Tensor]:
        """Probability of each biomarker, and attention before its softmax."""
        logits, _, attention = self(features[None])
        return torch.stack([logits[name][0].sigmoid()[1] for name in self.labels]), attention[0]

    def loss(self, targets: Mapping[str, Tensor], *, features: Tensor, centres: Tensor) -> Tensor:
        """Cross-entropies of the biomarkers that are known (not −1), added up."""
        logits, _, _ = self(features[None])
        wanted = targets["label"].reshape(-1).long()
        known = [(logits[name], wanted[i : i + 1]) for i, name in enumerate(self.labels) if wanted[i] >= 0]
        return sum(
            (F.cross_entropy(found, label) for found, label in known), start=0 * next(iter(logits.values())).sum()
        )


def label_heads(labels: tuple[str, ...], width: int) -> nn.ModuleDict:
    """Two logits for each label, with the published keys ``heads.LABEL.fc.0``."""
    return nn.ModuleDict({name: _Head(width) for name in labels})


class _Head(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc = nn.Sequential(nn.Linear(width, 2))

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(x)


class PerceiverResampler(nn.Module):
    """PRISM's slide encoder: a few latent tokens that look at all tiles, again and again.

    Parameters
    ----------
    n_latents, dim, context_dim
        Number and width of the latents, and width of a tile's feature.
    heads
        Of the latents' attention to each other.
    depth, inner_depth
        Rounds, and self-attention layers of each.
    share_cross_from, share_inner_from
        Rounds above this one use its layers again.
    project
        Whether tiles are projected to keys and values.
    append_queries
        Latents see themselves beside the tiles.
    chunked
        Each round sees its own part of the tiles.
    pooler
        ``"mean"``, ``"parallel"`` or ``"mhsa"``: how the latents become one.
    """

    def __init__(
        self,
        *,
        n_latents: int = 512,
        dim: int = 768,
        context_dim: int = 2560,
        heads: int = 8,
        depth: int = 8,
        inner_depth: int = 6,
        share_cross_from: int = 1,
        share_inner_from: int = 0,
        project: bool = True,
        append_queries: bool = False,
        chunked: bool = False,
        pooler: str = "mean",
    ) -> None:
        super().__init__()
        self.pooler, self.heads, self.chunked, self.share_from = pooler, heads, chunked, share_cross_from
        if pooler == "mhsa":
            self.mhsa_pooler = _SelfAttention(dim, _POOLER_HEADS)
        if pooler != "mean":
            self.cls_norm = nn.LayerNorm(dim)
            self.img_norm = nn.LayerNorm(dim)
        self.perceiver = nn.Module()
        self.perceiver.latents = nn.Parameter(torch.randn(n_latents + (pooler != "mean"), dim) * 0.02)
        layers: list[nn.ModuleDict] = []
        for number in range(depth):
            if number > share_cross_from:
                cross = layers[share_cross_from]["xattn"]
            else:
                attention = _CrossAttention(dim, context_dim, project=project, append_queries=append_queries)
                cross = nn.ModuleDict({"xattn": attention, "ff": _GatedFeedForward(dim)})
            if number > share_inner_from:
                inner = layers[share_inner_from]["tf"]
            else:
                inner = nn.ModuleList(
                    nn.ModuleDict({"mhsa": _SelfAttention(dim, heads), "ff": _GatedFeedForward(dim)})
                    for _ in range(inner_depth)
                )
            layers.append(nn.ModuleDict({"xattn": cross, "tf": inner}))
        self.perceiver.layers = nn.ModuleList(layers)

    def forward(self, tiles: Tensor, valid: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Slide embedding (n, dim) and latents (n, n_latents, dim).

        Parameters
        ----------
        tiles
            Shape (n, tiles, context_dim).
        valid
            Which of them are no padding, bool (n, tiles).
        """
        x = self.perceiver.latents.expand(len(tiles), -1, -1)
        parts = tiles.chunk(self.heads, dim=1) if self.chunked else (tiles,)
        masks = (None,) * len(parts) if valid is None else valid.chunk(self.heads, dim=1) if self.chunked else (valid,)
        kept = None
        for number, layer in enumerate(self.perceiver.layers):
            cross, place = layer["xattn"], number % len(parts)
            if kept is None or self.chunked or number <= self.share_from:
                kept = cross["xattn"].keys_values(parts[place])
            x = x + cross["xattn"](x, *kept, masks[place])
            x = x + cross["ff"](x)
            for inner in layer["tf"]:
                x = x + inner["mhsa"](x)
                x = x + inner["ff"](x)
        if self.pooler == "mean":
            return x.mean(dim=1), x
        if self.pooler == "mhsa":
            x = self.mhsa_pooler(x)
        return self.cls_norm(x[:, 0]), self.img_norm(x[:, 1:])

    def first_look(self, tiles: Tensor, valid: Tensor | None = None) -> Tensor:
        """Share of each tile in what the latents see first, their mean: (n, tiles, 1)."""
        cross = self.perceiver.layers[0]["xattn"]["xattn"]
        q, (k, _) = cross.to_q(cross.x_norm(self.perceiver.latents)), cross.keys_values(tiles)
        scores = q @ k.mT / q.shape[-1] ** 0.5
        if valid is not None:
            scores = scores.masked_fill(~valid[:, None], -torch.inf)
        return scores.softmax(dim=-1).mean(dim=1)[..., None]


class _CrossAttention(nn.Module):
    def __init__(self, dim: int, context_dim: int, *, project: bool, append_queries: bool) -> None:
        super().__init__()
        self.append_queries = append_queries
        self.x_norm = nn.LayerNorm(dim)
        self.to_q = nn.Linear(dim, dim if project else context_dim, bias=False)
        if project:
            self.to_kv = nn.Linear(context_dim, 2 * dim, bias=False)
        self.to_out = nn.Linear(dim if project else context_dim, dim, bias=False)

    def keys_values(self, tiles: Tensor) -> tuple[Tensor, Tensor]:
        if not hasattr(self, "to_kv"):
            return tiles, tiles
        k, v = self.to_kv(tiles).chunk(2, dim=-1)
        return k, v

    def forward(self, x: Tensor, k: Tensor, v: Tensor, valid: Tensor | None) -> Tensor:
        q = self.to_q(self.x_norm(x))
        if self.append_queries:
            k, v = torch.cat([k, q], dim=1), torch.cat([v, q], dim=1)
            if valid is not None:
                valid = F.pad(valid, (0, q.shape[1]), value=True)
        mask = None if valid is None else valid[:, None]
        return self.to_out(F.scaled_dot_product_attention(q, k, v, attn_mask=mask))


class _SelfAttention(nn.Module):
    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.mha = nn.MultiheadAttention(dim, heads, bias=False, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(x)
        return self.mha(x, x, x, need_weights=False)[0]


class _GatedFeedForward(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.net = nn.Sequential(nn.Linear(dim, 2 * dim), _Gate(), nn.Linear(dim, dim))

    def forward(self, x: Tensor) -> Tensor:
        return self.net(self.norm(x))


class _Gate(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        value, gate = x.chunk(2, dim=-1)
        return value * F.gelu(gate)

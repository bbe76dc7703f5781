"""Magic: an image encoder contrasted with gene tokens, then a decoder for 300 genes (2025)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from napari_he2st.core.noise import Noise
from napari_he2st.zoo.base import Batches, Expression, Predictor, Spots
from napari_he2st.zoo.blocks.losses import nan_mse
from napari_he2st.zoo.blocks.pixels import standardise
from napari_he2st.zoo.blocks.symmetry import random_symmetry
from napari_he2st.zoo.blocks.trunks import load_imagenet
from napari_he2st.zoo.blocks.vit import join_heads, split_heads
from napari_he2st.zoo.guard import safe_import
from napari_he2st.zoo.inputs import Tiles
from napari_he2st.zoo.recipe import Recipe, descend, make_optimizer

_CLIP = {"mean": (0.48145466, 0.4578275, 0.40821073), "std": (0.26862954, 0.26130258, 0.27577711)}
_LARGEST_TOKEN = 3


class Magic(Predictor):
    """A ViT whose embedding is decoded by three linear layers and a transformer decoder.

    Parameters
    ----------
    n_genes
        Size of the panel.
    dim, depth, heads, patch_px, embed_dim
        Of the vision transformer; width of the embedding.
    hidden, decoder_depth, decoder_heads, decoder_mlp_dim, dropout
        Of the decoder. Where the panel's size is no multiple of the heads, the next smaller number that divides
        it counts.
    tile_px
        Width of the tile.
    contrast_epochs
        Epochs of the first stage, which brings image and gene embeddings together and then freezes the images'.
        Without them the image encoder is trained with the decoder.
    imagenet
        Start training from the ImageNet weights of DeiT-B/16, as published.

    Notes
    -----
    The published first stage starts the gene encoder from scBERT and trains its last layers only; here it starts
    from random weights, sees the panel, and all of it is trained.
    """

    unit = Spots()
    targets = {"expression": Expression("counts", panel="mean:300")}
    recipe = Recipe("adamw", lr=5e-5, weight_decay=0.01, epochs=100, batch_size=32, schedule="cosine:100")

    def __init__(
        self,
        n_genes: int,
        *,
        dim: int = 768,
        depth: int = 12,
        heads: int = 12,
        patch_px: int = 16,
        embed_dim: int = 512,
        hidden: tuple[int, int] = (1024, 1500),
        decoder_depth: int = 6,
        decoder_heads: int = 5,
        decoder_mlp_dim: int = 2048,
        dropout: float = 0.1,
        tile_px: int = 224,
        contrast_epochs: int = 100,
        imagenet: bool = True,
    ) -> None:
        super().__init__()
        self.inputs = {"tiles": Tiles(px=tile_px)}
        self.contrast_epochs, self.imagenet = contrast_epochs, imagenet
        timm = safe_import("timm")
        self.visual_encoder = timm.create_model(
            "deit_base_patch16_224",
            img_size=tile_px,
            patch_size=patch_px,
            embed_dim=dim,
            depth=depth,
            num_heads=heads,
            num_classes=0,
        )
        self.vision_proj = nn.Linear(dim, embed_dim)
        self.decorder = _Decoder(embed_dim, hidden, n_genes, decoder_depth, decoder_heads, decoder_mlp_dim, dropout)

    def prepare(self, *, tiles: Tensor) -> dict[str, Tensor]:
        """Tiles standardised as for CLIP."""
        return {"images": standardise(tiles, _CLIP)}

    def embed(self, images: Tensor) -> Tensor:
        """Embedding of images (n, 3, px, px), float32 (n, embed_dim), not of unit length."""
        return self.vision_proj(self.visual_encoder.forward_features(images)[:, 0])

    def forward(self, images: Tensor) -> Tensor:
        """Counts, float32 (n, genes), from (n, 3, px, px)."""
        return self.decorder(self.embed(images))

    def loss(self, targets: Mapping[str, Tensor], *, images: Tensor) -> Tensor:
        """MSE of randomly turned and mirrored tiles; counts are whole numbers, as the original's are cut to be."""
        return nan_mse(self(random_symmetry(images)), targets["expression"])

    def predict(self, *, images: Tensor, noise: Noise | None = None) -> Tensor:
        """Counts, float32 (n, genes)."""
        return self(images)

    def fit(self, batches: Batches, recipe: Recipe) -> Iterator[dict[str, float]]:
        """First stage (records with ``contrast``), then the decoder on frozen embeddings."""
        if self.imagenet:
            load_imagenet(self.visual_encoder, "deit_base_patch16_224")
        if self.contrast_epochs:
            yield from self._contrast(batches, replace(recipe, epochs=self.contrast_epochs))
            self.visual_encoder.requires_grad_(False)
            self.vision_proj.requires_grad_(False)
        yield from super().fit(batches, recipe)

    def _contrast(self, batches: Batches, recipe: Recipe) -> Iterator[dict[str, float]]:
        targets, prepared = next(iter(batches))
        n_genes, n_out = targets["expression"].shape[1], self.vision_proj.out_features
        pair = nn.ModuleList([self, GeneEncoder(n_genes + 1, n_out=n_out).to(prepared["images"].device)])
        scale = nn.Parameter(torch.tensor(math.log(1 / 0.07), device=prepared["images"].device))
        pair.register_parameter("logit_scale", scale)
        optimizer = make_optimizer(pair, recipe)
        for epoch in range(recipe.epochs):
            pair.train()
            total, n = 0.0, 0
            for targets, prepared in batches:
                image = F.normalize(self.embed(random_symmetry(prepared["images"])), dim=1)
                gene = F.normalize(pair[1](gene_tokens(targets["expression"])), dim=1)
                logits = scale.clamp(0, math.log(100)).exp() * image @ gene.T
                own = torch.arange(len(image), device=image.device)
                loss = (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2
                descend(optimizer, loss, recipe)
                total, n = total + float(loss.detach()), n + 1
            yield {"epoch": epoch, "contrast": total / max(n, 1)}


class _BatchNorm(nn.BatchNorm1d):
    """Also in training, a single spot is normalised by the running statistics."""

    def forward(self, x: Tensor) -> Tensor:
        if len(x) > 1:
            return super().forward(x)
        return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)


class _Decoder(nn.Module):
    """Linear layers to the width of the panel, then a transformer decoder of one token per spot."""

    def __init__(
        self,
        dim: int,
        hidden: tuple[int, int],
        n_genes: int,
        depth: int,
        heads: int,
        mlp_dim: int,
        dropout: float,
    ) -> None:
        super().__init__()
        widths = (dim, *hidden, n_genes)
        layers: list[nn.Module] = []
        for before, after in pairwise(widths):
            layers += [nn.Linear(before, after), _BatchNorm(after), nn.LeakyReLU()]
        self.linear_layers = nn.Sequential(*layers)
        heads = max(h for h in range(1, heads + 1) if n_genes % h == 0)
        layer = nn.TransformerDecoderLayer(n_genes, heads, mlp_dim, dropout)
        self.transformer_decoder = nn.TransformerDecoder(layer, depth)
        self.linear_out = nn.Linear(n_genes, n_genes)

    def forward(self, x: Tensor) -> Tensor:
        token = self.linear_layers(x)[None]
        return self.linear_out(self.transformer_decoder(token, token))[0]


def gene_tokens(counts: Tensor) -> Tensor:
    """Counts as tokens 0 … 3, int64 (n, genes + 1), with a closing 0; an unmeasured gene is 0."""
    tokens = counts.nan_to_num().clamp(0, _LARGEST_TOKEN).long()
    return F.pad(tokens, (0, 1))


class GeneEncoder(nn.Module):
    """scBERT's Performer over gene tokens with a convolutional head, for the first stage of training.

    Parameters
    ----------
    n_tokens
        Length of the sequence, at least 7.
    vocabulary
        Number of different tokens.
    dim, depth, heads, dim_head, n_random
        Of the Performer; the last is the number of random features, by default dim_head · ln dim_head.
    n_out
        Width of the embedding.
    """

    def __init__(
        self,
        n_tokens: int,
        *,
        vocabulary: int = 7,
        dim: int = 200,
        depth: int = 6,
        heads: int = 10,
        dim_head: int = 64,
        n_random: int | None = None,
        n_out: int = 512,
    ) -> None:
        super().__init__()
        self.token_emb = nn.Embedding(vocabulary, dim)
        self.pos_emb = nn.ModuleDict({"emb": nn.Embedding(n_tokens, dim)})
        m = n_random or int(dim_head * math.log(dim_head))
        self.performer = _Performer(dim, depth, heads, dim_head, m)
        self.norm = nn.LayerNorm(dim)
        self.to_out = nn.Linear(dim, vocabulary)
        self.output = nn.ModuleDict({"model": _convolutional_head(n_tokens, vocabulary, n_out)})

    def encode(self, tokens: Tensor) -> Tensor:
        """Encoding of each token, float32 (n, tokens, dim)."""
        x = self.token_emb(tokens)
        return self.norm(self.performer(x + self.pos_emb["emb"].weight.to(x)))

    def forward(self, tokens: Tensor) -> Tensor:
        """Embedding, float32 (n, n_out), not negative, of int64 (n, tokens)."""
        return self.output["model"](self.to_out(self.encode(tokens))[:, None])


def _convolutional_head(n_tokens: int, vocabulary: int, n_out: int) -> nn.Sequential:
    width = (n_tokens - 6) * (vocabulary // 2)
    layers: list[nn.Module] = [nn.Conv2d(1, 1, (7, 5), padding=(0, 2)), nn.ReLU(), nn.MaxPool2d((1, 2)), nn.Flatten()]
    for before, after in ((width, 2048), (2048, 1024), (1024, n_out)):
        layers += [nn.Linear(before, after), nn.ReLU(), nn.Dropout(0.5)]
    return nn.Sequential(*layers)


class _Performer(nn.Module):
    def __init__(self, dim: int, depth: int, heads: int, dim_head: int, n_random: int) -> None:
        super().__init__()
        self.register_buffer("calls_since_last_redraw", torch.tensor(0))
        self.net = nn.ModuleDict(
            {
                "layers": nn.ModuleList(
                    nn.ModuleList(
                        (
                            _normed(dim, _RandomFeatureAttention(dim, heads, dim_head, n_random)),
                            _normed(dim, nn.ModuleDict({"fn": _TwoLayers(dim)})),
                        )
                    )
                    for _ in range(depth)
                )
            }
        )

    def forward(self, x: Tensor) -> Tensor:
        for attention, feed_forward in self.net["layers"]:
            x = x + attention["fn"](attention["norm"](x))
            x = x + feed_forward["fn"]["fn"](feed_forward["norm"](x))
        return x


def _normed(dim: int, fn: nn.Module) -> nn.ModuleDict:
    return nn.ModuleDict({"norm": nn.LayerNorm(dim), "fn": fn})


class _TwoLayers(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.w1, self.w2 = nn.Linear(dim, 4 * dim), nn.Linear(4 * dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.w2(F.gelu(self.w1(x)))


class _RandomFeatureAttention(nn.Module):
    """Attention in linear time by positive random features (FAVOR+, Performer)."""

    def __init__(self, dim: int, heads: int, dim_head: int, n_random: int) -> None:
        super().__init__()
        self.heads = heads
        self.fast_attention = nn.Module()
        self.fast_attention.register_buffer("projection_matrix", _orthogonal_features(n_random, dim_head))
        for name in "qkv":
            self.add_module(f"to_{name}", nn.Linear(dim, heads * dim_head, bias=False))
        self.to_out = nn.Linear(heads * dim_head, dim)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (split_heads(part(x), self.heads) for part in (self.to_q, self.to_k, self.to_v))
        q, k = self._features(q, per_row=True), self._features(k, per_row=False)
        below = q @ k.sum(-2)[..., None]
        return self.to_out(join_heads(q @ (k.transpose(-1, -2) @ v) / below))

    def _features(self, x: Tensor, *, per_row: bool) -> Tensor:
        projection = self.fast_attention.projection_matrix
        x = x * x.shape[-1] ** -0.25
        dash = x @ projection.T  # type: ignore[operator]
        largest = dash.amax(-1, keepdim=True) if per_row else dash.amax()
        return len(projection) ** -0.5 * ((dash - x.square().sum(-1, keepdim=True) / 2 - largest).exp() + 1e-4)


def _orthogonal_features(n: int, dim: int) -> Tensor:
    """Random directions, orthogonal within groups of ``dim``, as long as normal vectors: float32 (n, dim)."""
    blocks = [torch.linalg.qr(torch.randn(dim, dim)).Q.T for _ in range(-(-n // dim))]
    return torch.cat(blocks)[:n] * torch.randn(n, dim).norm(dim=1, keepdim=True)

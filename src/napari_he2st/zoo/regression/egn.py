"""EGN: a vision transformer led by training spots that look alike (Yang et al., WACV 2023)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from napari_he2st.core.noise import Noise
from napari_he2st.zoo.base import Batches, Expression, Predictor, Spots
from napari_he2st.zoo.blocks.exemplars import BANK, empty_bank, exemplar_loss, fill_bank, nearest_exemplars
from napari_he2st.zoo.blocks.pixels import standardise
from napari_he2st.zoo.blocks.vit import Attention, FeedForward, PreNorm
from napari_he2st.zoo.encoders.build import spec_of
from napari_he2st.zoo.inputs import Features, Tiles
from napari_he2st.zoo.recipe import Recipe

_GRID = 8
_PIXELS = {"mean": (0.5476, 0.5218, 0.6881), "std": (0.2461, 0.2101, 0.1649)}
_UPDATE_HEADS = 4


class EGN(Predictor):
    """The tile's tokens and its feature take in, every few layers, the expression of similar training spots.

    Parameters
    ----------
    n_genes
        Size of the panel.
    encoder, feature_dim
        Of the feature that exemplars are searched by, and its width (by default the encoder's).
    dim, depth, heads, dim_head, mlp_dim, dropout
        Of the transformer.
    bridge_heads, bridge_dim, every
        Heads and width of each in the layers where exemplars come in, and their spacing.
    projection_depth, linear_projection
        Layers that features pass first; whether expression passes one linear map or two.
    n_exemplars
        Number of exemplars.
    tile_px
        Width of the tile, a multiple of 8.

    Notes
    -----
    ``extras["reference"]`` is the bank. In training, exemplars come from other slides; with one slide alone,
    from its other spots.
    """

    unit = Spots()
    targets = {"expression": Expression("minmax_log10", panel="mean:250")}
    recipe = Recipe("adamw", lr=5e-4, weight_decay=1e-4, epochs=50, batch_size=32, schedule="cosine:50")
    beside = {"reference": BANK}

    def __init__(
        self,
        n_genes: int,
        *,
        encoder: str = "timm:resnet50.tv_in1k",
        feature_dim: int | None = None,
        dim: int = 1024,
        depth: int = 8,
        heads: int = 16,
        dim_head: int = 64,
        mlp_dim: int = 4096,
        dropout: float = 0.0,
        bridge_heads: int = 8,
        bridge_dim: int = 64,
        every: int = 2,
        projection_depth: int = 2,
        linear_projection: bool = True,
        n_exemplars: int = 6,
        tile_px: int = 256,
    ) -> None:
        super().__init__()
        self.inputs = {"tiles": Tiles(px=tile_px), "features": Features(encoder=encoder, px=tile_px)}
        width = feature_dim or spec_of(encoder).dim
        self.n_exemplars, self.patch_px = n_exemplars, tile_px // _GRID
        self.extras["reference"] = empty_bank(n_exemplars, width, n_genes)
        self.pos_embedding = nn.Parameter(torch.randn(1, _GRID**2 + 1, dim))  # the last one plays no part
        self.to_patch_embedding = nn.Sequential(nn.Identity(), nn.Linear(3 * self.patch_px**2, dim))
        layers = [
            nn.ModuleList(
                (
                    PreNorm(dim, Attention(dim, heads=heads, dim_head=dim_head, dropout=dropout)),
                    nn.Identity() if (number + 1) % every else _Bridge(dim, bridge_heads, bridge_dim),
                    PreNorm(dim, FeedForward(dim, mlp_dim, dropout)),
                )
            )
            for number in range(depth)
        ]
        self.transformer = nn.ModuleDict(
            {
                "encoder": _Projector(width, n_genes, dim, projection_depth, linear_projection),
                "layers": nn.ModuleList(layers),
                "pool": nn.ModuleDict({"head": nn.Linear(dim, dim)}),
            }
        )
        self.mlp_head = nn.Sequential(nn.LayerNorm(2 * dim), nn.Linear(2 * dim, n_genes))

    def prepare(self, *, tiles: Tensor, features: Tensor) -> dict[str, Tensor]:
        """Tiles standardised as published, and their features."""
        return {"images": standardise(tiles, _PIXELS), "features": features}

    def feature(self, images: Tensor, features: Tensor, exemplars: Tensor, expression: Tensor) -> Tensor:
        """What the last layer sees, float32 (n, 2 · dim); see :meth:`forward`."""
        px = self.patch_px
        patches = images.unfold(2, px, px).unfold(3, px, px).permute(0, 2, 3, 4, 5, 1).flatten(3).flatten(1, 2)
        position = self.pos_embedding[:, :-1]
        x = self.to_patch_embedding(patches) + position
        q, k, v = self.transformer["encoder"](features, exemplars, expression)
        for attention, bridge, feed_forward in self.transformer["layers"]:
            x = x + attention(x + position)
            if isinstance(bridge, _Bridge):
                x, q, k = bridge(x, q, k, v)
            x = x + feed_forward(x)
        score = self.transformer["pool"]["head"](x)
        pooled = score.mean(1) + 0.5 * (score * (0.1 * score).softmax(1)).sum(1)
        return self.mlp_head[0](torch.cat([pooled, q[:, 0]], dim=1))

    def forward(self, images: Tensor, features: Tensor, exemplars: Tensor, expression: Tensor) -> Tensor:
        """Float32 (n, genes).

        Parameters
        ----------
        images
            Standardised tiles, (n, 3, px, px).
        features
            Of the tiles, (n, 1, width).
        exemplars, expression
            Features (n, exemplars, width) and expression (n, exemplars, genes) of similar training spots.
        """
        return self.mlp_head[1](self.feature(images, features, exemplars, expression))

    def predict(
        self, *, images: Tensor, features: Tensor, slide: Tensor | None = None, noise: Noise | None = None
    ) -> Tensor:
        """Logarithm of counts, 0 … 1 over the training spots, float32 (n, genes)."""
        bank = self.extras["reference"]
        _, rows = nearest_exemplars(features, bank, self.n_exemplars, 2, slide)
        known = (torch.from_numpy(bank[name]).to(images)[rows] for name in ("features", "expression"))
        return self(images, features[:, None], *known)

    def loss(self, targets: Mapping[str, Tensor], **prepared: Tensor) -> Tensor:
        """MSE and correlation, with exemplars of other slides."""
        return exemplar_loss(self.predict(**prepared, slide=targets["slide"]), targets["expression"])

    def fit(self, batches: Batches, recipe: Recipe) -> Iterator[dict[str, float]]:
        """Fill the bank, then train."""
        self.extras["reference"] = fill_bank(batches, "features")
        yield from super().fit(batches, recipe)


class _Projector(nn.Module):
    """Features of query and exemplars, and the exemplars' expression, as tokens."""

    def __init__(self, width: int, n_genes: int, dim: int, depth: int, linear: bool) -> None:
        super().__init__()
        self.layers = nn.ModuleList(PreNorm(dim, FeedForward(dim, dim)) for _ in range(depth))
        self.proq, self.proe = nn.Linear(width, dim), nn.Linear(width + n_genes, dim)
        two = nn.Sequential(nn.Linear(n_genes, dim), nn.GELU(), nn.Linear(dim, dim))
        self.to_v = nn.Linear(n_genes, dim) if linear else two

    def forward(self, features: Tensor, exemplars: Tensor, expression: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q, k = self.proq(features), self.proe(torch.cat([exemplars, expression], dim=-1))
        for layer in self.layers:
            q, k = q + layer(q), k + layer(k)
        return q, k, self.to_v(expression)


class _Bridge(nn.Module):
    """Exemplars update the query, the query gates the tile's tokens, and these update the query in turn."""

    def __init__(self, dim: int, heads: int, dim_head: int) -> None:
        super().__init__()
        self.heads, width, hidden = heads, heads * dim_head, _UPDATE_HEADS * dim_head
        self.update = nn.ModuleDict(
            {
                "query": nn.Sequential(nn.Linear(2 * dim, hidden), nn.SiLU(), nn.Linear(hidden, 2 * dim)),
                "value": nn.Linear(dim, dim),
                "norm": nn.LayerNorm(dim),
            }
        )
        self.to_x = nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, width))
        self.to_k = nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, heads * _GRID**2))
        self.to_v = nn.Sequential(nn.Identity(), nn.Linear(width, dim, bias=False))
        self.to_n = nn.Sequential(nn.Identity(), nn.Linear(width, dim, bias=False))
        self.to_out = nn.Linear(width, dim)  # published, plays no part

    def forward(self, x: Tensor, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        to_query, to_key = self.update["query"](torch.cat([q - k, k], dim=-1)).sigmoid().chunk(2, dim=-1)
        value = self.update["value"](v)
        led = (to_query * value).mean(1, keepdim=True) + q
        k = self.update["norm"](to_key * value + k)
        gate = self.to_k(led).sigmoid().view(len(x), self.heads, -1, 1).transpose(1, 2)
        gated = (self.to_x(x).unflatten(-1, (self.heads, -1)) * gate).flatten(2)
        return x + self.to_v(gated), q + self.to_n(gated.mean(1, keepdim=True)), k

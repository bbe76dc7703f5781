"""TRIPLEX: the tile, its surroundings and the whole slide, fused (Chung et al., CVPR 2024, arXiv 2403.07592)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from torch import Tensor, nn
from torch.nn import functional as F

from napari_he2st.core.noise import Noise
from napari_he2st.zoo.base import Batches, Expression, Predictor, Spots
from napari_he2st.zoo.blocks.losses import nan_mse
from napari_he2st.zoo.blocks.pixels import standardise
from napari_he2st.zoo.blocks.slide_encoder import CrossAttention, Place, SlideEncoder
from napari_he2st.zoo.blocks.start import start_at_mean
from napari_he2st.zoo.blocks.symmetry import random_symmetry
from napari_he2st.zoo.blocks.trunks import torchvision_network
from napari_he2st.zoo.blocks.vit import FeedForward, PreNorm, Transformer
from napari_he2st.zoo.encoders.build import spec_of
from napari_he2st.zoo.inputs import Features, Index, NeighbourFeatures, Positions, Tiles
from napari_he2st.zoo.recipe import Recipe


class TRIPLEX(Predictor):
    """The spot's token among the whole slide asks the tokens of its tile and of its 5 × 5 surroundings.

    Parameters
    ----------
    n_genes
        Size of the panel.
    encoder
        Of surroundings and slide; its features have the width of all tokens.
    trunk
        A torchvision ResNet for the tile.
    fusion_depth, fusion_heads, fusion_mlp_dim, fusion_dropout
        Of the cross-attention; likewise for ``slide`` and ``neighbour``.
    place
        How the slide's tokens know their positions: by a convolution over ``"grid"`` cells (revised code) or
        a ``"dense"`` grid (CVPR code), ``"mlp"``, ``"fourier"`` tokens (the SpatialFormer option), ``"none"``.
    kernel
        Of that convolution.
    packed
        Query, key and value of the slide's attention are stored number by number (revised code), not one
        after the other (CVPR code).
    project
        A linear map of the tile's tokens (revised code).
    clamp
        No prediction is below 0 (revised code).
    tile_px
        Width of the tile.
    faithful
        With ``place="dense"``, hand the slide's tokens back in the order of the grid, which gives a spot the
        token of another unless the spots were so ordered; and start training at 0, not at the mean of the targets,
        where ``clamp`` would keep it. (The published code also leaves a dropout of the
        slide's attention on, and keeps the grid of the first slide for all others; here never.)
    """

    unit = Spots()
    targets = {"expression": Expression("log1p_cp10k_panel", smooth=9, panel="mean:250")}
    recipe = Recipe("adamw", lr=1e-4, epochs=200, batch_size=128)

    def __init__(
        self,
        n_genes: int,
        *,
        encoder: str = "timm:resnet18",
        trunk: str = "resnet18",
        fusion_depth: int = 1,
        fusion_heads: int = 4,
        fusion_mlp_dim: int = 2048,
        fusion_dropout: float = 0.2,
        slide_depth: int = 3,
        slide_heads: int = 16,
        slide_mlp_dim: int = 2048,
        slide_dropout: float = 0.1,
        neighbour_depth: int = 3,
        neighbour_heads: int = 16,
        neighbour_mlp_dim: int = 512,
        neighbour_dropout: float = 0.3,
        place: Place = "grid",
        kernel: int = 3,
        packed: bool = True,
        project: bool = True,
        clamp: bool = True,
        tile_px: int = 224,
        faithful: bool = False,
    ) -> None:
        super().__init__()
        self.inputs = {
            "tiles": Tiles(px=tile_px),
            "neighbours": NeighbourFeatures(encoder=encoder, px=tile_px),
            "slide_features": Features(per="slide", encoder=encoder, px=tile_px),
            "slide_xy": Positions(per="slide", kind="grid" if place == "dense" else "um"),
            "index": Index(),
        }
        self.clamp, self.faithful = clamp, faithful
        dim, network = spec_of(encoder).dim, torchvision_network(trunk, 1)
        width = network.fc.in_features
        self.target_encoder = nn.Sequential(*list(network.children())[:-2])
        self.fc_target = nn.Linear(dim if project else width, n_genes)
        if project:
            self.target_linear = nn.Linear(width, dim)
        around = Transformer(
            dim,
            depth=neighbour_depth,
            heads=neighbour_heads,
            dim_head=dim // neighbour_heads,
            mlp_dim=neighbour_mlp_dim,
            dropout=neighbour_dropout,
            grid=5,
        )
        self.neighbor_encoder = nn.ModuleDict({"layer": around, "norm": nn.LayerNorm(dim)})
        self.fc_neighbor = nn.Linear(dim, n_genes)
        self.global_encoder = SlideEncoder(
            dim,
            depth=slide_depth,
            heads=slide_heads,
            mlp_dim=slide_mlp_dim,
            dropout=slide_dropout,
            kernel=kernel,
            place=place,
            packed=packed,
            faithful=faithful,
        )
        self.fc_global = nn.Linear(dim, n_genes)
        self.fusion_encoder = _Fusion(dim, fusion_depth, fusion_heads, fusion_mlp_dim, fusion_dropout)
        self.fc = nn.Linear(dim, n_genes)

    def prepare(
        self,
        *,
        tiles: Tensor,
        neighbours: tuple[Tensor, Tensor],
        slide_features: Tensor,
        slide_xy: Tensor,
        index: Tensor,
    ) -> dict[str, Tensor]:
        """Standardised tiles; everything else as it is."""
        return {
            "images": standardise(tiles),
            "mask": neighbours[1],
            "neighbours": neighbours[0],
            "positions": slide_xy,
            "slide": slide_features,
            "index": index,
        }

    def tokens(
        self, images: Tensor, mask: Tensor, neighbours: Tensor, positions: Tensor, slide: Tensor, index: Tensor
    ) -> dict[str, Tensor]:
        """Tokens of tile (n, 49, dim), surroundings (n, 25, dim), slide and fusion (n, dim); see :meth:`forward`."""
        target = self.target_encoder(images).flatten(2).transpose(1, 2)
        if hasattr(self, "target_linear"):
            target = self.target_linear(target)
        around = self.neighbor_encoder["norm"](self.neighbor_encoder["layer"](neighbours, mask=mask))
        token = self.global_encoder(slide[None], positions[None])[0][index]
        fused = self.fusion_encoder(token, target, around, mask)
        return {"target": target, "neighbour": around, "slide": token, "fusion": fused}

    def forward(
        self, images: Tensor, mask: Tensor, neighbours: Tensor, positions: Tensor, slide: Tensor, index: Tensor
    ) -> dict[str, Tensor]:
        """Predictions of the fusion and of its three parts, float32 (n, genes) each.

        Parameters
        ----------
        images
            Standardised tiles, (n, 3, px, px).
        mask
            Which of the surroundings exist, (n, 25).
        neighbours
            Features of the surroundings, row by row, (n, 25, dim).
        positions, slide
            Of all spots of the slide: (spots, 2) and features (spots, dim).
        index
            Rows of the batch among them, int64 (n,).
        """
        tokens = self.tokens(images, mask, neighbours, positions, slide, index)
        out = {
            "fusion": self.fc(tokens["fusion"]),
            "target": self.fc_target(tokens["target"].mean(1)),
            "neighbour": self.fc_neighbor(tokens["neighbour"].mean(1)),
            "slide": self.fc_global(tokens["slide"]),
        }
        return {name: value.clamp(min=0) for name, value in out.items()} if self.clamp else out

    def loss(self, targets: Mapping[str, Tensor], *, images: Tensor, **rest: Tensor) -> Tensor:
        """MSE of the fusion; of each part 0.7 MSE to the target and 0.3 to the fusion."""
        return fusion_loss(self(random_symmetry(images), **rest), targets["expression"])

    def fit(self, batches: Batches, recipe: Recipe) -> Iterator[dict[str, float]]:
        """Start the four heads at the mean of the targets, unless ``faithful``, then train."""
        if not self.faithful:
            start_at_mean(batches, self.fc, self.fc_target, self.fc_neighbor, self.fc_global)
        yield from super().fit(batches, recipe)

    def predict(self, *, noise: Noise | None = None, **prepared: Tensor) -> Tensor:
        """Smoothed logarithm of 1 + CP10k of the panel, float32 (n, genes)."""
        return self(**prepared)["fusion"]


def fusion_loss(out: Mapping[str, Tensor], target: Tensor, share: float = 0.3) -> Tensor:
    """MSE of the fusion plus, of each part, that to the target and, by ``share``, to the fusion."""
    parts = [out[name] for name in ("target", "neighbour", "slide")]
    return nan_mse(out["fusion"], target) + sum(
        (1 - share) * nan_mse(part, target) + share * F.mse_loss(out["fusion"], part) for part in parts
    )


class _CrossPreNorm(PreNorm):
    """Queries and tokens normalised alike."""

    def forward(self, x: Tensor, **options: Tensor | None) -> Tensor:
        return self.fn(self.norm(x), self.norm(options["tokens"]), options["mask"])


class _Fusion(nn.Module):
    """The slide's token asks the tile and the surroundings with the same layers; sum of both."""

    def __init__(self, dim: int, depth: int, heads: int, mlp_dim: int, dropout: float) -> None:
        super().__init__()
        layers = (
            nn.ModuleList(
                (
                    _CrossPreNorm(dim, CrossAttention(dim, heads, dropout)),
                    PreNorm(dim, FeedForward(dim, mlp_dim, dropout)),
                )
            )
            for _ in range(depth)
        )
        self.fusion_layer = nn.ModuleDict({"layers": nn.ModuleList(layers)})
        self.norm = nn.LayerNorm(dim)

    def forward(self, token: Tensor, target: Tensor, around: Tensor, mask: Tensor) -> Tensor:
        asked = self._ask(token[:, None], target, None) + self._ask(token[:, None], around, mask)
        return self.norm(asked)[:, 0]

    def _ask(self, x: Tensor, tokens: Tensor, mask: Tensor | None) -> Tensor:
        for attention, feed_forward in self.fusion_layer["layers"]:
            x = x + attention(x, tokens=tokens, mask=mask)
            x = x + feed_forward(x)
        return x

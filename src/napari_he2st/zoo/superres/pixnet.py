"""PixNet: a dense expression map, summed within discs of any size (CVPR 2026, arXiv 2503.01347).

Built from the description in the publication, for its code is not public.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from napari_he2st.core.noise import Noise
from napari_he2st.zoo.base import Batches, Expression, Label, Output, Predictor, Regions
from napari_he2st.zoo.blocks.losses import nan_mse, spot_pcc_loss
from napari_he2st.zoo.blocks.rasters import owner_sum
from napari_he2st.zoo.blocks.start import start_at_mean
from napari_he2st.zoo.blocks.vit import join_heads, split_heads
from napari_he2st.zoo.encoders.build import Encoder, published_network, spec_of
from napari_he2st.zoo.inputs import RegionImage
from napari_he2st.zoo.recipe import Recipe

_PCC_WEIGHT = 0.5
_TILES = 8


class PixNet(Predictor):
    """Maps of a frozen encoder at several depths, brought together from coarse to fine.

    Parameters
    ----------
    n_genes
        Size of the panel.
    encoder
        A timm network among the encoders, see :mod:`napari_he2st.zoo.encoders`.
    taps, feature_dims
        Its layers that are read, from early to late, and their widths.
    dims
        Widths of the decoder at the same levels, each half as fine as the one before.
    n_expanded
        Of the coarsest levels, how many become finer by turning channels into cells.
    heads, window
        Of the attention that fuses encoder and decoder, and the cells on a side that see each other.
    bins
        Cells on a side of a region.
    tile_px, mpp, overlap
        Width of a region, its pixel size, and the pixels it shares with the next.

    Notes
    -----
    Not stated in what is known of the publication, and chosen here: which layers are read, how a transformer's
    maps, all of one size, become a pyramid (they are resized), heads and windows of the attention, the size of
    regions, that the encoder stays as it is, and that the head's output is divided by the cells of a disc.
    """

    share: Tensor
    targets: Mapping[str, Expression | Label] = {"expression": Expression("log1p_cp10k", panel="mean:250")}
    recipe = Recipe("adamw", lr=5e-4, weight_decay=1e-4, epochs=200, batch_size=16)

    def __init__(
        self,
        n_genes: int,
        *,
        encoder: str = "uni2-h",
        taps: Sequence[int] = (3, 7, 11, 15, 19, 23),
        feature_dims: Sequence[int] = (1536, 1536, 1536, 1536, 1536, 1536),
        dims: Sequence[int] = (64, 128, 256, 512, 512, 512),
        n_expanded: int = 3,
        heads: int = 8,
        window: int = 16,
        bins: int = 64,
        tile_px: int = 256,
        mpp: float = 1.0,
        overlap: int = 128,
    ) -> None:
        super().__init__()
        self.unit = Regions(px=tile_px, mpp=mpp, overlap=overlap, bins=bins)
        self.inputs = {"image": RegionImage()}
        self.outputs = {"expression": Output(per="pixel", pitch_um=self.unit.pitch_um, pool="sum")}
        self.encoder, self.taps, self.bins = encoder, tuple(taps), bins
        self.entry = nn.ModuleList(nn.Conv2d(a, b, 1) for a, b in zip(feature_dims, dims, strict=True))
        last = len(dims) - 1
        self.up = nn.ModuleList(
            (_Expanded if level >= last - n_expanded else _Smooth)(dims[level + 1], dims[level])
            for level in range(last)
        )
        self.fuse = nn.ModuleList(_Fusion(dim, heads, window) for dim in dims[:-1])
        self.head = nn.Conv2d(dims[0], n_genes, 1)
        self.register_buffer("share", torch.ones(()))

    def prepare(self, *, image: Tensor) -> dict[str, Tensor]:
        """Maps of the encoder, one after the other: ``map0`` is the earliest."""
        encoder = _tapped(self.encoder, image.device)
        images = encoder.normalise(image)
        with torch.inference_mode():
            parts = [
                encoder.network.forward_intermediates(some, indices=list(self.taps), intermediates_only=True)
                for some in images.split(_TILES)
            ]
        return {f"map{i}": torch.cat(maps).clone() for i, maps in enumerate(zip(*parts, strict=True))}

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Expression (n, genes, bins, bins) from the encoder's maps, each (n, dim, rows, columns)."""
        levels = [
            F.interpolate(entry(each), (self.bins >> i, self.bins >> i), mode="bilinear", align_corners=False)
            for i, (entry, each) in enumerate(zip(self.entry, maps, strict=True))
        ]
        x = levels[-1]
        for level in reversed(range(len(self.up))):
            x = self.fuse[level](self.up[level](x), levels[level])
        return self.head(x) * self.share

    def predict(self, *, noise: Noise | None = None, **maps: Tensor) -> Tensor:
        """Each cell's part of ln (1 + CP10k) of the disc that it lies in, float32 (n, bins², genes)."""
        return self([maps[f"map{i}"] for i in range(len(self.taps))]).flatten(2).transpose(1, 2)

    def loss(self, targets: Mapping[str, Tensor], **maps: Tensor) -> Tensor:
        """MSE of the sums over discs, and half of 1 − correlation across genes."""
        expression = targets["expression"]
        cells = self.predict(**maps).flatten(0, 1)
        spots = owner_sum(cells, targets["owner"].flatten(), len(expression))
        return nan_mse(spots, expression) + _PCC_WEIGHT * spot_pcc_loss(spots, expression)

    def fit(self, batches: Batches, recipe: Recipe) -> Iterator[dict[str, float]]:
        """Train, from each cell's share of the mean disc on.

        Without this factor the sum over a disc moves in each step as many times too far as it has cells.
        """
        start_at_mean(batches, self.head)
        cells = sum(int((targets["owner"] >= 0).sum()) for targets, _ in batches)
        self.share.fill_(sum(len(targets["expression"]) for targets, _ in batches) / max(cells, 1))
        yield from super().fit(batches, recipe)


class _Expanded(nn.Module):
    """Channels become cells: twice as fine."""

    def __init__(self, n_in: int, n_out: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(n_in, 4 * n_out, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return F.pixel_shuffle(self.conv(x), 2)


class _Smooth(nn.Module):
    """A convolution before and after interpolation: twice as fine."""

    def __init__(self, n_in: int, n_out: int) -> None:
        super().__init__()
        self.before, self.after = _block(n_in, n_out), _block(n_out, n_out)

    def forward(self, x: Tensor) -> Tensor:
        return self.after(F.interpolate(self.before(x), scale_factor=2, mode="bilinear", align_corners=False))


class _Fusion(nn.Module):
    """Self-attention over decoder and refined encoder maps."""

    def __init__(self, dim: int, heads: int, window: int) -> None:
        super().__init__()
        self.heads, self.window = heads, window
        self.depthwise = nn.Conv2d(dim, dim, 3, padding=1, groups=dim)
        self.layer_norm, self.batch_norm = nn.GroupNorm(1, dim), nn.BatchNorm2d(dim)
        self.qkv = nn.Conv2d(2 * dim, 3 * dim, 1)

    def forward(self, decoded: Tensor, skip: Tensor) -> Tensor:
        skip = skip + self.batch_norm(self.layer_norm(F.silu(self.depthwise(skip))))
        x = self.qkv(torch.cat([decoded, skip], dim=1))
        side = min(self.window, x.shape[-1])
        rows = x.shape[-2] // side
        windows = x.unflatten(3, (-1, side)).unflatten(2, (rows, side)).permute(0, 2, 4, 3, 5, 1)
        q, k, v = (split_heads(part, self.heads) for part in windows.flatten(3, 4).chunk(3, dim=-1))
        seen = join_heads(F.scaled_dot_product_attention(q, k, v)).unflatten(3, (side, side))
        return decoded + seen.permute(0, 5, 1, 3, 2, 4).flatten(4, 5).flatten(2, 3)


def _block(n_in: int, n_out: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(n_in, n_out, 3, padding=1), nn.BatchNorm2d(n_out), nn.SiLU())


@lru_cache(maxsize=1)
def _tapped(name: str, device: torch.device) -> Encoder:
    """A timm network with its preprocessing, whose layers can be read."""
    spec = spec_of(name)
    return Encoder(spec, published_network(spec)).to(device).eval().requires_grad_(False)

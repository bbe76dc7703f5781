"""HEMIT's dual-branch generator: multiplex stains of DAPI, CD3 and panCK from H&E (arXiv 2403.18501)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from napari_he2st.core.noise import Noise
from napari_he2st.zoo.base import Batches, Expression, Label, Output, Predictor, Regions
from napari_he2st.zoo.blocks.swin import Swin
from napari_he2st.zoo.inputs import RegionImage
from napari_he2st.zoo.recipe import Recipe, descend, make_optimizer, make_schedule

_L1_WEIGHT = 30.0
_LEVELS = 3


class Hemit(Predictor):
    """A residual network and a Swin transformer, whose maps meet in gated cross-attention at three sizes.

    Parameters
    ----------
    n_genes
        Stains: DAPI, CD3 and panCK as published.
    width
        Of the residual network's first layer; it doubles at each of three sizes.
    n_blocks
        Residual blocks at the smallest size.
    swin_dim, swin_depths, swin_heads, patch_px
        Of the transformer.
    attended
        Positions of a map that cross-attention replaces.
    bins
        Cells on a side of a region over which the stains are averaged; ``tile_px`` keeps every pixel.
    tile_px, mpp, overlap
        Width of a region, its pixel size, and the pixels it shares with the next.

    Notes
    -----
    In the original the positions that a batch attends to are those of all its images together, so that it needs
    batches of one; here each image has its own.
    """

    targets: Mapping[str, Expression | Label] = {"expression": Expression("intensity", per="pixel", panel="all")}
    recipe = Recipe("adam", lr=3e-5, epochs=80, batch_size=2, schedule="step:50:0.1")

    def __init__(
        self,
        n_genes: int = 3,
        *,
        width: int = 64,
        n_blocks: int = 6,
        swin_dim: int = 96,
        swin_depths: Sequence[int] = (2, 2, 6, 2),
        swin_heads: Sequence[int] = (3, 6, 12, 24),
        patch_px: int = 32,
        attended: int = 1000,
        bins: int = 128,
        tile_px: int = 1024,
        mpp: float = 0.25,
        overlap: int = 128,
    ) -> None:
        super().__init__()
        self.unit = Regions(px=tile_px, mpp=mpp, overlap=overlap, bins=bins)
        self.inputs = {"image": RegionImage()}
        self.outputs = {"expression": Output(per="pixel", pitch_um=self.unit.pitch_um)}
        self.bins, widths = bins, [width << i for i in range(_LEVELS + 1)]
        self.initial_layers = nn.Sequential(
            nn.ReflectionPad2d(3), nn.Conv2d(3, width, 7, bias=False), nn.BatchNorm2d(width), nn.ReLU()
        )
        self.downsampling_layers = nn.ModuleList(
            nn.Sequential(nn.Conv2d(a, b, 3, 2, 1, bias=False), nn.BatchNorm2d(b), nn.ReLU())
            for a, b in pairwise(widths)
        )
        self.resnet_blocks = nn.ModuleList(_Residual(widths[-1]) for _ in range(n_blocks))
        self.swinT = Swin(tile_px, patch_px, swin_dim, swin_depths, swin_heads)
        times = patch_px.bit_length() - 1  # a transformer's map is so many halvings smaller than the network's
        self.cross_atts = nn.ModuleList(
            GatedCrossAttention(swin_dim << (i + 1), widths[i + 1], times, attended) for i in range(_LEVELS)
        )
        self.patch_projector = nn.Conv2d(3, swin_dim, 1)  # never used, but in the published state
        self.upsampling_layers = nn.ModuleList(
            nn.Sequential(
                nn.ConvTranspose2d(2 * widths[i], widths[i - 1], 3, 2, 1, output_padding=1, bias=False),
                nn.BatchNorm2d(widths[i - 1]),
                nn.ReLU(),
            )
            for i in range(_LEVELS, 0, -1)
        )
        self.final_layers = nn.Sequential(nn.ReflectionPad2d(3), nn.Conv2d(width, n_genes, 7), nn.Tanh())

    def prepare(self, *, image: Tensor) -> dict[str, Tensor]:
        """Pixels from −1 to 1."""
        return {"images": image.float() / 127.5 - 1}

    def forward(self, images: Tensor) -> Tensor:
        """Stains, −1 … 1, (n, stains, px, px), of images (n, 3, px, px)."""
        x, sizes = self.initial_layers(images), []
        for layer in self.downsampling_layers:
            x = layer(x)
            sizes.append(x)
        for block in self.resnet_blocks:
            x = block(x)
        swin = self.swinT(images)
        for i, layer in enumerate(self.upsampling_layers):
            level = _LEVELS - 1 - i
            x = layer(torch.cat([x, self.cross_atts[level](sizes[level], swin[level])], dim=1))
        return self.final_layers(x)

    def predict(self, *, images: Tensor, noise: Noise | None = None) -> Tensor:
        """Brightness of the stains, 0 … 1, float32 (n, bins², stains)."""
        return self._in_bins(self(images)).flatten(2).transpose(1, 2)

    def _in_bins(self, stains: Tensor) -> Tensor:
        return F.adaptive_avg_pool2d((stains + 1) / 2, self.bins)

    def fit(self, batches: Batches, recipe: Recipe) -> Iterator[dict[str, float]]:
        """L1 and least-squares adversarial training, against a discriminator that lives as long as this."""
        n_stains, device = self.final_layers[1].out_channels, self.patch_projector.weight.device
        judge = Discriminator(3 + n_stains).to(device)
        make = make_optimizer(self, recipe), make_optimizer(judge, recipe)
        for optimizer in make:
            for group in optimizer.param_groups:
                if "betas" in group:
                    group["betas"] = (0.5, 0.999)
        schedules = [make_schedule(optimizer, recipe) for optimizer in make]
        for epoch in range(recipe.epochs):
            self.train()
            totals = [0.0, 0.0]
            for targets, prepared in batches:
                images, made = prepared["images"], self._in_bins(self(prepared["images"]))
                real = targets["expression"].transpose(1, 2).reshape(made.shape)
                known = real.isfinite()
                real = torch.where(known, real, made.detach())
                seen = [_beside(images, stains) for stains in (made.detach(), real)]
                wrong, right = (judge(pair) for pair in seen)
                descend(make[1], (wrong.square().mean() + (right - 1).square().mean()) / 2, recipe)
                l1 = (made - real).abs()[known].mean()
                adversarial = (judge(_beside(images, made)) - 1).square().mean()
                descend(make[0], adversarial + _L1_WEIGHT * l1, recipe)
                totals = [totals[0] + float(l1.detach()), totals[1] + float(adversarial.detach())]
            for schedule in schedules:
                schedule.step()
            n = max(len(batches), 1)
            yield {"epoch": epoch, "loss": totals[0] / n, "adversarial": totals[1] / n}


class _Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        layers = [nn.ReflectionPad2d(1), nn.Conv2d(width, width, 3, bias=False), nn.BatchNorm2d(width)]
        again = [nn.ReflectionPad2d(1), nn.Conv2d(width, width, 3, bias=False), nn.BatchNorm2d(width)]
        self.conv_block = nn.Sequential(*layers, nn.ReLU(), *again)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv_block(x)


class GatedCrossAttention(nn.Module):
    """The positions of a map that a gate ranks highest, replaced by what they attend to in another map.

    Parameters
    ----------
    dim_in, dim
        Width of the other map and of this one.
    n_doublings
        How many times the other map has to be doubled to be as large.
    attended
        Positions that are replaced.
    heads
        Of the attention.
    """

    def __init__(self, dim_in: int, dim: int, n_doublings: int, attended: int, heads: int = 8) -> None:
        super().__init__()
        self.attended = attended
        self.swinT_transform = nn.Conv2d(dim_in, dim, 1)
        self.attention = nn.MultiheadAttention(dim, heads, batch_first=True)
        self.gate = nn.Sequential(nn.Conv2d(dim, 1, 1), nn.Sigmoid())
        self.upsample_blocks = nn.ModuleList(
            nn.Sequential(nn.ConvTranspose2d(dim, dim, 4, 2, 1), nn.ReLU(), nn.Conv2d(dim, dim, 3, padding=1))
            for _ in range(n_doublings)
        )

    def forward(self, here: Tensor, there: Tensor) -> Tensor:
        """The map ``here`` (n, dim, rows, columns), attended positions replaced; ``there`` is (n, dim_in, …)."""
        there = self.swinT_transform(there)
        for block in self.upsample_blocks:
            there = block(there)
        gate = self.gate(here).flatten(1)
        places = gate.topk(min(self.attended, gate.shape[1]), dim=1).indices[..., None].expand(-1, -1, here.shape[1])
        own, other = (x.flatten(2).transpose(1, 2) for x in (here, there))
        keys = other.gather(1, places)
        attended, _ = self.attention(own.gather(1, places), keys, keys, need_weights=False)
        return own.scatter(1, places, attended).transpose(1, 2).view(here.shape)


class Discriminator(nn.Module):
    """PatchGAN: which parts of an image pair look real.

    Parameters
    ----------
    n_in
        Channels of the image and its stains together.
    width, depth
        Of the first layer, and how many layers halve the image.
    """

    def __init__(self, n_in: int, width: int = 64, depth: int = 3) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(n_in, width, 4, 2, 1), nn.LeakyReLU(0.2)]
        for i in range(1, depth + 1):
            a, b = (width * min(2**n, 8) for n in (i - 1, i))
            stride = 2 if i < depth else 1
            layers += [nn.Conv2d(a, b, 4, stride, 1, bias=False), nn.BatchNorm2d(b), nn.LeakyReLU(0.2)]
        self.model = nn.Sequential(*layers, nn.Conv2d(b, 1, 4, 1, 1))

    def forward(self, pair: Tensor) -> Tensor:
        """Scores (n, 1, rows, columns) of image and stains (n, channels, px, px)."""
        return self.model(pair)


def _beside(images: Tensor, stains: Tensor) -> Tensor:
    """Image and stains, 0 … 1, as the discriminator sees them."""
    return torch.cat([images, 2 * F.interpolate(stains, images.shape[-2:]) - 1], dim=1)

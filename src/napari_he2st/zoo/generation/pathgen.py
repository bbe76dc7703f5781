"""PathGen: expression of groups of genes from a bag of tiles, by diffusion (Nature Communications 2025)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn

from napari_he2st.core.errors import ModelError
from napari_he2st.core.noise import Noise
from napari_he2st.zoo.base import Batches, Expression, Predictor, Spots
from napari_he2st.zoo.blocks.diffusion import Schedule, ancestral, numbers, spaced_steps
from napari_he2st.zoo.blocks.draws import normal
from napari_he2st.zoo.inputs import NeighbourFeatures
from napari_he2st.zoo.recipe import Recipe

GROUPS = (144, 521, 668, 680, 2365, 989)
"""Published: tumour suppressors, oncogenes, kinases, differentiation markers, transcription factors, cytokines."""
_WIDTHS = {"big": ((2048, 4096, 4096), (4096, 4096, 2048)), "small": ((1024,), (1024,))}
_FF_DIM = 2048
_BOUNDS = (-3.0, 6.0)
"""Standard deviations from the mean that expression lies within."""


class PathGen(Predictor):
    """A token per group of genes, made from noisy expression and time, gathers from the tiles what noise there is.

    Parameters
    ----------
    n_genes, group_sizes
        Size of the panel, and of the groups that are its consecutive parts; by default six equal ones, or the
        published ones for their 5,367 genes.
    encoder, dim
        See :class:`~napari_he2st.zoo.inputs.NeighbourFeatures`, and the size of its features, which is that of a token.
    time_dim, max_time, n_steps
        Size and longest period of the code of a step, and number of steps.
    widths
        ``"big"`` or ``"small"`` networks between genes and tokens.
    heads, dropout
        Of attention; of everything.
    bag, tile_px, mpp
        Tiles to each side of the square that stands for a slide, their width and pixel size.
    faithful
        Learn and sample as published: features as they are, genes from 0 to 1, where nearly all steps are noise alone;
        the state is cut off at 0 twice in each step, and its noise has the variance in place of the standard deviation
        as its factor. By default features and genes are standardised over the training spots, and samples are drawn
        as the model of diffusion wants it.

    Notes
    -----
    Published for whole slides and their bulk expression: a bag is then all tiles of a slide, which Python takes as it
    is (:meth:`forward`, :meth:`sample`). The engine gives it spots, whose bag is the tiles around each.
    """

    unit = Spots()
    targets = {"expression": Expression("z_log1p_cp10k", panel="hvg:1000")}
    recipe = Recipe("adam", lr=1e-4, epochs=70, batch_size=8)
    draws = 3

    def __init__(
        self,
        n_genes: int,
        *,
        group_sizes: Sequence[int] | None = None,
        encoder: str = "uni",
        dim: int = 1024,
        time_dim: int = 128,
        max_time: int = 1000,
        n_steps: int = 1000,
        widths: Literal["big", "small"] = "big",
        heads: int = 8,
        dropout: float = 0.25,
        bag: int = 3,
        tile_px: int = 224,
        mpp: float | None = None,
        faithful: bool = False,
    ) -> None:
        super().__init__()
        self.inputs = {"around": NeighbourFeatures(encoder=encoder, px=tile_px, mpp=mpp, size=bag)}
        if faithful:
            self.targets = {"expression": Expression("minmax_log10_cp10k", panel="hvg:1000")}
        self.group_sizes = _groups(n_genes, group_sizes)
        self.schedule = Schedule.linear(n_steps)
        self.time_dim, self.max_time, self.faithful = time_dim, max_time, faithful
        self.time_mlp = nn.Sequential(nn.Linear(time_dim, 4 * time_dim), nn.Mish(), nn.Linear(4 * time_dim, dim))
        into, out_of = _WIDTHS[widths]
        self.gen_encoders = nn.ModuleList(_chain((n, *into, dim), dropout) for n in self.group_sizes)
        self.g_coattn_t = nn.MultiheadAttention(dim, 1)
        self.p_coattn_g = nn.MultiheadAttention(dim, heads)
        self.encoder1 = nn.TransformerEncoderLayer(dim, heads, _FF_DIM, dropout)
        self.g_coattn_p = nn.MultiheadAttention(dim, heads)
        self.encoder2 = nn.TransformerEncoderLayer(dim, heads, _FF_DIM, dropout)
        self.g_coattn_p2 = nn.MultiheadAttention(dim, heads)
        self.encoder3 = nn.TransformerEncoderLayer(dim, heads, _FF_DIM, dropout)
        self.gen_decoders = nn.ModuleList(
            _chain((dim, *out_of), dropout).append(nn.Linear(out_of[-1], n)) for n in self.group_sizes
        )

    def prepare(self, *, around: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
        """Tiles first, as the network wants them, and which of them there are not."""
        features, exists = around
        if "features" in self.extras:
            mean, std = (torch.as_tensor(self.extras["features"][name]).to(features) for name in ("mean", "std"))
            features = (features - mean) / std
        return {"patches": features.transpose(0, 1), "absent": ~exists}

    def fit(self, batches: Batches, recipe: Recipe) -> Iterator[dict[str, float]]:
        """Find what features are standardised by, then train."""
        if not self.faithful:
            there = torch.cat([prepared["patches"].transpose(0, 1)[~prepared["absent"]] for _, prepared in batches])
            std = there.std(0, correction=0)
            std = torch.where(std > 0, std, torch.ones_like(std))
            self.extras["features"] = {"mean": there.mean(0).cpu().numpy(), "std": std.cpu().numpy()}
        yield from super().fit(batches, recipe)

    def forward(self, patches: Tensor, genes: Tensor, time: Tensor, absent: Tensor | None = None) -> Tensor:
        """Noise in ``genes``, float32 (bags, genes).

        Parameters
        ----------
        patches
            Features of the tiles of each bag, (tiles, bags, dim).
        genes
            Noisy expression, the groups side by side, (bags, genes).
        time
            Number of the step, int64 (bags,).
        absent
            Bool (bags, tiles): tiles that do not count; each bag needs one that does.
        """
        parts = zip(self.gen_encoders, genes.split(self.group_sizes, dim=1), strict=True)
        omics = torch.stack([encode(part) for encode, part in parts])
        clock = self.time_mlp(self.time_code(time)).expand_as(omics)
        tokens = self.g_coattn_t(clock, omics, omics)[0]
        looks = (self.p_coattn_g, self.g_coattn_p, self.g_coattn_p2)
        for look, encoder in zip(looks, (self.encoder1, self.encoder2, self.encoder3), strict=True):
            tokens = encoder(look(tokens, patches, patches, key_padding_mask=absent)[0])
        tokens = tokens + omics
        return torch.cat([decode(token) for decode, token in zip(self.gen_decoders, tokens, strict=True)], dim=1)

    def time_code(self, time: Tensor) -> Tensor:
        """Sines, then cosines, of steps (n,): float32 (n, time_dim)."""
        half = self.time_dim // 2
        rates = torch.exp(-math.log(self.max_time) * torch.arange(half, device=time.device) / (half - 1))
        angles = time[:, None].float() * rates
        return torch.cat([angles.sin(), angles.cos()], dim=1)

    def noise_loss(self, predicted: Tensor, noise: Tensor, known: Tensor) -> Tensor:
        """Mean over groups of the mean of absolute and squared error of the noise, over known genes."""
        difference = torch.where(known, predicted - noise, torch.zeros_like(noise))
        both = (difference.abs() + difference.square()) / 2
        pairs = zip(both.split(self.group_sizes, dim=1), known.split(self.group_sizes, dim=1), strict=True)
        return torch.stack([part.sum() / here.sum().clamp(min=1) for part, here in pairs]).mean()

    def loss(self, targets: Mapping[str, Tensor], *, patches: Tensor, absent: Tensor) -> Tensor:
        """Error of the noise at a random step."""
        clean = targets["expression"]
        step = torch.randint(len(self.schedule), (len(clean),), device=clean.device)
        noise = torch.randn_like(clean)
        x = self.schedule.noised(clean.nan_to_num(), step, noise)
        predicted = self(patches, x, numbers(self.schedule, step), absent)
        return self.noise_loss(predicted, noise, clean.isfinite())

    def sample(self, patches: Tensor, drawn: Tensor, schedule: Schedule, absent: Tensor | None = None) -> Tensor:
        """Clean expression, (bags, genes).

        Parameters
        ----------
        patches, absent
            As in :meth:`forward`.
        drawn
            Noise to begin with and that of the steps, (steps, bags, genes).
        schedule
            Steps to go through.
        """

        def moments(x: Tensor, step: Tensor) -> tuple[Tensor, Tensor]:
            clean = schedule.clean(x, step, self(patches, x, numbers(schedule, step), absent))
            variance = schedule.at(schedule.variance, step, x)
            if self.faithful:
                return schedule.posterior_mean(clean, x, step).clamp(min=0), variance
            return schedule.posterior_mean(clean.clamp(*_BOUNDS), x, step), variance.sqrt()

        def positive(x: Tensor) -> Tensor:
            return x.clamp(min=0) if self.faithful else x

        return ancestral(schedule, moments, drawn[0], drawn[1:], positive)

    def predict(self, *, patches: Tensor, absent: Tensor, noise: Noise | None = None, steps: int = 25) -> Tensor:
        """One draw of the expression in the scale of the target, float32 (n, genes), in ``steps`` steps."""
        schedule = self.schedule.respaced(spaced_steps(len(self.schedule), steps))
        drawn = normal(noise, absent, steps, sum(self.group_sizes)).transpose(0, 1)
        return self.sample(patches, drawn, schedule, absent)


def _groups(n_genes: int, sizes: Sequence[int] | None) -> list[int]:
    if sizes is None:
        if n_genes == sum(GROUPS):
            return list(GROUPS)
        n_groups = min(len(GROUPS), n_genes)
        return [n_genes // n_groups + (i < n_genes % n_groups) for i in range(n_groups)]
    if sum(sizes) != n_genes:
        raise ModelError(f"The groups hold {sum(sizes)} genes, the panel {n_genes}", where="group_sizes")
    return list(sizes)


def _chain(widths: Sequence[int], dropout: float) -> nn.Sequential:
    """Linear layers, each with Mish and alpha dropout."""
    return nn.Sequential(
        *(nn.Sequential(nn.Linear(a, b), nn.Mish(), nn.AlphaDropout(dropout)) for a, b in pairwise(widths))
    )

"""HaDM-ST: finer expression maps from H&E and a coarse map, built from its abstract (arXiv 2508.07225, 2025)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from napari_he2st.core.noise import Noise
from napari_he2st.zoo import inputs as kinds
from napari_he2st.zoo.base import Batches, Expression, Predictor, Slide
from napari_he2st.zoo.blocks.adaln import TimeEmbedding
from napari_he2st.zoo.blocks.diffusion import Schedule, ddim, numbers, spaced_steps
from napari_he2st.zoo.blocks.draws import normal
from napari_he2st.zoo.blocks.losses import nan_mse
from napari_he2st.zoo.recipe import Recipe, descend, make_optimizer

_BLIND_SHARE = 0.1
_BOUNDS = (0.0, math.log1p(1e4))
_SLOPE = 0.2
_GROUPS = 4


@dataclass(frozen=True)
class Raster:
    """Spots laid out on their array positions.

    Attributes
    ----------
    column, row
        Of each spot, int64 (n,).
    shape
        Rows and columns, even, so that the network can halve them.
    """

    column: Tensor
    row: Tensor
    shape: tuple[int, int]

    def lay(self, values: Tensor) -> Tensor:
        """(n, channels) as a map (1, channels, rows, columns), 0 where there is no spot."""
        out = values.new_zeros(values.shape[1], *self.shape)
        out[:, self.row, self.column] = values.T
        return out[None]

    def read(self, maps: Tensor) -> Tensor:
        """The inverse of :meth:`lay`."""
        return maps[0, :, self.row, self.column].T


class HaDMST(Predictor):
    """A diffusion of gene maps, told what the image shows and what a coarse map of the same area measured.

    Three parts, as in the abstract: features of the image are trained to tell what the expression itself tells
    (semantic distillation); the coarse map is shifted, position by position, to where it fits the image (spatial
    alignment); one discriminator per gene judges the maps (channel-aware adversarial learning).

    Parameters
    ----------
    n_genes
        Size of the panel.
    encoder, feature_dim
        See :class:`~napari_he2st.zoo.inputs.Features`, and the size of its features.
    dim
        Channels of the network.
    coarse
        In training only spots at every so many array positions are known, both ways.
    n_steps
        Length of the diffusion.
    distillation_weight, adversarial_weight
        Of the two further losses.
    tile_px, mpp
        Width of the tile around the spot and its pixel size.

    Notes
    -----
    There is no public code, and the abstract gives no sizes: everything beyond the three parts is an interpretation.
    The network predicts the clean maps and not their noise, which has as many dimensions as there are genes.
    Predict at a finer pitch than what was measured; without any measured spot the image alone decides, for which a
    tenth of the training steps hide them all.
    """

    unit = Slide()
    targets = {"expression": Expression("log1p_cp10k", panel="hvg:200")}
    recipe = Recipe("adamw", lr=1e-3, epochs=500, batch_size=1, clip=1.0)
    draws = 4

    def __init__(
        self,
        n_genes: int,
        *,
        encoder: str = "uni",
        feature_dim: int = 1024,
        dim: int = 128,
        coarse: int = 2,
        n_steps: int = 1000,
        distillation_weight: float = 1.0,
        adversarial_weight: float = 0.01,
        tile_px: int = 224,
        mpp: float | None = 0.5,
    ) -> None:
        super().__init__()
        self.inputs = {
            "features": kinds.Features(encoder=encoder, px=tile_px, mpp=mpp),
            "grid_xy": kinds.Positions(kind="lattice"),
            "measured": kinds.Expression(),
        }
        self.n_genes, self.coarse, self.schedule = n_genes, coarse, Schedule.linear(n_steps)
        self.distillation_weight, self.adversarial_weight = distillation_weight, adversarial_weight
        self.student = nn.Sequential(
            nn.LayerNorm(feature_dim), nn.Linear(feature_dim, dim), nn.GELU(), nn.Linear(dim, dim)
        )
        self.teacher = nn.Sequential(nn.Linear(n_genes, dim), nn.GELU(), nn.Linear(dim, dim))
        self.reader = nn.Linear(dim, n_genes)
        self.align = _Alignment(n_genes, dim)
        self.network = _UNet(n_genes, dim)

    def prepare(self, *, features: Tensor, grid_xy: Tensor, measured: Tensor) -> dict[str, Tensor]:
        """Array positions as they are; expression of the spots that are known, NaN elsewhere."""
        return {"features": features, "grid_xy": grid_xy, "measured": measured}

    def forward(self, noisy: Tensor, time: Tensor, image: Tensor, known: Tensor, tissue: Tensor) -> Tensor:
        """Clean maps of genes, float32 (1, genes, rows, columns).

        Parameters
        ----------
        noisy
            Maps at step ``time`` (1,).
        image
            What the image tells, (1, dim, rows, columns).
        known
            Known expression and, as the last channel, where it is known, (1, genes + 1, rows, columns).
        tissue
            Where there is a spot, (1, 1, rows, columns).
        """
        return self.network(torch.cat([noisy, image, self.align(known, image), tissue], dim=1), time)

    def guided(self, features: Tensor) -> Tensor:
        """Expression that the image alone tells, float32 (spots, genes)."""
        return self.reader(self.student(features))

    def loss(self, targets: Mapping[str, Tensor], *, features: Tensor, grid_xy: Tensor, measured: Tensor) -> Tensor:
        """Error of the maps and distillation, without the discriminator."""
        return self._terms(targets["expression"], features, grid_xy, measured)[0]

    def _terms(
        self, expression: Tensor, features: Tensor, grid_xy: Tensor, measured: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The loss, and true and predicted maps."""
        raster, clean = raster_of(grid_xy), expression.nan_to_num()
        seen = (grid_xy % self.coarse == 0).all(1) & (torch.rand((), device=clean.device) >= _BLIND_SHARE)
        maps, tissue = raster.lay(clean), raster.lay(clean.new_ones(len(clean), 1))
        told = self.student(features)
        step = torch.randint(len(self.schedule), (1,), device=clean.device)
        noisy = self.schedule.noised(maps, step, torch.randn_like(maps) * tissue)
        known = raster.lay(as_known(measured.masked_fill(~seen[:, None], torch.nan)))
        found = self(noisy, numbers(self.schedule, step), raster.lay(told), known, tissue)
        taught = self.teacher(clean)
        lessons = F.mse_loss(told, taught.detach()) + sum(
            nan_mse(self.reader(state), expression) for state in (told, taught)
        )
        return nan_mse(raster.read(found), expression) + self.distillation_weight * lessons, maps, found * tissue

    def fit(self, batches: Batches, recipe: Recipe) -> Iterator[dict[str, float]]:
        """Train against one discriminator per gene, which is not kept."""
        critic = _Discriminator(self.n_genes).to(self.reader.weight.device)
        optimizer, of_critic = make_optimizer(self, recipe), make_optimizer(critic, recipe)
        for epoch in range(recipe.epochs):
            self.train()
            losses = []
            for targets, prepared in batches:
                loss, maps, found = self._terms(targets["expression"], **prepared)
                descend(optimizer, loss - self.adversarial_weight * critic(found).mean(), recipe)
                hinge = F.relu(1 - critic(maps)).mean() + F.relu(1 + critic(found.detach())).mean()
                descend(of_critic, hinge, recipe)
                losses.append(float(loss.detach()))
            yield {"epoch": epoch, "loss": sum(losses) / max(len(losses), 1)}

    def predict(
        self,
        *,
        features: Tensor,
        grid_xy: Tensor,
        measured: Tensor,
        noise: Noise | None = None,
        steps: int = 25,
    ) -> Tensor:
        """One draw of log (1 + CP10k), float32 (spots, genes), in ``steps`` steps of DDIM."""
        raster = raster_of(grid_xy)
        schedule = self.schedule.respaced(spaced_steps(len(self.schedule), steps))
        image, known = raster.lay(self.student(features)), raster.lay(as_known(measured))
        tissue = raster.lay(features.new_ones(len(features), 1))
        start = raster.lay(normal(noise, features, self.n_genes))

        def network(x: Tensor, time: Tensor) -> Tensor:
            return self(x, time, image, known, tissue) * tissue

        return raster.read(ddim(schedule, network, start, predicts="signal", bounds=_BOUNDS))


def raster_of(grid_xy: Tensor) -> Raster:
    """The raster that holds array positions (column, row), int64 (n, 2)."""
    columns, rows = (int(side) + 1 for side in grid_xy.amax(0))
    return Raster(grid_xy[:, 0], grid_xy[:, 1], (rows + rows % 2, columns + columns % 2))


def as_known(measured: Tensor) -> Tensor:
    """Expression, 0 where it is not known, and a last column that says whether anything is: (n, genes + 1)."""
    return torch.cat([measured.nan_to_num(), measured.isfinite().any(1, keepdim=True).to(measured)], dim=1)


class _Alignment(nn.Module):
    """Features of the known map, each position fetched from where the image says it fits."""

    def __init__(self, n_genes: int, dim: int) -> None:
        super().__init__()
        self.embed = nn.Sequential(nn.Conv2d(n_genes + 1, dim, 3, padding=1), nn.GELU(), _conv(dim, dim))
        self.shift = nn.Conv2d(2 * dim, 2, 3, padding=1)
        nn.init.zeros_(self.shift.weight)
        nn.init.zeros_(self.shift.bias)

    def forward(self, known: Tensor, image: Tensor) -> Tensor:
        embedded = self.embed(known)
        offset = self.shift(torch.cat([embedded, image], dim=1)).permute(0, 2, 3, 1)
        still = torch.eye(2, 3, device=known.device)[None]
        places = F.affine_grid(still, list(embedded.shape), align_corners=False)
        return F.grid_sample(embedded, places + offset, padding_mode="border", align_corners=False)


class _Block(nn.Module):
    """Two convolutions, shifted by time between them, added to their input."""

    def __init__(self, n_in: int, dim: int) -> None:
        super().__init__()
        self.first, self.second = _conv(n_in, dim), _conv(dim, dim)
        self.norm, self.clock = nn.GroupNorm(_GROUPS, dim), nn.Linear(dim, dim)
        self.skip = nn.Conv2d(n_in, dim, 1)

    def forward(self, x: Tensor, clock: Tensor) -> Tensor:
        h = F.silu(self.norm(self.first(x)) + self.clock(clock)[..., None, None])
        return self.second(h) + self.skip(x)


class _UNet(nn.Module):
    """Two levels of resolution."""

    def __init__(self, n_genes: int, dim: int) -> None:
        super().__init__()
        self.time = TimeEmbedding(dim)
        self.down, self.middle = _Block(n_genes + 2 * dim + 1, dim), _Block(dim, dim)
        self.up = _Block(2 * dim, dim)
        self.out = nn.Conv2d(dim, n_genes, 3, padding=1)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        clock = F.silu(self.time(time))
        fine = self.down(x, clock)
        coarse = self.middle(F.avg_pool2d(fine, 2), clock)
        return self.out(self.up(torch.cat([fine, F.interpolate(coarse, scale_factor=2.0)], dim=1), clock))


class _Discriminator(nn.Module):
    """Judges the map of every gene by itself, position by position."""

    def __init__(self, n_genes: int, width: int = 8) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(n_genes, width * n_genes, 3, padding=1, groups=n_genes),
            nn.LeakyReLU(_SLOPE),
            nn.Conv2d(width * n_genes, n_genes, 3, padding=1, groups=n_genes),
        )

    def forward(self, maps: Tensor) -> Tensor:
        return self.body(maps)


def _conv(n_in: int, n_out: int) -> nn.Conv2d:
    return nn.Conv2d(n_in, n_out, 3, padding=1)

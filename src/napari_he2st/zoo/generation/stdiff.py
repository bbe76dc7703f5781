"""stDiff: unmeasured genes of measured spots, by diffusion (Li et al., Briefings in Bioinformatics 2024)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from napari_he2st.core.noise import Noise
from napari_he2st.zoo import inputs as kinds
from napari_he2st.zoo.base import Expression, Predictor, Slide
from napari_he2st.zoo.blocks.adaln import AdaLNBlock, AdaLNOutput, TimeEmbedding
from napari_he2st.zoo.blocks.diffusion import Schedule, ancestral, numbers, spaced_steps
from napari_he2st.zoo.blocks.draws import normal
from napari_he2st.zoo.recipe import Recipe

_BATCH = 512
_LEAST_VARIANCE = 1e-20


class StDiff(Predictor):
    """Attention among spots; of their genes, the known ones stay as they are and the others are cleaned in steps.

    Parameters
    ----------
    n_genes
        Size of the panel, measured and unmeasured genes together.
    dim
        Width; by default 512, 1024 or 2048, for fewer than 512, than 1024, or more genes.
    depth, heads, mlp_ratio, n_conditions
        Of the transformer; ``n_conditions`` of an embedding that is there but plays no part.
    n_steps
        Length of the diffusion.
    hidden_share
        Share of the genes that a training step hides.
    faithful
        Spots see those of their batch of 512, as published, so that a prediction depends on how they are cut into
        batches. By default all spots of the slide see one another.

    Notes
    -----
    It sees no image. The original hides the same genes throughout, those of a fold, and can impute no others; here
    they are drawn anew in each step. It trains on single cells, each a second time with ten counts added to every
    gene; here on measured sections. Prediction goes through 25 of the 1,500 steps; the
    published one through all (``steps=1500``).
    """

    unit = Slide()
    inputs = {"measured": kinds.Expression()}
    targets = {"expression": Expression("maxabs_log1p_cp10k_panel", panel="hvg:500")}
    recipe = Recipe("adamw", lr=1.6046744893538737e-4, epochs=900, batch_size=1, clip=1.0)
    draws = 1

    def __init__(
        self,
        n_genes: int,
        *,
        dim: int | None = None,
        depth: int = 6,
        heads: int = 16,
        mlp_ratio: float = 4.0,
        n_conditions: int = 6,
        n_steps: int = 1500,
        hidden_share: float = 0.2,
        faithful: bool = False,
    ) -> None:
        super().__init__()
        if dim is None:
            dim = 512 if n_genes < 512 else 1024 if n_genes < 1024 else 2048
        self.schedule, self.hidden_share, self.faithful = Schedule.cosine(n_steps), hidden_share, faithful
        self.in_layer, self.cond_layer = (nn.Sequential(nn.Linear(n_genes, dim)) for _ in range(2))
        self.condi_emb = nn.Embedding(n_conditions, dim)
        self.time_emb = TimeEmbedding(dim)
        self.blks = nn.ModuleList(AdaLNBlock(dim, heads=heads, mlp_ratio=mlp_ratio, gelu="none") for _ in range(depth))
        self.out_layer = AdaLNOutput(dim, n_genes)

    def prepare(self, *, measured: Tensor) -> dict[str, Tensor]:
        """Expression from 0 to 1, NaN where it is to be imputed."""
        return {"measured": measured}

    def forward(self, x: Tensor, time: Tensor, condition: Tensor) -> Tensor:
        """Noise in ``x``, float32 (spots, genes).

        Parameters
        ----------
        x
            Noisy expression from −1 to 1.
        time
            Number of the step, int64 (spots,).
        condition
            Known expression from −1 to 1, and −1 for what is not known.
        """
        c = (self.time_emb(time) + self.cond_layer(condition))[None]
        tokens = self.in_layer(x)[None]
        for block in self.blks:
            tokens = block(tokens, c)
        return self.out_layer(tokens, c)[0]

    def loss(self, targets: Mapping[str, Tensor], *, measured: Tensor) -> Tensor:
        """MSE of the noise in genes that are hidden in this step."""
        n_genes = measured.shape[1]
        known = measured.isfinite()
        known[:, torch.randperm(n_genes, device=measured.device)[: max(1, round(self.hidden_share * n_genes))]] = False
        clean = 2 * targets["expression"].nan_to_num() - 1
        condition = as_condition(measured, known)
        step = torch.randint(1, len(self.schedule), (len(clean),), device=clean.device)
        noise = torch.randn_like(clean)
        x = torch.where(known, condition, self.schedule.noised(clean, step, noise))
        error = (noise - self(x, numbers(self.schedule, step), condition)).square()
        return torch.where(~known & targets["expression"].isfinite(), error, torch.zeros_like(error)).mean()

    def sample(self, condition: Tensor, known: Tensor, drawn: Tensor, schedule: Schedule) -> Tensor:
        """Clean expression from −1 to 1, (spots, genes); known genes are set back after every step.

        Parameters
        ----------
        condition, known
            As in :meth:`forward`, and which genes are known.
        drawn
            Noise to begin with and that of the steps, (steps, spots, genes).
        schedule
            Steps to go through.
        """

        def keep(x: Tensor) -> Tensor:
            return torch.where(known, condition, x)

        def moments(x: Tensor, step: Tensor) -> tuple[Tensor, Tensor]:
            clean = schedule.clean(x, step, self(x, numbers(schedule, step), condition)).clamp(-1, 1)
            variance = schedule.at(schedule.variance, step, x).clamp(min=_LEAST_VARIANCE)
            return schedule.posterior_mean(clean, x, step), variance.sqrt()

        return ancestral(schedule, moments, keep(drawn[0]), drawn[1:], keep)

    def predict(self, *, measured: Tensor, noise: Noise | None = None, steps: int = 25) -> Tensor:
        """One draw of the expression, each spot's highest being 1, float32 (spots, genes), in ``steps`` steps."""
        known = measured.isfinite()
        condition = as_condition(measured, known)
        schedule = self.schedule.respaced(spaced_steps(len(self.schedule), steps))
        drawn = normal(noise, measured, steps, measured.shape[1]).transpose(0, 1)
        size = _BATCH if self.faithful else len(measured)
        parts = [slice(first, first + size) for first in range(0, len(measured), size)]
        sampled = [self.sample(condition[p], known[p], drawn[:, p], schedule) for p in parts]
        return (torch.cat(sampled) + 1) / 2


def as_condition(measured: Tensor, known: Tensor) -> Tensor:
    """Expression from 0 to 1 as the network is told of it, what is not known being −1."""
    return 2 * torch.where(known, measured, torch.zeros_like(measured)) - 1

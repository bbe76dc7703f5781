"""Ridge regression from encoder features to expression, in closed form and one pass over the spots.

Only sums over spots are kept (feature by feature, feature by gene, per training section), so the number of
spots is not limited by memory. The penalty is chosen by leaving out one training section at a time;
sections outside the training set play no part.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from scipy.sparse.linalg import eigsh
from torch import Tensor

from napari_he2st.core.errors import ModelError
from napari_he2st.zoo.base import Batches, Predictor
from napari_he2st.zoo.encoders.build import spec_of
from napari_he2st.zoo.inputs import Features
from napari_he2st.zoo.recipe import Recipe

PENALTIES = tuple(10 ** (k / 2) for k in range(-2, 7))
"""Candidates, in units of the mean squared length of a spot's feature vector."""

FIELDS = (
    ("efficientnet-lite0-early", 224, (2, 1)),
    ("efficientnet-lite0-early", 448, (2, 1)),
    ("colour-texture", 224),
    ("colour-texture", 448),
)
"""What did best over left-out sections of breast tumours, and transfers between patients."""

_CLIP = 6.0
"""Standardised features beyond this many standard deviations are artefacts."""


class Ridge(Predictor):
    """Linear map from standardised features to log expression.

    Parameters
    ----------
    n_genes
        Size of the panel.
    fields
        Encoder and width in pixels of each field around the spot. Every part of an encoder's feature (see
        ``parts`` of :class:`~napari_he2st.zoo.encoders.table.EncoderSpec`) has the same say, however long
        it is; a third entry weighs the parts against each other.
    standardise
        Over which spots features are standardised, see :class:`~napari_he2st.zoo.inputs.Features`.
    rank
        Predict only this many directions of expression, the leading principal components of the training
        spots; None predicts every gene by itself.
    precise
        Weigh sections by the inverse variance of their expression (generalised least squares), so that a
        shallow, noisy section does not decide the directions; else every spot counts the same.
    penalties
        Candidates among which the penalty is chosen; a single one is taken as it is.

    Notes
    -----
    Features and expression are centred per section before the fit, so what differs between whole sections
    is not learnt; the intercept is the mean over all training spots. A section in which a gene is NaN in
    any spot is left out for that gene, and a gene measured in no section is predicted as NaN.
    """

    scale: Tensor
    weight: Tensor
    loadings: Tensor
    bias: Tensor
    recipe = Recipe(epochs=1, batch_size=256)

    def __init__(
        self,
        n_genes: int,
        *,
        fields: Iterable[Sequence[Any]] = FIELDS,
        standardise: Literal["slide"] | None = "slide",
        rank: int | None = None,
        precise: bool = False,
        penalties: Iterable[float] = PENALTIES,
    ) -> None:
        super().__init__()
        if rank is not None and not 1 <= rank <= n_genes:
            raise ModelError(f"A rank of {rank} does not suit {n_genes} genes", where="rank")
        fields = [tuple(field) for field in fields]
        self.inputs = {
            f"feature_{i}": Features(encoder=encoder, px=px, standardise=standardise)
            for i, (encoder, px, *_) in enumerate(fields)
        }
        self.precise = precise
        self.rank, self.penalties, self.standardised = rank, tuple(penalties), standardise is not None
        scale = torch.cat([_say(*field) for field in fields])
        self.register_buffer("scale", scale, persistent=False)
        self.register_buffer("weight", torch.zeros(rank or n_genes, len(scale)))
        if rank is not None:
            self.register_buffer("loadings", torch.zeros(n_genes, rank))
        self.register_buffer("bias", torch.full((n_genes,), torch.nan))

    def prepare(self, **features: Tensor) -> dict[str, Tensor]:
        """One vector per spot: the fields side by side, each part divided by the root of its length."""
        x = torch.cat([features[name] for name in self.inputs], dim=1)
        if self.standardised:
            x = x.clamp(-_CLIP, _CLIP)
        return {"x": x * self.scale}

    def forward(self, x: Tensor) -> Tensor:
        """Float32, shape (n, genes), from the vectors (n, features) of :meth:`prepare`."""
        directions = x @ self.weight.T
        return (directions if self.rank is None else directions @ self.loadings.T) + self.bias

    def fit(self, batches: Batches, recipe: Recipe) -> Iterator[dict[str, float]]:
        """Fit in one pass; yield one record per penalty, with the best one already in place.

        Records hold ``penalty`` and ``pcc``, the mean Pearson correlation over genes and left-out training
        sections; with a single section ``gcv`` instead, the mean generalised cross-validation error
        (Golub, Heath and Wahba, Technometrics 21, 1979) as a share of the variance.

        Raises
        ------
        ModelError
            There are no training spots, or no gene varies over them.
        """
        sections = _section_sums(batches, between_genes=self.rank is not None)
        if self.precise:
            _weigh(sections)
        solution = _Solution(sections, self.rank)
        if not solution.varies:
            raise ModelError("Nothing can be learnt from these sections, for features or genes do not vary")
        best, records = 0, [{"penalty": penalty} for penalty in self.penalties]
        if len(self.penalties) > 1:
            name, scores = self._choose(sections)
            best = int(scores.argmin() if name == "gcv" else scores.argmax())
            records = [{**record, name: score} for record, score in zip(records, scores.tolist(), strict=True)]
        self.extras["penalty"] = self.penalties[best]
        self._keep(solution, self.penalties[best], sections)
        yield from records

    def _choose(self, sections: list[_Sums]) -> tuple[str, Tensor]:
        """How each penalty does, and by which measure."""
        if len(sections) > 1:
            return "pcc", _left_out_pcc(sections, self.penalties, self.rank)
        return "gcv", _cross_validation_error(sections[0], self.penalties)

    def _keep(self, solution: _Solution, penalty: float, sections: list[_Sums]) -> None:
        """Put a solution into the state, with the intercept that belongs to it."""
        weights = solution.weights(penalty)
        known = torch.stack([s.measured for s in sections]).double()  # (sections, genes)
        n = torch.tensor([s.n for s in sections], dtype=torch.float64) @ known
        x_mean = torch.stack([s.x for s in sections]).T @ known / n
        y_mean = torch.stack([s.y for s in sections]).mul(known).sum(0) / n
        if self.rank is None:
            along = (x_mean * weights).sum(0)
        else:
            along = ((x_mean.T @ weights) * solution.axes).sum(1)
            self.loadings.copy_(solution.axes)
        self.weight.copy_(weights.T)
        self.bias.copy_(y_mean - along)


def _say(encoder: str, _px: int, weights: Sequence[float] = ()) -> Tensor:
    """Factor of each number of an encoder's feature, float32 (dim,)."""
    spec = spec_of(encoder)
    parts = spec.parts or (spec.dim,)
    weights = weights or (1.0,) * len(parts)
    return torch.cat([torch.full((n,), w / math.sqrt(n)) for n, w in zip(parts, weights, strict=True)])


@dataclass
class _Sums:
    """Sums over the spots of one section, float64; products are of deviations from the section's means.

    Attributes
    ----------
    n
        Spots, or their weight.
    x, y
        Sums of features and of genes.
    xx, xy
        Features × features and features × genes.
    yy
        Genes × genes, or its diagonal alone.
    measured
        Genes that are numbers in every spot; the sums of others are 0.
    """

    n: float
    x: Tensor
    y: Tensor
    xx: Tensor
    xy: Tensor
    yy: Tensor
    measured: Tensor

    @property
    def y_variation(self) -> Tensor:
        """Sum of squared deviations of each gene."""
        return self.yy if self.yy.ndim == 1 else self.yy.diagonal()


def _section_sums(batches: Batches, between_genes: bool) -> list[_Sums]:
    """One pass over the spots."""
    sums: dict[int, _Sums] = {}
    for targets, prepared in batches:
        x, y = prepared["x"].cpu().double(), targets["expression"].cpu().double()
        rows = targets["slide"].cpu()
        for section in rows.unique().tolist():
            here = rows == section
            _add(sums, section, x[here], y[here], between_genes)
    if not sums:
        raise ModelError("There are no training spots")
    for total in sums.values():
        known = total.measured
        total.y.mul_(known)
        total.xx.sub_(torch.outer(total.x, total.x) / total.n)
        total.xy.mul_(known).sub_(torch.outer(total.x, total.y) / total.n)
        if between_genes:
            total.yy.mul_(known).mul_(known[:, None]).sub_(torch.outer(total.y, total.y) / total.n)
        else:
            total.yy.mul_(known).sub_(total.y.square() / total.n)
    return [sums[section] for section in sorted(sums)]


def _add(sums: dict[int, _Sums], section: int, x: Tensor, y: Tensor, between_genes: bool) -> None:
    """Add spots to the raw sums of their section."""
    known = y.isfinite()
    y = torch.where(known, y, 0)
    yy = y.T @ y if between_genes else y.square().sum(0)
    parts = _Sums(len(x), x.sum(0), y.sum(0), x.T @ x, x.T @ y, yy, known.all(0))
    if section not in sums:
        sums[section] = parts
        return
    total = sums[section]
    total.n += parts.n
    total.measured &= parts.measured
    for name in ("x", "y", "xx", "xy", "yy"):
        getattr(total, name).add_(getattr(parts, name))


def _weigh(sections: list[_Sums]) -> None:
    """Weigh sections by the inverse of their mean variance; the weights of all spots together stay the same."""
    variances = [float(s.y_variation.sum()) / max(int(s.measured.sum()), 1) / s.n for s in sections]
    raw = [1 / variance if variance > 0 else 0.0 for variance in variances]
    total = sum(w * s.n for w, s in zip(raw, sections, strict=True))
    if not total:
        return
    n_spots = sum(s.n for s in sections)
    for section, weight in zip(sections, raw, strict=True):
        factor = weight * n_spots / total
        section.n *= factor
        for sums in (section.x, section.y, section.xx, section.xy, section.yy):
            sums.mul_(factor)


class _Solution:
    """The ridge fit to some sections for any penalty.

    Genes that were measured in the same sections share one eigendecomposition.

    Attributes
    ----------
    axes
        Principal axes of expression, (genes, rank), or None.
    """

    def __init__(self, sections: list[_Sums], rank: int | None) -> None:
        self.axes = None if rank is None else _leading_axes(sum(s.yy for s in sections), rank)
        self._shape = sections[0].xy.shape
        self._parts = []
        groups: dict[tuple[bool, ...], list[int]] = {}
        for gene, pattern in enumerate(torch.stack([s.measured for s in sections], dim=1).tolist()):
            groups.setdefault(tuple(pattern), []).append(gene)
        for pattern, genes in groups.items():
            used = [section for section, known in zip(sections, pattern, strict=True) if known]
            if used:
                xx = sum(section.xx for section in used)
                values, vectors = torch.linalg.eigh(xx)
                unit = xx.trace() / sum(section.n for section in used)
                rotated = vectors.T @ sum(section.xy[:, genes] for section in used)
                self._parts.append((genes, values, vectors, unit, rotated))

    @property
    def varies(self) -> bool:
        """Whether there is anything to fit."""
        return any(bool(unit > 0) and bool(rotated.any()) for *_, unit, rotated in self._parts)

    def weights(self, penalty: float) -> Tensor:
        """Features × genes, or features × rank along :attr:`axes`."""
        weights = torch.zeros(self._shape, dtype=torch.float64)
        for genes, values, vectors, unit, rotated in self._parts:
            weights[:, genes] = vectors @ (rotated / (values + penalty * unit)[:, None])
        return weights if self.axes is None else weights @ self.axes


def _leading_axes(covariance: Tensor, rank: int) -> Tensor:
    """Eigenvectors of the largest eigenvalues, (genes, rank); Lanczos where that is far fewer than all."""
    if rank > len(covariance) // 4:
        return torch.linalg.eigh(covariance).eigenvectors[:, -rank:]
    start = np.ones(len(covariance))  # fixed, so that the same sections always give the same model
    return torch.from_numpy(eigsh(covariance.numpy(), rank, v0=start)[1])


def _left_out_pcc(sections: list[_Sums], penalties: tuple[float, ...], rank: int | None) -> Tensor:
    """Mean Pearson correlation over genes and left-out sections, for each penalty."""
    total, n = torch.zeros(len(penalties), dtype=torch.float64), 0
    for i, left_out in enumerate(sections):
        solution = _Solution(sections[:i] + sections[i + 1 :], rank)
        varies = left_out.y_variation > 0
        n += int(varies.sum())
        xx = left_out.xx.float()
        for k, penalty in enumerate(penalties):
            weights = solution.weights(penalty)
            product = (xx @ weights.float()).double()
            if solution.axes is None:
                shared, spread = (weights * left_out.xy).sum(0), (weights * product).sum(0)
            else:
                shared = ((left_out.xy.T @ weights) * solution.axes).sum(1)
                spread = ((solution.axes @ (weights.T @ product)) * solution.axes).sum(1)
            pcc = shared / (spread * left_out.y_variation).clamp(min=1e-30).sqrt()
            total[k] += pcc[varies].sum()
    return total / n


def _cross_validation_error(section: _Sums, penalties: tuple[float, ...]) -> Tensor:
    """Generalised cross-validation error of one section for each penalty, mean over genes, in variances."""
    values, vectors = torch.linalg.eigh(section.xx)
    unit = section.xx.trace() / section.n
    varies = section.y_variation > 0
    variation = section.y_variation[varies]
    explained = (vectors.T @ section.xy[:, varies]).square() / values.clamp(min=1e-12)[:, None]
    scores = []
    for penalty in penalties:
        shrink = values / (values + penalty * unit)
        residual = variation - (explained * (2 * shrink - shrink.square())[:, None]).sum(0)
        free = 1 - (shrink.sum() + 1) / section.n
        scores.append((residual / variation / free**2).mean())
    return torch.stack(scores)

"""iIMPACT: a Bayesian mixture of expression and of the kinds of nuclei, smooth in space (Jiang et al. 2024)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from napari_he2st.analysis.negative_binomial import domain_test
from napari_he2st.core.errors import He2stError
from napari_he2st.core.types import Domains
from napari_he2st.zoo.base import DomainMethod
from napari_he2st.zoo.blocks.expression import components, most_variable, normalised
from napari_he2st.zoo.inputs import TypedCells

if TYPE_CHECKING:
    from anndata import AnnData

Array = NDArray[np.float64]
Index = NDArray[np.intp]


class IIMPACT(DomainMethod):
    """Domains are what expression, the kinds of nuclei and the neighbours together make most probable.

    Parameters
    ----------
    n_components
        Principal components of the expression.
    cells_weight
        Weight of the nuclei's likelihood (published as w).
    smoothness
        How much each neighbour in a domain speaks for it.
    iterations, burn_in
        Sweeps of the sampler, and how many of them are thrown away.
    area_unit
        Patches of at most so many spots join the domain around them; 0 leaves them.
    """

    optional = frozenset({"cells"})
    inputs = {"cells": TypedCells()}

    def __init__(
        self,
        *,
        n_components: int = 3,
        cells_weight: float = 0.05,
        smoothness: float = 1.0,
        iterations: int = 20_000,
        burn_in: int = 10_000,
        area_unit: int = 1,
    ) -> None:
        self.n_components, self.cells_weight, self.smoothness = n_components, cells_weight, smoothness
        self.iterations, self.burn_in, self.area_unit = iterations, burn_in, area_unit

    def segment(
        self, adata: AnnData, *, n_domains: int | None, seed: int, cells: tuple[Array, NDArray] | None = None
    ) -> Domains:
        """Group the spots; without ``cells`` (positions, types), by expression and neighbours alone."""
        if n_domains is None:
            raise He2stError("iIMPACT needs the number of domains", todo="Say how many")
        xy = np.asarray(adata.obsm["spatial"], dtype=np.float64)
        hexagonal = adata.uns["he2st"]["lattice"] == "hexagonal"
        values = components(normalised(adata.X)[:, most_variable(adata.X, 2000)], self.n_components, seed)
        codes = values.astype(np.float64) / max(float(values.std()), 1e-12)
        counts = np.zeros((len(xy), 1)) if cells is None else abundance(*cells, xy, hexagonal=hexagonal)[0]
        near = neighbours(xy, hexagonal=hexagonal)
        chain = sample(
            counts,
            codes,
            near,
            n_domains,
            seed,
            weight=self.cells_weight,
            smoothness=self.smoothness,
            burn_in=self.burn_in,
            steps=self.steps(self.iterations, "Sampling"),
        )
        labels = chain.labels
        if self.area_unit:
            labels = refined(near, labels, self.area_unit)
        params: dict[str, Any] = {"interactive": int(chain.interactive().sum())}
        return Domains(labels, params, chain.share.astype(np.float32))


@dataclass(frozen=True)
class Chain:
    """What the kept sweeps of the sampler say.

    Attributes
    ----------
    share
        How often each spot was in each domain, (spots, domains).
    proportions
        Posterior medians of the kinds of nuclei in each domain, (domains, kinds).
    """

    share: Array
    proportions: Array

    @property
    def labels(self) -> Index:
        """The domain each spot was in most often."""
        labels: Index = self.share.argmax(axis=1)
        return labels

    def interactive(self, least: float = 0.9) -> NDArray[np.bool_]:
        """Spots between domains: in none of them as often as ``least``."""
        return np.asarray(self.share.max(axis=1) < least)


def sample(
    counts: Array,
    codes: Array,
    near: Index,
    k: int,
    seed: int,
    *,
    weight: float = 0.05,
    smoothness: float = 1.0,
    burn_in: int = 10_000,
    steps: Iterable[int] = range(20_000),
    order_by: int = 0,
) -> Chain:
    """Gibbs sampling. Spots that are no neighbours of one another are drawn together.

    Parameters
    ----------
    counts
        Nuclei of each kind, (spots, kinds).
    codes
        Principal components of expression, (spots, components).
    near
        Rows of each spot's neighbours, −1 where there are fewer, (spots, most).
    k
        Number of domains.
    seed
        Start of the random numbers.
    weight, smoothness
        Of the nuclei, and of each neighbour.
    burn_in
        Sweeps that are thrown away.
    steps
        Counts the sweeps.
    order_by
        Kind of nuclei by whose growing share the domains are numbered.
    """
    rng = np.random.default_rng(seed)
    n, columns = codes.shape
    labels: Index = np.asarray(rng.integers(0, k, size=n), dtype=np.intp)
    groups = independent_groups(near)
    share, kept = np.zeros((n, k)), []
    for sweep in steps:
        member = np.eye(k)[labels]
        size = member.sum(axis=0)[:, None]
        mean = member.T @ codes / np.maximum(size, 1)
        squares = member.T @ (codes - mean[labels]) ** 2
        rate = 0.1 + 0.5 * 0.01 * size * mean**2 / (0.01 + size) + 0.5 * squares
        sigma = 1 / rng.gamma(0.1 + np.broadcast_to(size, (k, columns)) / 2, 1 / rate)
        mu = rng.normal(size * mean / (size + 0.01), np.sqrt(sigma / (0.01 + size)))
        omega = rng.gamma(1 + member.T @ counts)
        omega /= omega.sum(axis=1, keepdims=True)
        fit = -0.5 * np.log(sigma).sum(axis=1) - 0.5 * (
            (codes**2) @ (1 / sigma).T - 2 * codes @ (mu / sigma).T + (mu**2 / sigma).sum(axis=1)
        )
        fit += weight * counts @ np.log(omega + 1e-20).T
        draws = rng.gumbel(size=(n, k))
        padded = np.append(labels, -1)  # −1 as a row leads here
        for apart in groups:
            votes = (padded[near[apart], None] == np.arange(k)).sum(axis=1)
            padded[apart] = (fit[apart] + smoothness * votes + draws[apart]).argmax(axis=1)
        labels = padded[:-1]
        if sweep >= burn_in:
            order = np.argsort(omega[:, order_by])
            rank = np.argsort(order)
            share[np.arange(n), rank[labels]] += 1
            kept.append(omega[order])
    return Chain(share / max(len(kept), 1), np.median(np.array(kept), axis=0))


def independent_groups(near: Index) -> list[Index]:
    """Spots in as few groups as greedy colouring finds, so that no two neighbours share one."""
    colour = np.full(len(near) + 1, -1, dtype=np.intp)
    for spot, around in enumerate(near):
        taken = set(colour[around[around >= 0]].tolist())
        colour[spot] = next(c for c in range(len(taken) + 1) if c not in taken)
    return [np.flatnonzero(colour[:-1] == c) for c in range(int(colour[:-1].max(initial=-1)) + 1)]


def neighbours(xy: Array, *, hexagonal: bool) -> Index:
    """Rows of the spots that touch each spot, in rising order, −1 where there are fewer; (spots, 6 or 4)."""
    from scipy.spatial import KDTree

    xy, a, most = (xy, 3**0.5, 6) if hexagonal else (np.round(xy), 2**0.5, 4)
    tree = KDTree(xy)
    closest = _closest(xy)
    limit = closest + 0.5 * closest * (a - 1)
    found = np.full((len(xy), most), -1, dtype=np.intp)
    for spot, around in enumerate(tree.query_ball_point(xy, limit * (1 - 1e-12))):
        others = sorted(o for o in around if (xy[o] != xy[spot]).any())[:most]
        found[spot, : len(others)] = others
    return found


def abundance(cells: Array, types: NDArray, xy: Array, *, hexagonal: bool) -> tuple[Array, NDArray]:
    """Nuclei of each kind around each spot, (spots, kinds), and the kinds in order of appearance.

    A nucleus counts for every spot that it is near, so perhaps for several.
    """
    from scipy.sparse import csr_array
    from scipy.spatial import KDTree

    reach = _closest(xy) * 1.01 * (3**0.5 / 2 if hexagonal else 2**-0.5)
    kinds, first, codes = np.unique(types, return_index=True, return_inverse=True)
    order = np.argsort(first)
    member = np.eye(len(kinds))[:, order][codes]
    around = KDTree(cells).query_ball_point(xy, reach)
    rows = np.repeat(np.arange(len(xy)), [len(a) for a in around])
    columns = np.concatenate([np.asarray(a, dtype=np.intp) for a in around])
    touching = csr_array((np.ones(len(rows)), (rows, columns)), shape=(len(xy), len(cells)))
    return np.asarray(touching @ member), kinds[order]


def _closest(xy: Array) -> float:
    from scipy.spatial import KDTree

    distance = KDTree(xy).query(xy, min(len(xy), 8))[0]
    return float(distance[distance > 0].min())


def refined(near: Index, labels: Index, area_unit: int) -> Index:
    """Labels in which a patch of at most ``area_unit`` spots takes the label of what is around it, if that is one."""
    result, seen = labels.copy(), np.zeros(len(labels), dtype=bool)
    for start in range(len(labels)):
        if seen[start]:
            continue
        patch, edge = [start], set()
        seen[start] = True
        for spot in patch:
            for other in near[spot][near[spot] >= 0].tolist():
                if labels[other] != labels[start]:
                    edge.add(int(labels[other]))
                elif not seen[other]:
                    seen[other] = True
                    patch.append(other)
        if len(patch) <= area_unit and len(edge) == 1:
            result[patch] = edge.pop()
    return result


def size_factors(counts: Array, how: Literal["tss", "q75", "rle"]) -> Array:
    """By how much each spot's counts are too high: of all, of their upper quartile, or over the genes' means."""
    totals = counts.sum(axis=1)
    if how == "tss":
        return np.asarray(totals / totals.mean())
    if how == "q75":
        upper = np.array([np.quantile(row[row > 0], 0.75) for row in counts])
        return np.asarray(upper / (totals / len(counts)))
    with np.errstate(divide="ignore"):
        logs = np.where(counts > 0, np.log(np.where(counts > 0, counts, 1)), 0)
    typical = np.exp(logs.sum(axis=0) / len(counts))
    return np.array([np.median((row / typical)[row > 0]) for row in counts])


def expressed(counts: Array, least: float = 0.1) -> Index:
    """Genes found in at least this share of the spots."""
    return np.flatnonzero((counts > 0).mean(axis=0) >= least)


def domain_genes(counts: Array, inside: NDArray[np.bool_], factors: Array) -> Array:
    """Effect, probability and adjusted probability of each gene in a domain, (genes, 3)."""
    from scipy.stats import false_discovery_control

    effect, p = domain_test(counts, inside, factors)
    return np.column_stack([effect, p, false_discovery_control(p)])

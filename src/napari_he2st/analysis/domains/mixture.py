"""Gaussian mixture with one covariance for all groups, started from a hierarchical clustering (mclust's EEE)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from napari_he2st.analysis.domains import domain_method
from napari_he2st.analysis.domains.embedding import check_request, domains_of, embed
from napari_he2st.core.errors import He2stError
from napari_he2st.core.types import Domains

if TYPE_CHECKING:
    from anndata import AnnData

Array = NDArray[np.float64]

_START_FROM = 2000
"""Points that the hierarchical clustering sees; of more, a random subset."""

_START_IN = 24
"""Dimensions it sees: the leading ones of more, since each step takes determinants of that size."""


@domain_method("mixture", "Gaussian mixture with a shared covariance (mclust EEE): domains may be stretched")
def mixture(
    adata: AnnData,
    *,
    n_domains: int | None,
    seed: int,
    smooth: int = 0,
    components: int = 15,
    genes: int = 1000,
) -> Domains:
    """Group spots by a Gaussian mixture.

    Parameters
    ----------
    adata
        Expression in our schema.
    n_domains
        How many domains; has to be given.
    seed
        Start of the random numbers: above 2,000 spots they draw those that the start is found from.
    smooth
        Average over this many nearest spots first; 0 for none.
    components
        Principal components to use.
    genes
        Genes of highest variance to use.

    Raises
    ------
    He2stError
        The number of domains is missing or impossible.
    """
    if n_domains is None:
        raise He2stError("A mixture needs the number of domains", todo="Say how many, or use leiden")
    embedding = embed(adata, genes=genes, components=components, smooth=smooth)
    check_request(n_domains, len(embedding))
    labels = fit_mixture(embedding.components.astype(np.float64), n_domains, seed).labels
    params = {"method": "mixture", "seed": seed, "smooth": smooth, "components": components, "genes": genes}
    return domains_of(labels, embedding, params)


@dataclass(frozen=True)
class Mixture:
    """A fitted mixture of ``k`` groups of ``n`` points in ``d`` dimensions.

    Attributes
    ----------
    responsibilities
        Probability of each group given the point, of the last E-step, (n, k).
    means, covariance
        Of one further M-step, (k, d) and (d, d).
    log_likelihood
        Of the last E-step.
    """

    responsibilities: Array
    means: Array
    covariance: Array
    log_likelihood: float

    @property
    def labels(self) -> NDArray[np.intp]:
        """Most probable group of each point."""
        labels: NDArray[np.intp] = self.responsibilities.argmax(axis=1)
        return labels


def fit_mixture(points: Array, k: int, seed: int) -> Mixture:
    """Fit a Gaussian mixture with one covariance by expectation maximisation (Scrucca et al. 2016).

    Parameters
    ----------
    points
        (n, d). Directions in which they do not vary are left out; so are the least varying ones where there
        are fewer points than dimensions.
    k
        Number of groups.
    seed
        Draws the 2,000 points from which the start is found where there are more.

    Raises
    ------
    He2stError
        There are fewer different points than groups.
    """
    points = _full_rank(np.asarray(points, dtype=np.float64))
    if len(np.unique(points, axis=0)) < k:
        raise He2stError(f"There are fewer than {k} different points", todo="Ask for fewer domains")
    n = len(points)
    if n > _START_FROM:
        subset = np.random.default_rng(seed).permutation(n)[:_START_FROM]
        hard = np.eye(k)[hierarchical_start(points[subset], k)]
        responsibilities, _ = _expect(points, *_maximise(points[subset], hard))
    else:
        responsibilities = np.eye(k)[hierarchical_start(points, k)]
    previous, change = -np.inf, np.inf
    while change > 1e-5:
        responsibilities, log_likelihood = _expect(points, *_maximise(points, responsibilities))
        change = abs(log_likelihood - previous) / (1 + abs(log_likelihood))
        previous = log_likelihood
    _, means, covariance = _maximise(points, responsibilities)
    return Mixture(responsibilities, means, covariance, previous)


def _maximise(points: Array, responsibilities: Array) -> tuple[Array, Array, Array]:
    """Shares, means and the shared covariance."""
    weight = np.maximum(responsibilities.sum(axis=0), np.finfo(float).tiny)
    means = responsibilities.T @ points / weight[:, None]
    second = (points * responsibilities.sum(axis=1, keepdims=True)).T @ points
    covariance = (second - (means.T * weight) @ means) / len(points)
    return weight / len(points), means, covariance


def _expect(points: Array, shares: Array, means: Array, covariance: Array) -> tuple[Array, float]:
    """Responsibilities, and the log-likelihood."""
    from scipy.linalg import solve_triangular
    from scipy.special import logsumexp

    d = len(covariance)
    root = np.linalg.cholesky(covariance + 1e-12 * np.trace(covariance) / d * np.eye(d))
    whitened, centres = (solve_triangular(root, x.T, lower=True).T for x in (points, means))
    squares = (whitened**2).sum(axis=1)[:, None] - 2 * whitened @ centres.T + (centres**2).sum(axis=1)
    constant = np.log(np.diag(root)).sum() + 0.5 * d * np.log(2 * np.pi)
    joint = np.log(shares) - 0.5 * squares - constant
    total = logsumexp(joint, axis=1, keepdims=True)
    return np.exp(joint - total), float(total.sum())


def _full_rank(points: Array) -> Array:
    """The points in coordinates whose covariance can be inverted; unchanged where it can be already."""
    n, d = points.shape
    centred = points - points.mean(axis=0)
    _, spread, axes = np.linalg.svd(centred, full_matrices=False)
    rank = int((spread > 1e-8 * max(spread.max(initial=0.0), 1e-300)).sum())
    if rank == d and n > d:
        return points
    return np.asarray(centred @ axes[: max(min(rank, (n - 1) // 2), 1)].T)


def hierarchical_start(points: Array, k: int) -> NDArray[np.intp]:
    """Agglomerate Gaussian groups of any covariance until ``k`` are left (Fraley 1998).

    Each step joins the two groups whose union costs the least likelihood.

    Returns
    -------
    array
        Group of each point, numbered by first appearance.
    """
    n = len(points)
    scaled = (points - points.mean(axis=0)) / points.std(axis=0, ddof=1)
    _, spread, axes = np.linalg.svd(scaled, full_matrices=False)
    groups = _Groups((scaled @ axes.T / np.sqrt(spread))[:, :_START_IN])
    owner = np.arange(n)
    for _ in range(n - k):
        into, gone = groups.join_cheapest()
        owner[owner == gone] = into
    _, first, codes = np.unique(owner, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[codes]


class _Groups:
    """Groups of points, and what joining any two of them would cost."""

    def __init__(self, points: Array) -> None:
        n, p = points.shape
        self.p, self.mean, self.size = p, points.copy(), np.ones(n)
        self.scatter: dict[int, Array] = {}  # of single points it is zero
        self.trace = np.zeros(n)
        self.floor = max(float(((points - points.mean(axis=0)) ** 2).sum()) / (n * p), np.finfo(float).eps)
        self.term = np.full(n, np.log(self.floor))
        self.alive = np.ones(n, dtype=bool)
        self.cost = np.full((n, n), np.inf)
        for row in range(n):
            self.cost[row] = self._cost_of(row)
        self.best = self.cost.argmin(axis=1)
        self.least = self.cost[np.arange(n), self.best]

    def _joined(self, a: int, b: int) -> Array:
        d = self.mean[a] - self.mean[b]
        zero = np.zeros((self.p, self.p))
        share = self.size[a] * self.size[b] / (self.size[a] + self.size[b])
        return np.asarray(self.scatter.get(a, zero) + self.scatter.get(b, zero) + share * np.outer(d, d))

    def _cost_of(self, row: int) -> Array:
        """Of joining a group with each other one; infinite with itself and with those that are gone."""
        others = np.flatnonzero(self.alive)
        others = others[others != row]
        size = self.size[row] + self.size[others]
        difference = self.mean[others] - self.mean[row]
        share = self.size[row] * self.size[others] / size
        trace = self.trace[row] + self.trace[others] + share * (difference**2).sum(axis=1)
        spread = (trace + self.floor) / size
        large = np.flatnonzero(size > self.p)
        if len(large):
            matrices = np.stack([self._joined(row, int(o)) for o in others[large]]) / size[large, None, None]
            spread[large] += np.maximum(np.linalg.det(matrices), 0.0)
        cost = np.full(len(self.alive), np.inf)
        cost[others] = size * np.log(spread) - self.term[row] - self.term[others]
        return cost

    def join_cheapest(self) -> tuple[int, int]:
        """Join two groups; the first one returned takes in the second."""
        a = int(self.least.argmin())
        into, gone = sorted((a, int(self.best[a])))
        cost = self.cost[into, gone]
        joined = self._joined(into, gone)
        size = self.size[into] + self.size[gone]
        self.term[into] += self.term[gone] + cost
        self.mean[into] = (self.size[into] * self.mean[into] + self.size[gone] * self.mean[gone]) / size
        self.scatter[into], self.trace[into], self.size[into] = joined, np.trace(joined), size
        self.scatter.pop(gone, None)
        self.alive[gone] = False
        self.cost[gone, :] = self.cost[:, gone] = np.inf
        self.cost[into] = self.cost[:, into] = self._cost_of(into)
        stale = np.flatnonzero(self.alive & ((self.best == into) | (self.best == gone)))
        better = self.alive & (self.cost[:, into] < self.least)
        self.best[better], self.least[better] = into, self.cost[better, into]
        for row in {into, *stale.tolist()}:
            self.best[row] = self.cost[row].argmin()
            self.least[row] = self.cost[row, self.best[row]]
        self.least[gone] = np.inf
        return into, gone

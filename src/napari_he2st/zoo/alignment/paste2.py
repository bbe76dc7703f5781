"""PASTE2: as PASTE, for sections of which only a part overlaps (Liu et al. 2023)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from napari_he2st.analysis.graphs import knn_graph
from napari_he2st.analysis.stack import gene_correlation, overlap
from napari_he2st.core.errors import He2stError
from napari_he2st.core.types import Transform
from napari_he2st.zoo.base import Aligner
from napari_he2st.zoo.blocks.expression import components, normalised
from napari_he2st.zoo.blocks.transport import (
    chained,
    counts_and_places,
    earth_mover,
    line_minimum,
    pairwise,
    rigid,
    row_divergence,
    smallest,
    thinned,
)
from napari_he2st.zoo.inputs import Tiles

if TYPE_CHECKING:
    from anndata import AnnData

Array = NDArray[np.float64]
_MASSES = (0.99, *(round(0.05 * n, 2) for n in range(19, 0, -1)))

Dissimilarity = Literal["kl", "gkl", "euclidean", "selection_kl", "pca"]


class PASTE2(Aligner):
    """Only a share of the mass is coupled; what has no counterpart stays out.

    Parameters
    ----------
    overlap
        Share of the spots that the sections have in common, above 0 and at most 1; None finds it for each pair, which
        takes twenty alignments.
    search
        How that share is found: ``"expression"`` takes the one by which most spots come to lie on spots of like
        expression; ``"mixing"`` is the published way (:func:`overlap_of`), which some hundred spots leave to chance.
    alpha
        Weight of the distances within sections against expression.
    dissimilarity
        Of expression. The published default, factors of a Poisson model, is not among them.
    normalise
        Whether distances are brought to the range of the dissimilarity.
    use_image
        Whether the mean colour around a spot counts as much as its expression.
    mirror
        Whether a section may have been turned over.
    max_spots
        Larger sections are thinned.
    iterations
        At most so many steps for each pair.
    """

    optional = frozenset({"tiles"})

    def __init__(
        self,
        *,
        overlap: float | None = 0.7,
        search: Literal["expression", "mixing"] = "expression",
        alpha: float = 0.1,
        dissimilarity: Dissimilarity = "kl",
        normalise: bool = True,
        use_image: bool = False,
        mirror: bool = False,
        max_spots: int = 2000,
        iterations: int = 1000,
    ) -> None:
        if overlap is not None and not 0 < overlap <= 1:
            message = f"The overlap has to be above 0 and at most 1, not {overlap}"
            raise He2stError(message, todo="Say which share of the spots both sections have")
        self.inputs = {"tiles": Tiles(px=49, mpp="native")} if use_image else {}
        self.overlap, self.alpha, self.dissimilarity, self.normalise = overlap, alpha, dissimilarity, normalise
        self.search, self.mirror, self.max_spots, self.iterations = search, mirror, max_spots, iterations

    def align(self, sections: Sequence[AnnData], tiles: Sequence[Tensor | None] | None = None) -> list[Transform]:
        """Move each section onto the one before, by what they have in common."""
        sections = list(sections)
        if tiles is not None and all(t is not None for t in tiles):
            for section, t in zip(sections, tiles, strict=True):
                section.obsm["rgb"] = t.float().mean((2, 3)).cpu().numpy()  # type: ignore[union-attr]
        thin = thinned(sections, self.max_spots)
        given = [(*counts_and_places(s), s.obsm.get("rgb")) for s in thin]

        def couple(i: int) -> tuple[Array, float]:
            (counts_a, xy_a, colour_a), (counts_b, xy_b, colour_b) = given[i : i + 2]
            return self.couple(counts_a, xy_a, counts_b, xy_b, colour_a, colour_b)

        return chained([xy for _, xy, _ in given], couple, self.steps, mirror=self.mirror)

    def couple(
        self,
        counts_a: Array,
        xy_a: Array,
        counts_b: Array,
        xy_b: Array,
        colour_a: Array | None = None,
        colour_b: Array | None = None,
    ) -> tuple[Array, float]:
        """Coupling of two sections, of mass ``overlap``, and its objective."""
        cost, distance_a, distance_b = self._costs(counts_a, xy_a, counts_b, xy_b, colour_a, colour_b)

        def at(mass: float) -> tuple[Array, float]:
            return partial_coupling(
                cost, distance_a, distance_b, alpha=self.alpha, mass=mass, iterations=self.iterations
            )

        if self.overlap is not None:
            return at(self.overlap)
        if self.search == "mixing":
            return at(overlap_of(lambda mass: at(mass)[0], xy_a, xy_b))
        values_a, values_b = most_varying(counts_a, counts_b)
        found = [at(mass) for mass in _MASSES]
        agreed = [agreement(xy_a, values_a, xy_b, values_b, plan, mirror=self.mirror) for plan, _ in found]
        return found[int(np.argmax(agreed))]

    def _costs(
        self,
        counts_a: Array,
        xy_a: Array,
        counts_b: Array,
        xy_b: Array,
        colour_a: Array | None,
        colour_b: Array | None,
    ) -> tuple[Array, Array, Array]:
        """Dissimilarity of any two spots, and the distances within each section."""
        cost = dissimilarity(counts_a, counts_b, self.dissimilarity)
        if colour_a is not None and colour_b is not None:
            colours = pairwise(colour_a, colour_b)
            cost = 0.5 * cost + 0.5 * colours * (cost.max() / colours.max())
        distance_a, distance_b = (pairwise(xy, xy) for xy in (xy_a, xy_b))
        if self.normalise:
            distance_a, distance_b = (in_range(d, float(cost.max())) for d in (distance_a, distance_b))
        return cost, distance_a, distance_b


def in_range(distance: Array, top: float) -> Array:
    """Distances whose largest is ``top``."""
    distance = distance / smallest(distance)
    return np.asarray(distance / distance.max() * top)


def dissimilarity(a: Array, b: Array, how: Dissimilarity, n_genes: int = 2000) -> Array:
    """How different the counts of any two spots are, (spots of a, spots of b)."""
    if how == "kl":
        return row_divergence(a + 0.01, b + 0.01)
    if how == "gkl":
        cost = generalised_divergence(a + 0.01, b + 0.01)
        return np.asarray(cost / cost.max() * 10)
    if how == "selection_kl":
        return top_gene_divergence(a, b, n_genes)
    if how == "pca":
        codes = components(normalised(np.vstack([a, b])), 20).astype(np.float64)
        return pairwise(codes[: len(a)], codes[len(a) :])
    return pairwise(a, b)


def generalised_divergence(a: Array, b: Array) -> Array:
    """Kullback–Leibler divergence of rows that need not have the same sum."""
    return np.asarray((a * np.log(a)).sum(1, keepdims=True) - a @ np.log(b).T - a.sum(1, keepdims=True) + b.sum(1))


def top_gene_divergence(a: Array, b: Array, n: int) -> Array:
    """Divergence over the ``n`` genes of highest total, after adding 1 % of each spot's mean over them."""
    top = np.sort(np.argsort(-(a.sum(0) + b.sum(0)), kind="stable")[:n])
    a, b = a[:, top], b[:, top]
    return row_divergence(a + 0.01 * a.mean(1, keepdims=True), b + 0.01 * b.mean(1, keepdims=True))


def bracket(distance_a: Array, distance_b: Array, plan: Array) -> Array:
    """Half the gradient of the distances' mismatch, for any marginals."""
    rows, columns = plan.sum(1), plan.sum(0)
    return np.asarray(
        (distance_a**2 @ rows)[:, None] + columns @ (distance_b**2).T - 2 * distance_a @ plan @ distance_b.T
    )


def partial_coupling(
    cost: Array, distance_a: Array, distance_b: Array, *, alpha: float, mass: float, iterations: int = 1000
) -> tuple[Array, float]:
    """Partial fused Gromov–Wasserstein coupling under uniform marginals, by conditional gradient."""
    a, b = (np.full(len(d), 1 / len(d)) for d in (distance_a, distance_b))
    plan = np.outer(a, b)
    with_rest = np.append(a, b.sum() - mass), np.append(b, a.sum() - mass)

    def value(plan: Array) -> float:
        return float(((1 - alpha) * cost * plan + alpha * bracket(distance_a, distance_b, plan) * plan).sum())

    objective = value(plan)
    for _ in range(iterations):
        mismatch = bracket(distance_a, distance_b, plan)
        gradient = (1 - alpha) * cost + 2 * alpha * mismatch
        padded = np.zeros((len(a) + 1, len(b) + 1))
        padded[:-1, :-1] = gradient
        padded[-1, -1] = 100 * gradient.max()
        step = earth_mover(*with_rest, padded)[:-1, :-1] - plan
        square = alpha * float((bracket(distance_a, distance_b, step) * step).sum())
        slope = float(((1 - alpha) * cost * step + 2 * alpha * mismatch * step).sum())
        length = line_minimum(square, slope)
        plan = plan + length * step
        before, objective = objective, value(plan)
        change = abs(objective - before)
        if length == 0 or change < 1e-9 or change < 1e-9 * abs(objective):
            break
    return plan, objective


def most_varying(counts_a: Array, counts_b: Array, n: int = 500) -> tuple[NDArray, NDArray]:
    """Log-normalised expression of the ``n`` genes that vary most in the first section, in both."""
    a, b = normalised(counts_a), normalised(counts_b)
    top = np.sort(np.argsort(-a.var(0), kind="stable")[:n])
    return a[:, top], b[:, top]


def agreement(xy_a: Array, values_a: NDArray, xy_b: Array, values_b: NDArray, plan: Array, *, mirror: bool) -> float:
    """Share of spots that come to lie on the other section, times how their expression correlates there."""
    rotation, centre_a, centre_b = rigid(xy_a, xy_b, plan, mirror=mirror)
    moved = (xy_b - centre_b) @ rotation.T + centre_a
    apart = pairwise(xy_a, xy_a)
    np.fill_diagonal(apart, np.inf)
    reach = float(np.median(apart.min(1)))
    correlation = gene_correlation(xy_a, values_a, moved, values_b, reach)
    return overlap(xy_a, moved, reach) * correlation if np.isfinite(correlation) else -1.0


def overlap_of(couple: Callable[[float], Array], xy_a: Array, xy_b: Array) -> float:
    """Share of the spots that two sections have in common.

    Where half of what is common is coupled, coupled and other spots lie most mixed; that share is doubled.

    Parameters
    ----------
    couple
        Coupling of a given mass.
    xy_a, xy_b
        Positions of either section's spots.
    """
    scores = []
    for mass in _MASSES:
        coupling = couple(mass)
        scores.append([mixing(xy_a, coupling.sum(1) > 0), mixing(xy_b, coupling.sum(0) > 0)])
    return float(min(1.0, 2 * min(_MASSES[best] for best in np.argmax(scores, axis=0))))


def mixing(xy: Array, coupled: NDArray[np.bool_]) -> float:
    """How mixed coupled and other spots lie within the hull of the coupled ones."""
    from scipy.spatial import Delaunay, QhullError

    try:
        inside = Delaunay(xy[coupled]).find_simplex(xy) >= 0
    except QhullError:  # fewer than three, or all in one line
        return 0.0
    return edge_inconsistency(xy[inside], coupled[inside])


def edge_inconsistency(xy: Array, labels: NDArray, k: int = 4) -> float:
    """Share of the edges between nearest neighbours that join different labels."""
    edges = neighbour_edges(xy, k)
    return float((labels[edges[:, 0]] != labels[edges[:, 1]]).mean()) if len(edges) else 0.0


def neighbour_edges(xy: Array, k: int = 4) -> NDArray[np.intp]:
    """Edges between nearest neighbours, each once, (edges, 2)."""
    rows, columns = knn_graph(xy, k).nonzero()
    return np.stack([rows, columns], axis=1)[rows < columns].astype(np.intp)

"""PASTE: spots of two sections coupled by expression and by their distances within each (Zeira et al. 2022)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from napari_he2st.core.types import Transform
from napari_he2st.zoo.base import Aligner
from napari_he2st.zoo.blocks.transport import (
    chained,
    counts_and_places,
    earth_mover,
    line_minimum,
    motion,
    pairwise,
    rigid,
    row_divergence,
    smallest,
    thinned,
)

if TYPE_CHECKING:
    from anndata import AnnData

Array = NDArray[np.float64]

_CENTRE_ROUNDS = 10


class PASTE(Aligner):
    """Each section is coupled with the one before, or with the mean of all, and moved rigidly onto it.

    Parameters
    ----------
    onto
        The section before, or a centre: the expression that all sections have in common at the first one's spots,
        which is found in turn with the couplings.
    alpha
        Weight of the distances within sections against expression.
    dissimilarity
        Of expression: Kullback–Leibler, or squared Euclidean of counts.
    normalise
        Whether distances are divided by their smallest, so that their unit does not count.
    start
        What the coupling starts from: nothing known, or nearness after centring.
    mirror
        Whether a section may have been turned over.
    max_spots
        Larger sections are thinned.
    iterations
        At most so many steps for each pair.
    n_factors
        Non-negative factors that the centre's expression is made of.
    faithful
        Choose the length of a step as published, by the distances alone.
    """

    def __init__(
        self,
        *,
        onto: Literal["previous", "centre"] = "previous",
        alpha: float = 0.1,
        dissimilarity: Literal["kl", "euclidean"] = "kl",
        normalise: bool = True,
        start: Literal["uniform", "spatial"] = "uniform",
        mirror: bool = False,
        max_spots: int = 2000,
        iterations: int = 200,
        n_factors: int = 15,
        faithful: bool = False,
    ) -> None:
        self.onto, self.n_factors = onto, n_factors
        self.alpha, self.dissimilarity, self.normalise, self.start = alpha, dissimilarity, normalise, start
        self.mirror, self.max_spots, self.iterations, self.faithful = mirror, max_spots, iterations, faithful

    def align(self, sections: Sequence[AnnData]) -> list[Transform]:
        """Move each section onto the one before, or all onto their centre."""
        given = [counts_and_places(s) for s in thinned(sections, self.max_spots)]
        if self.onto == "centre":
            return self._onto_centre(given)
        return chained(
            [xy for _, xy in given], lambda i: self.couple(*given[i], *given[i + 1]), self.steps, mirror=self.mirror
        )

    def _onto_centre(self, given: Sequence[tuple[Array, Array]]) -> list[Transform]:
        """Couplings with the centre and its expression in turn, until the objective settles."""
        counts, at = given[0]
        starts: list[Array | None] = [None] * len(given)
        centre, previous = self._factored(counts), np.inf
        for _ in self.steps(_CENTRE_ROUNDS, "Finding the centre"):
            found = [self.couple(centre, at, *part, start=start) for part, start in zip(given, starts, strict=True)]
            starts = [coupling for coupling, _ in found]
            seen = [coupling @ part[0] for (coupling, _), part in zip(found, given, strict=True)]
            centre = self._factored(len(at) * np.mean(seen, axis=0))
            objective = float(np.mean([value for _, value in found]))
            if abs(objective - previous) < 1e-3:
                break
            previous = objective
        moves = [
            motion(*rigid(at, xy, coupling, mirror=self.mirror), coupling=coupling, objective=value)
            for (_, xy), (coupling, value) in zip(given, found, strict=True)
        ]
        back = np.linalg.inv(moves[0].matrix)  # the first section lies on the centre only nearly
        return [Transform(back @ move.matrix, move.info) for move in moves]

    def _factored(self, counts: Array) -> Array:
        """Counts as the product of few non-negative factors, of least Kullback–Leibler divergence."""
        import warnings

        from sklearn.decomposition import NMF
        from sklearn.exceptions import ConvergenceWarning

        k = min(self.n_factors, *counts.shape)
        loss = "kullback-leibler" if self.dissimilarity == "kl" else "frobenius"
        model = NMF(k, solver="mu", beta_loss=loss, init="random", random_state=0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # as published, 200 steps are all there are
            return np.asarray(model.fit_transform(counts) @ model.components_)

    def couple(
        self, counts_a: Array, xy_a: Array, counts_b: Array, xy_b: Array, start: Array | None = None
    ) -> tuple[Array, float]:
        """Coupling of two sections (spots of a, spots of b), of mass 1, and its objective."""
        if self.dissimilarity == "kl":
            cost = row_divergence(counts_a + 0.01, counts_b + 0.01)
        else:
            cost = pairwise(counts_a, counts_b) ** 2
        distances = [pairwise(xy, xy) for xy in (xy_a, xy_b)]
        if self.normalise:
            distances = [d / smallest(d) for d in distances]
        if start is None and self.start == "spatial":
            start = by_nearness(xy_a, xy_b)
        return fused_coupling(
            cost, *distances, alpha=self.alpha, start=start, iterations=self.iterations, faithful=self.faithful
        )


def by_nearness(xy_a: Array, xy_b: Array) -> Array:
    """The cheapest coupling of positions, each centred and divided by its smallest distance."""
    places = [(xy - xy.mean(0)) / smallest(pairwise(xy, xy)) for xy in (xy_a, xy_b)]
    a, b = (np.full(len(xy), 1 / len(xy)) for xy in places)
    return earth_mover(a, b, pairwise(*places))


def fused_coupling(
    cost: Array,
    distance_a: Array,
    distance_b: Array,
    *,
    alpha: float,
    start: Array | None = None,
    iterations: int = 200,
    faithful: bool = False,
) -> tuple[Array, float]:
    """Fused Gromov–Wasserstein coupling of uniform marginals, by conditional gradient.

    Returns
    -------
    coupling, objective
        Where ``faithful``, the objective is the running sum of the published code, which leaves the cost of
        expression out of every step and is not the value of the coupling.
    """
    a, b = (np.full(len(d), 1 / len(d)) for d in (distance_a, distance_b))
    plan = np.outer(a, b) if start is None else start / start.sum()
    constant = (distance_a**2 @ a)[:, None] + distance_b**2 @ b

    def gromov(plan: Array) -> Array:
        return constant - 2 * distance_a @ plan @ distance_b

    def value(plan: Array) -> float:
        return float(((1 - alpha) * cost * plan + alpha * gromov(plan) * plan).sum())

    objective = value(plan)
    for _ in range(iterations):
        linear = (1 - alpha) * cost + 2 * alpha * gromov(plan)
        step = earth_mover(a, b, linear - linear.min()) - plan
        moved = distance_a @ step @ distance_b
        square = -2 * float((moved * step).sum())
        slope = -2 * float((moved * plan).sum() + (distance_a @ plan @ distance_b * step).sum())
        if not faithful:
            square, slope = alpha * square, alpha * slope + (1 - alpha) * float((cost * step).sum())
        length = line_minimum(square, slope)
        plan = plan + length * step
        change = square * length**2 + slope * length
        objective += change
        if abs(change) < 1e-9 or abs(change) < 1e-9 * abs(objective):
            break
    return plan, objective if faithful else value(plan)

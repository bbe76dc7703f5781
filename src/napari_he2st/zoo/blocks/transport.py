"""Optimal transport between the spots of two sections, and the rigid motion that a coupling says."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from napari_he2st.core.errors import MissingExtraError
from napari_he2st.core.types import Transform

if TYPE_CHECKING:
    from anndata import AnnData

Array = NDArray[np.float64]


def earth_mover(a: Array, b: Array, cost: Array) -> Array:
    """The cheapest coupling of marginals ``a`` and ``b``, exact.

    Raises
    ------
    MissingExtraError
        POT is not installed.
    """
    try:
        from ot.lp import emd
    except ImportError as error:
        raise MissingExtraError(
            "Transport between sections needs POT", todo="pip install 'napari-he2st[align]'"
        ) from error
    return np.asarray(emd(a, b, np.ascontiguousarray(cost), numItermax=1_000_000))


def row_divergence(a: Array, b: Array) -> Array:
    """Kullback–Leibler divergence of each row of ``b`` from each row of ``a``, both divided by their sums first."""
    a, b = a / a.sum(1, keepdims=True), b / b.sum(1, keepdims=True)
    log_a, log_b = np.log(a), np.log(b)
    return np.asarray((a * log_a).sum(1, keepdims=True) - a @ log_b.T)


def pairwise(a: Array, b: Array) -> Array:
    """Euclidean distances of all rows."""
    from scipy.spatial.distance import cdist

    return np.asarray(cdist(a, b))


def smallest(distance: Array) -> float:
    """The smallest distance above 0."""
    return float(distance[distance > 0].min())


def line_minimum(square: float, slope: float) -> float:
    """Where in 0 … 1 the parabola square · t² + slope · t is least."""
    if square > 0:
        return float(np.clip(-slope / (2 * square), 0, 1))
    return 1.0 if square + slope < 0 else 0.0


def rigid(x: Array, y: Array, coupling: Array, *, mirror: bool = True) -> tuple[Array, Array, Array]:
    """The rotation, where ``mirror`` perhaps with a reflection, that brings ``y`` onto ``x`` where they are coupled.

    Returns
    -------
    rotation, centre_x, centre_y
        ``x ≈ rotation @ (y − centre_y) + centre_x``; (2, 2), (2,), (2,).
    """
    mass = coupling.sum()
    centre_x, centre_y = coupling.sum(1) @ x / mass, coupling.sum(0) @ y / mass
    U, _, Vt = np.linalg.svd((y - centre_y).T @ coupling.T @ (x - centre_x))
    if not mirror and np.linalg.det(Vt.T @ U.T) < 0:
        Vt[-1] *= -1
    return Vt.T @ U.T, centre_x, centre_y


def motion(rotation: Array, centre_x: Array, centre_y: Array, **info: object) -> Transform:
    """The transform of positions ``y`` that :func:`rigid` describes."""
    matrix = np.eye(3)
    matrix[:2, :2], matrix[:2, 2] = rotation, centre_x - rotation @ centre_y
    return Transform(matrix, {"reflected": bool(np.linalg.det(rotation) < 0), **info})


def thinned(sections: Sequence[AnnData], limit: int, seed: int = 0) -> list[AnnData]:
    """The sections with at most ``limit`` spots each, drawn at random: a coupling holds all pairs of spots."""
    rng = np.random.default_rng(seed)
    return [s if s.n_obs <= limit else s[np.sort(rng.permutation(s.n_obs)[:limit])].copy() for s in sections]


def counts_and_places(section: AnnData) -> tuple[Array, Array]:
    """Dense counts and positions."""
    X = section.X.toarray() if hasattr(section.X, "toarray") else section.X
    return np.asarray(X, dtype=np.float64), np.asarray(section.obsm["spatial"], dtype=np.float64)


def chained(
    places: Sequence[Array],
    couple: Callable[[int], tuple[Array, float]],
    steps: Callable[[int, str], Iterator[int]],
    *,
    mirror: bool,
) -> list[Transform]:
    """Each section moved rigidly onto the one before; all into the first one's frame.

    Parameters
    ----------
    places
        Positions of each section's spots.
    couple
        Coupling of a section, by its number, with the next one, and the objective.
    steps
        Counts the pairs, see :meth:`~napari_he2st.zoo.base.Fitted.steps`.
    mirror
        Whether a section may have been turned over.
    """
    found = [Transform(np.eye(3))]
    for i in steps(len(places) - 1, "Aligning"):
        coupling, objective = couple(i)
        step = motion(*rigid(places[i], places[i + 1], coupling, mirror=mirror), coupling=coupling, objective=objective)
        found.append(Transform(found[-1].matrix @ step.matrix, step.info))
    return found

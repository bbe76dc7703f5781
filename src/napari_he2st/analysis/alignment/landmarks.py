"""Registration from landmarks: pairs of positions that a person has marked on two pictures of the same tissue."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from napari_he2st.core.errors import TruthError
from napari_he2st.core.types import Transform

Kind = Literal["similarity", "affine", "thin-plate spline"]

KINDS: tuple[Kind, ...] = get_args(Kind)

LEAST: dict[Kind, int] = {"similarity": 2, "affine": 3, "thin-plate spline": 4}
"""Pairs that a kind of map needs."""

_MOST_TO_MATCH = 20
_FLIP_GAIN = 0.5  # a mirrored fit has to halve the residual before it is called one


@dataclass(frozen=True)
class LandmarkFit:
    """A map from moving to fixed landmarks.

    Attributes
    ----------
    kind
        What maps were allowed.
    transform
        The map of positions (n, 2); a :class:`~napari_he2st.core.types.Transform` where it is affine.
    residuals_px
        Distance of each fixed landmark from where the map takes its moving one, shape (n,). A thin-plate spline
        meets all its landmarks, so each is predicted from the others.
    mirrored
        Whether the map is a mirror image, which tissue turned over on the glass needs.
    """

    kind: Kind
    transform: Transform | Callable[[NDArray], NDArray[np.float64]]
    residuals_px: NDArray[np.float64]
    mirrored: bool

    @property
    def rms_px(self) -> float:
        """Root of the mean squared residual."""
        return float(np.sqrt(np.mean(self.residuals_px**2)))


def fit_landmarks(moving: NDArray, fixed: NDArray, kind: Kind = "similarity") -> LandmarkFit:
    """Fit a map that takes moving landmarks to fixed ones by least squares.

    A similarity (shift, turn, scale) becomes a mirror image where this at least halves the residual of three or
    more pairs.

    Parameters
    ----------
    moving, fixed
        Positions (x, y) of pairs in the same order, shape (n, 2).
    kind
        What maps are allowed.

    Raises
    ------
    TruthError
        There are too few pairs, they lie on one point or line, or a position is not finite.
    """
    moving, fixed = _checked(moving, fixed)
    if len(moving) < LEAST[kind]:
        message = f"A {kind} needs {LEAST[kind]} pairs of landmarks, and there are {len(moving)}"
        raise TruthError(message, todo="Mark more points on both")
    if kind == "similarity":
        plain = _similarity(moving, fixed, mirrored=False)
        if len(moving) < 3:
            return plain
        flipped = _similarity(moving, fixed, mirrored=True)
        return flipped if flipped.rms_px < _FLIP_GAIN * plain.rms_px - 1e-9 else plain
    if np.linalg.matrix_rank(moving - moving.mean(axis=0), tol=1e-6 * np.ptp(moving)) < 2:
        raise TruthError("The landmarks lie on a line", todo="Mark points all around the tissue")
    if kind == "affine":
        ones = np.column_stack([moving, np.ones(len(moving))])
        matrix = np.eye(3)
        matrix[:2] = np.linalg.lstsq(ones, fixed, rcond=None)[0].T
        return _fitted(kind, Transform(matrix), moving, fixed, mirrored=bool(np.linalg.det(matrix) < 0))
    rest = [np.arange(len(moving)) != i for i in range(len(moving))]
    left_out = [np.linalg.norm(_spline(moving[keep], fixed[keep])(moving[~keep]) - fixed[~keep]) for keep in rest]
    mirrored = fit_landmarks(moving, fixed, "affine").mirrored
    return LandmarkFit(kind, _spline(moving, fixed), np.array(left_out), mirrored)


def match_landmarks(moving: NDArray, fixed: NDArray) -> NDArray[np.intp]:
    """Pair landmarks that were marked in any order, by the similarity (or mirror image) that fits them best.

    The two farthest moving landmarks are laid onto every two of the fixed ones; the others are then paired by
    distance.

    Parameters
    ----------
    moving, fixed
        Positions (x, y), shape (n, 2).

    Returns
    -------
        ``order``, shape (n,): ``fixed[order]`` belongs to ``moving``.

    Raises
    ------
    TruthError
        The numbers differ, or are below three or above 20.
    """
    from scipy.optimize import linear_sum_assignment
    from scipy.spatial.distance import cdist

    moving, fixed = _checked(moving, fixed)
    n = len(moving)
    if not 3 <= n <= _MOST_TO_MATCH:
        raise TruthError(f"{n} landmarks cannot be paired in any order", todo="Mark 3 to 20 on both")
    apart = cdist(moving, moving)
    first, second = np.unravel_index(int(apart.argmax()), apart.shape)
    if not apart.max() > 0:
        raise TruthError("The landmarks lie on one point", todo="Mark points all around the tissue")
    best, order = np.inf, np.arange(n)
    source = moving[:, 0] + 1j * moving[:, 1]
    target = fixed[:, 0] + 1j * fixed[:, 1]
    for points in (source, source.conj()):  # the second is the mirror image
        base = points[second] - points[first]
        for i in range(n):
            for j in range(n):
                if i == j or target[i] == target[j]:
                    continue
                laid = target[i] + (points - points[first]) * (target[j] - target[i]) / base
                costs = np.abs(laid[:, None] - target[None, :]) ** 2 / abs(target[j] - target[i]) ** 2
                rows, columns = linear_sum_assignment(costs)
                cost = costs[rows, columns].sum()
                if cost < best - 1e-12:
                    best, order = cost, np.asarray(columns)
    return np.asarray(order, dtype=np.intp)


def _checked(moving: NDArray, fixed: NDArray) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    moving, fixed = (np.asarray(points, dtype=np.float64).reshape(-1, 2) for points in (moving, fixed))
    if len(moving) != len(fixed):
        message = f"There are {len(moving)} landmarks on one and {len(fixed)} on the other"
        raise TruthError(message, todo="Mark each point on both")
    if not (np.isfinite(moving).all() and np.isfinite(fixed).all()):
        raise TruthError("A landmark has no position")
    return moving, fixed


def _similarity(moving: NDArray[np.float64], fixed: NDArray[np.float64], *, mirrored: bool) -> LandmarkFit:
    """Least squares in complex numbers: a turn with a scale is one factor, a mirror image the conjugate."""
    source, target = moving[:, 0] + 1j * moving[:, 1], fixed[:, 0] + 1j * fixed[:, 1]
    source = source.conj() if mirrored else source
    centred = source - source.mean()
    spread = float(np.sum(np.abs(centred) ** 2))
    if not spread > 0:
        raise TruthError("The landmarks lie on one point", todo="Mark points all around the tissue")
    factor = np.sum(centred.conj() * (target - target.mean())) / spread
    if not abs(factor) > 0:
        raise TruthError("The landmarks would shrink to one point", todo="Mark points all around the tissue")
    shift = target.mean() - factor * source.mean()
    sign = -1.0 if mirrored else 1.0
    matrix = np.array(
        [
            [factor.real, -sign * factor.imag, shift.real],
            [factor.imag, sign * factor.real, shift.imag],
            [0, 0, 1],
        ]
    )
    return _fitted("similarity", Transform(matrix), moving, fixed, mirrored=mirrored)


def _fitted(
    kind: Kind, transform: Transform, moving: NDArray[np.float64], fixed: NDArray[np.float64], *, mirrored: bool
) -> LandmarkFit:
    residuals = np.linalg.norm(transform(moving) - fixed, axis=1)
    return LandmarkFit(kind, transform, residuals, mirrored)


def _spline(moving: NDArray[np.float64], fixed: NDArray[np.float64]) -> Callable[[NDArray], NDArray[np.float64]]:
    from scipy.interpolate import RBFInterpolator

    # Badly conditioned in large numbers: fit around the middle, in units of the spread.
    middle, unit = moving.mean(axis=0), float(np.ptp(moving)) or 1.0
    try:
        spline = RBFInterpolator((moving - middle) / unit, (fixed - middle) / unit, kernel="thin_plate_spline")
    except (ValueError, np.linalg.LinAlgError) as error:
        message = "The landmarks do not tell a thin-plate spline"
        raise TruthError(message, todo="Move or remove points that coincide or lie on a line") from error

    def warp(xy: NDArray) -> NDArray[np.float64]:
        scaled = (np.asarray(xy, dtype=np.float64).reshape(-1, 2) - middle) / unit
        return np.asarray(spline(scaled) * unit + middle, dtype=np.float64)

    return warp

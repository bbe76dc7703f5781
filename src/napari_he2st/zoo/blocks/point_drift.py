"""Coherent point drift (Myronenko and Song 2010): points move together onto others, as Loki aligns sections."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.float64]


def drift(
    target: Points,
    source: Points,
    *,
    alpha: float = 2.0,
    beta: float = 2.0,
    outliers: float = 0.0,
    tolerance: float = 1e-3,
    max_iterations: int = 100,
    rank: int | None = None,
    moving: int = 2,
) -> tuple[Points, float]:
    """Move ``source`` onto ``target``; neighbours move alike.

    Parameters
    ----------
    target, source
        Points with features behind their coordinates, (n, d) and (m, d).
    alpha, beta
        Weight of smoothness, and distance over which points move alike.
    outliers
        Share of points that match nothing, in 0 … 1.
    tolerance, max_iterations
        Stop when the variance changes by no more, or after so many steps.
    rank
        Number of eigenvectors of the kernel that displacements are made of; None uses the whole kernel.
    moving
        Number of leading columns that may move; the features behind them stay.

    Returns
    -------
    moved : (m, d)
    variance : float
        Of the final matches.
    """
    n, m, d = len(target), len(source), target.shape[1]
    squared = _squared_distances(source, source)
    kernel = np.exp(-squared / (2 * beta**2))
    low_rank = None if rank is None else _largest(kernel, rank)
    moved, variance = source.copy(), float(_squared_distances(source, target).sum() / (d * m * n))
    share = outliers / (1 - outliers) * m / n
    for _ in range(max_iterations):
        match = np.exp(-_squared_distances(moved, target) / (2 * variance))
        noise = (2 * math.pi * variance) ** (d / 2) * share
        match /= np.maximum(match.sum(0, keepdims=True), np.finfo(match.dtype).eps) + noise
        of_source, of_target = match.sum(1), match.sum(0)
        drawn = match @ target
        pull = drawn - of_source[:, None] * source
        if low_rank is None:
            weights = np.linalg.solve(of_source[:, None] * kernel + alpha * variance * np.eye(m), pull)
        else:
            vectors, values = low_rank
            spread = of_source[:, None] * vectors
            inner = alpha * variance * np.diag(1 / values) + vectors.T @ spread
            weights = (pull - spread @ np.linalg.solve(inner, vectors.T @ pull)) / (alpha * variance)
        weights[:, moving:] = 0
        step = kernel @ weights if low_rank is None else vectors @ (values[:, None] * (vectors.T @ weights))
        moved, before = source + step, variance
        total = (of_target @ np.square(target).sum(1)) + (of_source @ np.square(moved).sum(1))
        variance = float((total - 2 * (moved * drawn).sum()) / (match.sum() * d))
        if variance <= 0:
            variance = tolerance / 10
        if abs(variance - before) <= tolerance:
            break
    return moved, variance


def _squared_distances(a: Points, b: Points) -> Points:
    from scipy.spatial.distance import cdist

    squared: Points = cdist(a, b, "sqeuclidean")
    return squared


def _largest(kernel: Points, rank: int) -> tuple[Points, Points]:
    """Eigenvectors (m, rank) and eigenvalues (rank,); a kernel has no negative ones."""
    from scipy.linalg import eigh

    m = len(kernel)
    values, vectors = eigh(kernel, subset_by_index=(max(0, m - rank), m - 1))
    return vectors, values


def rigid_fit(source: Points, target: Points) -> Points:
    """Rotation and shift that bring ``source`` nearest to ``target`` (Kabsch), float64 (3, 3)."""
    centre_s, centre_t = source.mean(0), target.mean(0)
    u, _, vt = np.linalg.svd((source - centre_s).T @ (target - centre_t))
    if np.linalg.det(vt.T @ u.T) < 0:
        vt[-1] *= -1
    matrix = np.eye(3)
    matrix[:2, :2] = vt.T @ u.T
    matrix[:2, 2] = centre_t - matrix[:2, :2] @ centre_s
    return matrix

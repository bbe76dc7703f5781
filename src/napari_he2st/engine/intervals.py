"""How sure a score is: intervals of correlations over resampled tissue, and whether stated spreads are right."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

N_DRAWS = 200
_BLOCK = 4.0  # spots on a side: neighbours resemble one another, so that whole blocks are drawn
_WITHIN = 1.96


def bootstrap_pcc(
    predicted: NDArray[np.float32], measured: NDArray[np.float32], places: NDArray[np.float64], *, seed: int = 0
) -> NDArray[np.float64]:
    """Pearson correlation of each gene over tissue drawn anew, float64 (draws, genes); NaN where it has none.

    Squares of 4 × 4 spots are drawn with replacement, as many as there are: spots that lie together are not
    independent of each other, and drawing them one by one would make intervals too narrow.

    Parameters
    ----------
    predicted, measured
        Shape (spots, genes); genes with an unknown value have no score.
    places
        Positions in distances of spots, shape (spots, 2).
    """
    _, block = np.unique(np.floor((places - places.min(axis=0)) / _BLOCK), axis=0, return_inverse=True)
    block = block.ravel()
    x, y = (v.astype(np.float64) - np.nanmean(v, axis=0, dtype=np.float64) for v in (predicted, measured))
    moments = np.stack([np.ones_like(x), x, y, x * x, y * y, x * y])
    sums = np.zeros((block.max() + 1, *moments.shape[::2]))
    np.add.at(sums, block, moments.transpose(1, 0, 2))
    rng = np.random.default_rng(seed)
    times = rng.multinomial(len(sums), np.full(len(sums), 1 / len(sums)), size=N_DRAWS).astype(np.float64)
    n, sx, sy, sxx, syy, sxy = np.einsum("db,bmg->mdg", times, sums)
    spread = (n * sxx - sx**2) * (n * syy - sy**2)
    found: NDArray[np.float64] = np.divide(
        n * sxy - sx * sy, np.sqrt(np.maximum(spread, 0)), out=np.full(n.shape, np.nan), where=spread > 1e-12
    )
    return found


def interval(draws: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Bounds between which 95 % of the draws of each gene lie; NaN for one that lacks a score in most of them."""
    known = np.isfinite(draws).mean(axis=0) > 0.5
    low, high = np.full((2, draws.shape[1]), np.nan)
    if known.any():
        low[known], high[known] = np.nanpercentile(draws[:, known], [2.5, 97.5], axis=0)
    return low, high


def calibration(
    predicted: NDArray[np.float32], measured: NDArray[np.float32], std: NDArray[np.float32]
) -> dict[str, float]:
    """Whether the spread of a prediction tells its error.

    Returns
    -------
    dict
        ``within_95``: share of values within 1.96 spreads of the prediction, 0.95 if they are right;
        ``spread_factor``: what to multiply the spread by to make it so on average (root mean squared error over
        root mean squared spread).
    """
    known = np.isfinite(predicted) & np.isfinite(measured) & np.isfinite(std)
    error, spread = np.abs(predicted - measured)[known].astype(np.float64), std[known].astype(np.float64)
    rms = float(np.sqrt(np.mean(spread**2)))
    return {
        "within_95": float(np.mean(error <= _WITHIN * spread)),
        "spread_factor": float(np.sqrt(np.mean(error**2))) / rms if rms > 0 else float("inf"),
    }

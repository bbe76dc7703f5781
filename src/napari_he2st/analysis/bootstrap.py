"""How sure a correlation is: intervals by resampling blocks of neighbouring spots.

Neighbouring spots are alike, so resampling them one by one would claim too much. Whole squares of tissue are drawn
instead (Künsch, Annals of Statistics 17, 1989). All a correlation needs of a square are its sums, so that a resample of
all genes is one small matrix product.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_he2st.analysis.metrics.pairs import Pairs, is_flat, paired_blocks, ratio
from napari_he2st.core.types import Grid

RESAMPLES = 500
_LEAST = 12  # squares; fewer than that give no interval worth the name
_GENES = 1_000  # handled at once: 4 MB per array of resamples

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Interval:
    """Ends of bootstrap intervals of Pearson's correlation.

    Attributes
    ----------
    low, high
        Per gene, float64, shape (genes,); NaN where the correlation is undefined in most resamples.
    mean
        Ends for the mean over genes.
    blocks
        How many squares of tissue were resampled.
    level
        Share of resamples inside.
    """

    low: Floats
    high: Floats
    mean: tuple[float, float]
    blocks: int
    level: float = 0.95


def pcc_interval(
    predicted: Any, measured: Any, grid: Grid, *, level: float = 0.95, resamples: int = RESAMPLES, seed: int = 0
) -> Interval:
    """Percentile intervals of the correlation over spots, for every gene and for their mean.

    Parameters
    ----------
    predicted, measured
        Expression in one scale, spots × genes, dense or sparse; not finite is unmeasured.
    grid
        The spots.
    level
        Share of resamples that the interval holds.
    resamples
        How many there are.
    seed
        Start of the random numbers.
    """
    block = blocks_of(grid)
    n_blocks = int(block.max(initial=-1)) + 1
    n_genes = predicted.shape[1]
    if n_blocks < 2:
        unknown = np.full(n_genes, np.nan)
        return Interval(unknown, unknown.copy(), (np.nan, np.nan), n_blocks, level)
    rng = np.random.default_rng(seed)
    drawn = rng.multinomial(n_blocks, np.full(n_blocks, 1 / n_blocks), size=resamples).astype(np.float64)
    tails = (1 - level) / 2, (1 + level) / 2
    low, high = [np.empty(0)], [np.empty(0)]
    total, known = np.zeros(resamples), np.zeros(resamples)
    for pairs in paired_blocks(predicted, measured):
        for start in range(0, len(pairs.n), _GENES):
            scores = _resampled(_part(pairs, slice(start, start + _GENES)), block, drawn)
            found = np.isfinite(scores)
            total += np.where(found, scores, 0.0).sum(axis=1)
            known += found.sum(axis=1)
            for ends, share in zip((low, high), tails, strict=True):
                ends.append(_quantile(scores, share))
    means = ratio(total, known)[:, None]
    bottom, top = (float(_quantile(means, share)[0]) for share in tails)
    return Interval(np.concatenate(low), np.concatenate(high), (bottom, top), n_blocks, level)


def blocks_of(grid: Grid) -> NDArray[np.intp]:
    """Number of the square in which each spot lies, intp (spots,).

    Squares are n^¼ pitches wide, the order that suits data in a plane, or narrower where there would be fewer than
    a dozen.
    """
    n = len(grid)
    if n == 0:
        return np.empty(0, dtype=np.intp)
    um = (grid.xy - grid.xy.min(axis=0)) * grid.mpp
    side_um = max(n**0.25, 1.0) * grid.pitch_um
    while True:
        cell = np.floor(um / side_um).astype(np.intp)
        _, number = np.unique(cell, axis=0, return_inverse=True)
        if number.max() + 1 >= min(_LEAST, n) or side_um < 0.1 * grid.pitch_um:
            return number.ravel().astype(np.intp)
        side_um /= 1.5


def _part(pairs: Pairs, genes: slice) -> Pairs:
    known = None if pairs.known is None else pairs.known[:, genes]
    return Pairs(pairs.predicted[:, genes], pairs.measured[:, genes], known, pairs.n[genes])


def _resampled(pairs: Pairs, block: NDArray[np.intp], drawn: Floats) -> Floats:
    """Correlation of each gene in each resample, shape (resamples, genes)."""
    from scipy.sparse import csr_array

    n_spots, n_blocks = len(block), drawn.shape[1]
    member = csr_array((np.ones(n_spots), (block, np.arange(n_spots))), shape=(n_blocks, n_spots))
    moments = pairs.moments()
    left = pairs.predicted - np.nan_to_num(moments.mean_predicted)
    right = pairs.measured - np.nan_to_num(moments.mean_measured)
    counts: Any = np.ones((n_spots, 1))
    if pairs.known is not None:
        counts = pairs.known.astype(np.float64)
        left, right = left * counts, right * counts
    n = drawn @ (member @ counts)
    sums = [drawn @ (member @ part) for part in (left, right, left * left, right * right, left * right)]
    mean_l, mean_r, square_l, square_r, cross = (ratio(part, np.broadcast_to(n, part.shape)) for part in sums)
    var_l, var_r = square_l - mean_l**2, square_r - mean_r**2
    flat = is_flat(var_l, moments.mean_predicted) | is_flat(var_r, moments.mean_measured)
    scores = ratio(cross - mean_l * mean_r, np.sqrt(np.maximum(var_l, 0)) * np.sqrt(np.maximum(var_r, 0)))
    return np.where(flat, np.nan, np.clip(scores, -1, 1))


def _quantile(scores: Floats, share: float) -> Floats:
    """Quantile of each column over its finite values; NaN where fewer than half are."""
    ordered = np.sort(scores, axis=0)  # NaN comes last
    n = np.isfinite(scores).sum(axis=0)
    place = share * np.maximum(n - 1, 0)
    below = np.floor(place).astype(np.intp)
    above = np.minimum(below + 1, np.maximum(n - 1, 0))
    columns = np.arange(scores.shape[1])
    first, second = ordered[below, columns], ordered[above, columns]
    return np.where(n * 2 >= len(scores), first + (place - below) * (second - first), np.nan)

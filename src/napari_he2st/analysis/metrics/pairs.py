"""Predicted and measured values side by side, a block of genes at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_he2st.core.errors import SchemaError

Floats = NDArray[np.float64]

_CACHED = 2**16  # values that stay in the processor's cache: 512 kB in float64
_BLOCK = 2**22  # values of a block: 32 MB in float64, whatever the number of spots


@dataclass(frozen=True)
class Moments:
    """First and second moments of a block of genes over known pairs, each float64 of shape (genes,).

    Attributes
    ----------
    n
        Known pairs.
    mean_predicted, mean_measured
        Means.
    var_predicted, var_measured, covariance
        Population variances and covariance.
    """

    n: Floats
    mean_predicted: Floats
    mean_measured: Floats
    var_predicted: Floats
    var_measured: Floats
    covariance: Floats

    @property
    def flat_predicted(self) -> NDArray[np.bool_]:
        """Genes that are predicted the same everywhere."""
        return is_flat(self.var_predicted, self.mean_predicted)

    @property
    def flat_measured(self) -> NDArray[np.bool_]:
        """Genes that are measured the same everywhere."""
        return is_flat(self.var_measured, self.mean_measured)


@dataclass(frozen=True)
class Pairs:
    """All pairs of a block of genes.

    Attributes
    ----------
    predicted, measured
        Of any type of number, shape (spots, genes); 0 where the pair is not known. May be views: not to be written.
    known
        bool, of the same shape, or None where every pair is known.
    n
        Known pairs of each gene, float64, shape (genes,).
    """

    predicted: NDArray
    measured: NDArray
    known: NDArray[np.bool_] | None
    n: Floats

    def difference(self) -> Floats:
        """Predicted minus measured, float64; 0 where a pair is not known."""
        result: Floats = np.subtract(self.predicted, self.measured, dtype=np.float64)
        return result

    def mean(self, values: Floats) -> Floats:
        """Mean of each gene of values that are 0 where a pair is not known; NaN without pairs."""
        return ratio(values.sum(axis=0), self.n)

    def moments(self) -> Moments:
        """Moments of both sides, in two passes over rows that stay in the processor's cache."""
        sums, squares = np.zeros((2, len(self.n))), np.zeros((2, len(self.n)))
        cross = np.zeros_like(self.n)
        for rows in self._rows():
            sums[0] += self.predicted[rows].astype(np.float64).sum(axis=0)
            sums[1] += self.measured[rows].astype(np.float64).sum(axis=0)
        means = ratio(sums, self.n)
        for rows in self._rows():
            left, right = self.predicted[rows] - means[0], self.measured[rows] - means[1]
            if self.known is not None:
                left[~self.known[rows]] = right[~self.known[rows]] = 0.0
            squares[0] += dots(left, left)
            squares[1] += dots(right, right)
            cross += dots(left, right)
        variances = ratio(squares, self.n)
        return Moments(self.n, means[0], means[1], variances[0], variances[1], ratio(cross, self.n))

    def _rows(self) -> Iterator[slice]:
        step = max(1, _CACHED // max(len(self.n), 1))
        return (slice(start, start + step) for start in range(0, len(self.predicted), step))


def over_genes(score: Callable[[Pairs], Floats], predicted: Any, measured: Any) -> Floats:
    """Apply ``score`` to every block of genes and join what it returns per gene."""
    parts = [score(pairs) for pairs in paired_blocks(predicted, measured)]
    return np.concatenate(parts) if parts else np.empty(0)


def paired_blocks(predicted: Any, measured: Any) -> Iterator[Pairs]:
    """Walk through two matrices, spots × genes, in blocks of genes.

    Raises
    ------
    SchemaError
        The matrices do not have the same two-dimensional shape.
    """
    if predicted.shape != measured.shape or len(predicted.shape) != 2:
        message = f"Predicted {predicted.shape} and measured {measured.shape} are not the same spots × genes"
        raise SchemaError(message)
    for left, right in zip(_columns(predicted, _BLOCK), _columns(measured, _BLOCK), strict=True):
        if all_finite(left) and all_finite(right):
            yield Pairs(left, right, None, np.full(left.shape[1], float(len(left))))
            continue
        known = np.isfinite(left) & np.isfinite(right)
        filled = np.where(known, left, 0.0), np.where(known, right, 0.0)
        yield Pairs(*filled, known, known.sum(axis=0).astype(np.float64))


def blocks(values: Any, size: int = _BLOCK) -> Iterator[Floats]:
    """Dense float64 copies of consecutive columns of a dense or sparse matrix, ``size`` values or less each."""
    return (np.array(block, dtype=np.float64, order="C") for block in _columns(values, size))


def _columns(values: Any, size: int) -> Iterator[NDArray]:
    """Dense blocks of consecutive columns: views of a dense matrix, copies of a sparse one."""
    n_spots, n_genes = values.shape
    step = max(1, size // max(n_spots, 1))
    columns = values.tocsc() if hasattr(values, "tocsc") else np.asarray(values)
    for start in range(0, n_genes, step):
        block = columns[:, start : start + step]
        yield block.toarray() if hasattr(block, "toarray") else block


def all_finite(values: NDArray) -> bool:
    """Whether all values are finite: a sum is so exactly where its terms are, and is cheaper than each."""
    return bool(np.isfinite(values.sum(dtype=np.float64)))


def dots(left: Floats, right: Floats) -> Floats:
    """Dot product of each column of ``left`` with the same column of ``right``."""
    result: Floats = np.einsum("ij,ij->j", left, right)
    return result


def ratio(numerator: Floats, denominator: Floats) -> Floats:
    """Quotient that is NaN, without a warning, where the denominator is 0."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(denominator > 0, numerator / denominator, np.nan)


def is_flat(variance: Floats, mean: Floats) -> NDArray[np.bool_]:
    """Which genes do not vary beyond rounding, so that their correlation or variance ratio means nothing."""
    return ~(variance > (1e-12 * mean) ** 2)

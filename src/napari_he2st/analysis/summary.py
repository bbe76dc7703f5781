"""What a gene looks like over all spots: mean and how often it is detected."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import issparse

from napari_he2st.core.progress import Progress

_BLOCK_VALUES = 4_000_000


@dataclass(frozen=True)
class GeneSummary:
    """Per gene, over the spots where it is known.

    Attributes
    ----------
    mean
        Mean, float64, shape (genes,); NaN where a gene is known nowhere.
    detected
        Share of spots with a value above zero, float64, shape (genes,); NaN likewise.
    """

    mean: NDArray[np.float64]
    detected: NDArray[np.float64]


def summarise_genes(values: Any, *, control: Progress | None = None) -> GeneSummary:
    """Summarise each gene.

    Parameters
    ----------
    values
        Spots × genes, an array or a sparse CSC matrix; NaN is unmeasured.
    control
        Told of progress, block by block; may cancel.
    """
    spots, genes = values.shape
    if issparse(values):
        above = np.diff((values > 0).tocsc().indptr)
        return GeneSummary(np.asarray(values.mean(axis=0), dtype=np.float64).ravel(), above / max(spots, 1))
    block = max(1, _BLOCK_VALUES // max(genes, 1))
    known, total, above = np.zeros(genes, np.int64), np.zeros(genes), np.zeros(genes, np.int64)
    if control is not None:
        control.start(-(-spots // block), "Summarising genes")
    for start in range(0, spots, block):
        part = values[start : start + block]
        known += np.isfinite(part).sum(axis=0)
        total += np.nansum(part, axis=0, dtype=np.float64)
        above += (part > 0).sum(axis=0)
        if control is not None:
            control.advance()
    with np.errstate(invalid="ignore"):
        return GeneSummary(total / known, above / known)


def extreme_rows(values: NDArray[Any], n: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Rows of the ``n`` highest values, the highest first, and of the ``n`` lowest, the lowest first; NaN is neither.

    Ties, such as the many zeros of a gene, are drawn from all over the spots, the same ones each time.
    """
    known = np.flatnonzero(np.isfinite(values))
    known = np.random.default_rng(0).permutation(known)
    order = known[np.argsort(values[known], kind="stable")]
    return order[::-1][:n], order[:n]

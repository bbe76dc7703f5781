"""Maps made of several genes: the score of a signature, the ratio of two genes."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import issparse

from napari_he2st.core.errors import SchemaError
from napari_he2st.core.progress import Progress

N_BINS, N_CONTROLS = 25, 50
_BLOCK_VALUES = 4_000_000
_LOG2_OF = (("log2", 1.0), ("log1p", 1 / np.log(2)), ("log_share", 1 / np.log(2)), ("log10", 1 / np.log10(2)))
"""Scales of log(1 + x) by the beginning of their names, and the factor that makes them log2."""
_LINEAR = ("counts", "cp10k", "cpm")


def signature_score(
    values: Any,
    of: NDArray[np.intp],
    mean: NDArray[np.float64],
    *,
    n_bins: int = N_BINS,
    n_controls: int = N_CONTROLS,
    seed: int = 0,
    control: Progress | None = None,
) -> NDArray[np.float32]:
    """Mean of the genes of a set, minus that of control genes which are about as high (Tirosh et al. 2016).

    As scanpy's ``score_genes``: all genes are divided into bins by their mean; for each bin in which the set has a
    gene, control genes are drawn; none of them is of the set.

    Parameters
    ----------
    values
        Expression on a logarithmic scale, spots × genes, dense or sparse; NaN is unmeasured and does not count.
    of
        Columns of the set.
    mean
        Mean of each gene over the spots, shape (genes,).
    n_bins, n_controls
        Bins, and control genes drawn of each.
    seed
        Of the drawing.
    control
        Told of progress, block by block; may cancel.

    Returns
    -------
    array
        Shape (spots,); NaN where no gene of the set is known. Where there is no other gene, the mean of the set.

    Raises
    ------
    SchemaError
        The set is empty.
    """
    if not len(of):
        raise SchemaError("The signature has none of the genes", todo="Choose genes of this result")
    controls = control_genes(of, mean, n_bins=n_bins, n_controls=n_controls, seed=seed)
    score = mean_of_columns(values, of, control)
    return score - mean_of_columns(values, controls, control) if len(controls) else score


def control_genes(
    of: NDArray[np.intp],
    mean: NDArray[np.float64],
    *,
    n_bins: int = N_BINS,
    n_controls: int = N_CONTROLS,
    seed: int = 0,
) -> NDArray[np.intp]:
    """Columns of genes about as high as those of a set, sorted; see :func:`signature_score`."""
    from scipy.stats import rankdata

    known = np.flatnonzero(np.isfinite(mean))
    bins = np.full(len(mean), -1)
    width = max(1, round(len(known) / (n_bins - 1)))
    bins[known] = rankdata(mean[known], method="min").astype(int) // width
    rng = np.random.default_rng(seed)
    inside = np.zeros(len(mean), dtype=bool)
    inside[of] = True
    drawn = [np.empty(0, dtype=np.intp)]
    for each in np.unique(bins[of]):
        candidates = np.flatnonzero((bins == each) & (bins >= 0))
        drawn.append(rng.permutation(candidates)[:n_controls])
    chosen = np.unique(np.concatenate(drawn))
    return chosen[~inside[chosen]]


def mean_of_columns(values: Any, columns: NDArray[np.intp], control: Progress | None = None) -> NDArray[np.float32]:
    """Mean of some columns per row over those that are known, a block of rows at a time; NaN where none is."""
    if issparse(values):
        return np.asarray(values[:, columns].mean(axis=1), dtype=np.float32).ravel()
    rows = values.shape[0]
    step = max(1, _BLOCK_VALUES // len(columns))
    if control is not None:
        control.start(-(-rows // step), "Scoring")
    result = np.empty(rows, dtype=np.float32)
    for start in range(0, rows, step):
        part = np.asarray(values[start : start + step][:, columns])
        known = np.isfinite(part)
        n = known.sum(axis=1)
        total = np.where(known, part, 0).sum(axis=1, dtype=np.float64)
        result[start : start + step] = np.divide(total, n, out=np.full(len(part), np.nan), where=n > 0)
        if control is not None:
            control.advance()
    return result


def log2_ratio(a: NDArray[Any], b: NDArray[Any], scale: str) -> NDArray[np.float32]:
    """log2((a + 1) / (b + 1)) in linear units, of two genes on a scale.

    Parameters
    ----------
    a, b
        Values of both genes, shape (spots,).
    scale
        Their expression scale, linear or a logarithm of 1 + x.

    Raises
    ------
    SchemaError
        The scale is another one, on which there is no ratio.
    """
    if scale.startswith(_LINEAR):
        return np.asarray(np.log2((np.asarray(a) + 1.0) / (np.asarray(b) + 1.0)), dtype=np.float32)
    for start, factor in _LOG2_OF:
        if scale.startswith(start):
            return np.asarray(factor * (np.asarray(a, dtype=np.float64) - b), dtype=np.float32)
    raise SchemaError(f"Two genes on the scale {scale!r} have no ratio", todo="Use a result in counts or log1p CP10k")

"""The arithmetic of expression values that every room shares."""

from __future__ import annotations

from typing import Any

import numpy as np

from napari_he2st.core.errors import SchemaError

COUNTS_SCALE = "counts"
"""Scale of raw counts."""

LOG1P_CP10K = "log1p_cp10k"
"""Scale of :func:`log1p_cp10k`, in which measured expression is kept."""

AS_STORED = "as_stored"
"""Scale of values that are neither counts nor made from counts by us, and of which no more is known."""


def unit_of(scale: str) -> str:
    """An expression scale as it is written in legends: ``"log1p_cp10k"`` → ``"log1p CP10k"``."""
    return scale.replace("_", " ").replace("cp10k", "CP10k")


def log1p_cp10k(counts: Any, totals: Any = None) -> Any:
    """Natural logarithm of 1 + counts per 10,000 of each spot.

    Parameters
    ----------
    counts
        Raw counts, spots × genes: a numpy array, or a SciPy CSR matrix or array. NaN is unmeasured: it
        stays NaN and adds nothing to the spot's total.
    totals
        Counts of each spot over all genes, shape (spots,), where ``counts`` holds only part of them.

    Returns
    -------
    array or CSR matrix
        float32, of the kind and shape of ``counts``. A spot without any count keeps its zeros.

    Raises
    ------
    SchemaError
        A count is negative or infinite.
    """
    sparse = hasattr(counts, "indptr")
    values = np.asarray(counts.data if sparse else counts, dtype=np.float64)
    if np.isinf(values).any() or (values < 0).any():
        raise SchemaError("Counts are negative or infinite", todo="Give raw counts, not normalised values")
    if totals is not None:
        sums = np.asarray(totals, dtype=np.float64)
    elif sparse:
        rows = np.repeat(np.arange(counts.shape[0]), np.diff(counts.indptr))
        weighted = np.bincount(rows, weights=np.nan_to_num(values), minlength=counts.shape[0])
        sums = np.asarray(weighted, dtype=np.float64)
    else:
        sums = np.nansum(values, axis=1)
    factor = 1e4 / np.where(sums > 0, sums, 1.0)
    if not sparse:
        return np.log1p(values * factor[:, None]).astype(np.float32)
    result = counts.astype(np.float32)
    result.data = np.log1p(values * np.repeat(factor, np.diff(counts.indptr))).astype(np.float32)
    return result

"""Spearman rank correlation."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_he2st.analysis.metrics import metric
from napari_he2st.analysis.metrics.pairs import Pairs, over_genes
from napari_he2st.analysis.metrics.pcc import pearson_of


@metric("spearman", "Spearman rank correlation", better="higher", of="pairs")
def spearman(predicted: Any, measured: Any) -> NDArray[np.float64]:
    """Pearson correlation of ranks, ties sharing their mean rank, per gene; NaN where a side is constant."""
    return over_genes(_spearman_of, predicted, measured)


def _spearman_of(pairs: Pairs) -> NDArray[np.float64]:
    from scipy.stats import rankdata

    known = pairs.known
    if known is None:
        return pearson_of(Pairs(rankdata(pairs.predicted, axis=0), rankdata(pairs.measured, axis=0), None, pairs.n))
    # What is unknown ranks last, so the ranks of what is known are those among themselves.
    left, right = (rankdata(np.where(known, v, np.inf), axis=0) * known for v in (pairs.predicted, pairs.measured))
    return pearson_of(Pairs(left, right, known, pairs.n))

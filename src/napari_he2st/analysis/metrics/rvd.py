"""Relative variance difference."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_he2st.analysis.metrics import metric
from napari_he2st.analysis.metrics.pairs import Pairs, over_genes, ratio


@metric("rvd", "Relative variance difference", better="lower", of="pairs")
def rvd(predicted: Any, measured: Any) -> NDArray[np.float64]:
    """(σ²pred − σ²true)² / (σ²true)², per gene; the figure of papers is its mean over genes.

    0 is the right spread over spots, 1 a prediction without any. NaN where the measured gene is constant.
    """
    return over_genes(_rvd_of, predicted, measured)


def _rvd_of(pairs: Pairs) -> NDArray[np.float64]:
    m = pairs.moments()
    scores = ratio((m.var_predicted - m.var_measured) ** 2, m.var_measured**2)
    return np.where(m.flat_measured, np.nan, scores)

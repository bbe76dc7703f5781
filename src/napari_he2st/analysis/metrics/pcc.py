"""Pearson correlation."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_he2st.analysis.metrics import metric
from napari_he2st.analysis.metrics.pairs import Pairs, over_genes, ratio


@metric("pcc", "Pearson correlation", better="higher", of="pairs")
def pcc(predicted: Any, measured: Any) -> NDArray[np.float64]:
    """Pearson correlation over spots, per gene, in [−1, 1]; NaN where either side is constant."""
    return over_genes(pearson_of, predicted, measured)


def pearson_of(pairs: Pairs) -> NDArray[np.float64]:
    """Pearson correlation of each gene of a block."""
    m = pairs.moments()
    scores = np.clip(ratio(m.covariance, np.sqrt(m.var_predicted) * np.sqrt(m.var_measured)), -1.0, 1.0)
    return np.where(m.flat_predicted | m.flat_measured, np.nan, scores)

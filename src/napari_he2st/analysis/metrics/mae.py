"""Mean absolute error."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_he2st.analysis.metrics import metric
from napari_he2st.analysis.metrics.pairs import over_genes


@metric("mae", "Mean absolute error", better="lower", of="pairs")
def mae(predicted: Any, measured: Any) -> NDArray[np.float64]:
    """Mean over spots of the absolute difference, per gene, in units of the data."""
    return over_genes(lambda p: p.mean(np.abs(p.difference())), predicted, measured)

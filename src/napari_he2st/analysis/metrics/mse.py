"""Mean squared error."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_he2st.analysis.metrics import metric
from napari_he2st.analysis.metrics.pairs import over_genes


@metric("mse", "Mean squared error", better="lower", of="pairs")
def mse(predicted: Any, measured: Any) -> NDArray[np.float64]:
    """Mean over spots of (predicted − measured)², per gene, in squared units of the data."""
    return over_genes(lambda p: p.mean(p.difference() ** 2), predicted, measured)

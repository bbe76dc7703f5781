"""Adjusted Rand index."""

from __future__ import annotations

from typing import Any

from napari_he2st.analysis.metrics import metric
from napari_he2st.analysis.metrics.labels import paired_labels


@metric("ari", "Adjusted Rand index", better="higher", of="labels")
def ari(predicted: Any, measured: Any) -> float:
    """Agreement of two groupings, 1 when equal and 0 on average by chance; unlabelled spots are skipped."""
    from sklearn.metrics import adjusted_rand_score

    left, right = paired_labels(predicted, measured)
    return float(adjusted_rand_score(right, left)) if len(left) else float("nan")

"""Normalised mutual information."""

from __future__ import annotations

from typing import Any

from napari_he2st.analysis.metrics import metric
from napari_he2st.analysis.metrics.labels import paired_labels


@metric("nmi", "Normalised mutual information", better="higher", of="labels")
def nmi(predicted: Any, measured: Any) -> float:
    """Mutual information of two groupings over the mean of their entropies, in [0, 1]; unlabelled spots are skipped."""
    from sklearn.metrics import normalized_mutual_info_score

    left, right = paired_labels(predicted, measured)
    return float(normalized_mutual_info_score(right, left)) if len(left) else float("nan")

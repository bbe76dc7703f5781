"""Groups of spots on both sides of a comparison: how they overlap, and how expression agrees within each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_he2st.analysis.agreement import Agreement, agreement
from napari_he2st.analysis.metrics import METRICS
from napari_he2st.core import keys
from napari_he2st.core.errors import SchemaError

if TYPE_CHECKING:
    from anndata import AnnData
    from pandas import DataFrame

    from napari_he2st.engine.compare import Comparison

MOST_GROUPS = 100
"""Columns with more different texts are names rather than groups."""

_NONE = ("-1", "none", "", "nan", "None")
_FEW = 3  # spots without which a correlation within a group means nothing


@dataclass(frozen=True, eq=False)
class DomainAgreement:
    """Groups of both sides.

    Attributes
    ----------
    scores
        ARI, NMI and the ARI's p value; None where only one side has groups.
    predicted, measured
        Names of the groups of the result that is judged and of the reference.
    counts
        Common spots, int, shape (measured groups, predicted groups).
    table
        One row per group of the reference (of the other side, where that alone has groups): ``group``; ``n``
        spots; ``pcc``, the mean over genes of the correlation over its spots; ``profile_pcc``, the correlation over
        genes of its mean expression; ``mse``.
    """

    scores: Agreement | None
    predicted: list[str]
    measured: list[str]
    counts: NDArray[np.intp]
    table: DataFrame


def group_columns(adata: AnnData) -> list[str]:
    """Columns of ``obs`` that hold groups of spots: labels first, then domains, then others."""
    import pandas as pd

    first = {keys.LABEL: 0, keys.DOMAIN: 1}
    names = []
    for name, column in adata.obs.items():
        text = isinstance(column.dtype, pd.CategoricalDtype) or not pd.api.types.is_numeric_dtype(column)
        if text and 1 < column.nunique() <= MOST_GROUPS:
            names.append(str(name))
    return sorted(names, key=lambda name: first.get(name, 2))


def agree_on_domains(
    comparison: Comparison, predicted: Any | None = None, measured: Any | None = None
) -> DomainAgreement:
    """Compare groups of both sides, and expression within them.

    Parameters
    ----------
    comparison
        Tells which spots belong together.
    predicted, measured
        Group of each spot of the result that is judged, and of the reference; None where it has none.

    Raises
    ------
    SchemaError
        Neither side has groups.
    """
    matching = comparison.matching
    sides = [None if v is None else _text(matching.labels(i, v)) for i, v in enumerate((predicted, measured))]
    judged, reference = sides
    groups = reference if reference is not None else judged
    if groups is None:
        raise SchemaError("Neither side has groups of spots", todo="Find domains in the Domains dock first")
    names = [_names(side) for side in sides]
    counts, scores = np.zeros((len(names[1]), len(names[0])), dtype=np.intp), None
    if judged is not None and reference is not None:
        scores = agreement(judged, reference)
        counts = np.array([[int(((reference == m) & (judged == p)).sum()) for p in names[0]] for m in names[1]])
        counts = counts.reshape(len(names[1]), len(names[0])).astype(np.intp)
    return DomainAgreement(scores, names[0], names[1], counts, _within(comparison, groups))


def _within(comparison: Comparison, groups: NDArray[np.object_]) -> DataFrame:
    """Agreement of expression in each group."""
    import pandas as pd

    pcc = METRICS["pcc"].function
    rows = []
    for name in _names(groups):
        spots = groups == name
        left, right = comparison.predicted[spots], comparison.measured[spots]
        with np.errstate(invalid="ignore"):
            known = np.isfinite(left) & np.isfinite(right)
            n = known.sum(axis=0)
            profiles = [np.where(known, v, 0).sum(axis=0) / np.where(n > 0, n, np.nan) for v in (left, right)]
        scores = pcc(left, right) if spots.sum() >= _FEW else np.full(len(n), np.nan)
        rows.append(
            {
                "group": name,
                "n": int(spots.sum()),
                "pcc": _mean(scores),
                "profile_pcc": float(pcc(profiles[0][:, None], profiles[1][:, None])[0]),
                "mse": _mean(METRICS["mse"].function(left, right)),
            }
        )
    return pd.DataFrame(rows, columns=["group", "n", "pcc", "profile_pcc", "mse"])


def _text(labels: NDArray[np.object_]) -> NDArray[np.object_]:
    text = labels.astype(str).astype(object)
    text[np.isin(text.astype(str), _NONE)] = "none"
    return text


def _names(labels: NDArray[np.object_] | None) -> list[str]:
    return [] if labels is None else [name for name in sorted(set(labels)) if name != "none"]


def _mean(values: NDArray[np.float64]) -> float:
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else float("nan")

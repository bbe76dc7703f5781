"""Two groupings of the same spots, without the spots that one of them leaves out."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_he2st.core.errors import SchemaError


def paired_labels(predicted: Any, measured: Any) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Integer codes of both groupings over spots that have both labels.

    Parameters
    ----------
    predicted, measured
        One label per spot: text, numbers or a pandas categorical. Missing values, −1 and ``"none"``
        mark spots that belong to no group.

    Raises
    ------
    SchemaError
        The groupings have different lengths.
    """
    left, right = _codes(predicted), _codes(measured)
    if len(left) != len(right):
        message = f"There are {len(left)} predicted and {len(right)} measured labels"
        raise SchemaError(message)
    both = (left >= 0) & (right >= 0)
    return left[both], right[both]


def matched_groups(predicted: NDArray[np.intp], measured: NDArray[np.intp]) -> list[tuple[int, int]]:
    """The pairs (predicted, measured) of groups that share most spots, each used once (Hungarian matching).

    Parameters
    ----------
    predicted, measured
        Group of each spot, from 0 on.
    """
    from scipy.optimize import linear_sum_assignment

    n = int(max(predicted.max(initial=-1), measured.max(initial=-1))) + 1
    shared = np.zeros((n, n), dtype=np.intp)
    np.add.at(shared, (predicted, measured), 1)
    rows, columns = linear_sum_assignment(shared, maximize=True)
    return [(int(p), int(m)) for p, m in zip(rows, columns, strict=True) if p <= predicted.max(initial=-1)]


def _codes(labels: Any) -> NDArray[np.intp]:
    import pandas as pd

    values = pd.Series(np.asarray(labels, dtype=object))
    codes, _ = pd.factorize(values.mask(values.isin([-1, "-1", "none", ""])))
    return codes.astype(np.intp)

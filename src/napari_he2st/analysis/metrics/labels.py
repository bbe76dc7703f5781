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


def _codes(labels: Any) -> NDArray[np.intp]:
    import pandas as pd

    values = pd.Series(np.asarray(labels, dtype=object))
    codes, _ = pd.factorize(values.mask(values.isin([-1, "-1", "none", ""])))
    return codes.astype(np.intp)

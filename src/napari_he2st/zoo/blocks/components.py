"""Principal components of expression."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from napari_he2st.core.errors import ModelError


def principal_components(values: NDArray, n: int) -> dict[str, NDArray[np.float32]]:
    """``mean`` (features,) and ``axes`` (features, n) of the largest variance; axes are 0 where there are fewer.

    Unmeasured values count as 0.
    """
    values = np.nan_to_num(values)
    mean = values.mean(axis=0)
    _, _, vt = np.linalg.svd(values.astype(np.float64) - mean, full_matrices=False)
    axes = np.zeros((values.shape[1], n), dtype=np.float32)
    axes[:, : min(n, len(vt))] = vt[:n].T
    return {"mean": mean.astype(np.float32), "axes": axes}


def component_scores(values: Tensor, extras: Mapping[str, Any]) -> Tensor:
    """Rows of ``values`` on the axes of ``extras["components"]``, float32 (rows, n).

    Raises
    ------
    ModelError
        There are none yet.
    """
    known = extras.get("components")
    if known is None:
        raise ModelError("The principal components are not known yet", todo="Train the system on measured sections")
    mean, axes = (torch.from_numpy(known[name]).to(values) for name in ("mean", "axes"))
    return (values - mean) @ axes

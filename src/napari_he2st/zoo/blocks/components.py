"""Principal components of expression."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def principal_components(values: NDArray, n: int) -> dict[str, NDArray[np.float32]]:
    """``mean`` (features,) and ``axes`` (features, n) of the largest variance; axes are 0 where there are fewer."""
    mean = values.mean(axis=0)
    _, _, vt = np.linalg.svd(values.astype(np.float64) - mean, full_matrices=False)
    axes = np.zeros((values.shape[1], n), dtype=np.float32)
    axes[:, : min(n, len(vt))] = vt[:n].T
    return {"mean": mean.astype(np.float32), "axes": axes}

"""Grouping of points that are embedded already: the last step of methods that learn an embedding."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from napari_he2st.analysis.domains.kmeans import means
from napari_he2st.analysis.domains.leiden import communities
from napari_he2st.analysis.domains.mixture import fit_mixture
from napari_he2st.core.errors import He2stError

Grouping = Literal["mixture", "kmeans", "leiden"]


def group(
    points: NDArray, n: int | None, seed: int, how: Grouping = "mixture"
) -> tuple[NDArray[np.intp], dict[str, Any]]:
    """Group points.

    Parameters
    ----------
    points
        (n, d).
    n
        Number of groups; None is for ``"leiden"`` to decide.
    seed
        Start of the random numbers.
    how
        ``"mixture"`` is mclust's EEE.

    Returns
    -------
    labels
        Group of each point, from 0 on.
    found
        What the grouping itself decided, such as a resolution.

    Raises
    ------
    He2stError
        The number of groups is missing or impossible.
    """
    if how == "leiden":
        return communities(np.asarray(points, dtype=np.float32), n, seed)
    if n is None:
        raise He2stError("This method needs the number of domains", todo="Say how many, or group by leiden")
    if n == 1:
        return np.zeros(len(points), dtype=np.intp), {}
    return (means(points, n, seed, n_init=10) if how == "kmeans" else fit_mixture(points, n, seed).labels), {}

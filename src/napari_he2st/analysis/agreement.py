"""How far two groupings of the same spots agree, and how likely that is by chance."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_he2st.analysis.metrics.labels import paired_labels


@dataclass(frozen=True)
class Agreement:
    """Scores of domains against labels.

    Attributes
    ----------
    ari, nmi, homogeneity
        Adjusted Rand index, normalised mutual information, and how pure domains are in labels.
    p
        Share of random relabellings with an ARI at least as high, the true one counted.
    n
        Spots that have both.
    """

    ari: float
    nmi: float
    homogeneity: float
    p: float
    n: int


def agreement(found: Any, given: Any, *, permutations: int = 199, seed: int = 0) -> Agreement:
    """Compare domains with labels; p by permuting the labels, which treats spots as exchangeable.

    Parameters
    ----------
    found, given
        One label per spot, see :func:`~napari_he2st.analysis.metrics.labels.paired_labels`.
    permutations
        Number of random relabellings.
    seed
        Start of the random numbers.
    """
    from sklearn.metrics import adjusted_rand_score, homogeneity_score, normalized_mutual_info_score

    left, right = paired_labels(found, given)
    if not len(left):
        nothing = float("nan")
        return Agreement(nothing, nothing, nothing, nothing, 0)
    ari = float(adjusted_rand_score(right, left))
    rng = np.random.default_rng(seed)
    shuffled = [_ari(left, rng.permutation(right)) for _ in range(permutations)]
    higher = 1 + sum(value >= ari - 1e-12 for value in shuffled)
    nmi = float(normalized_mutual_info_score(right, left))
    return Agreement(ari, nmi, float(homogeneity_score(right, left)), higher / (permutations + 1), len(left))


def _ari(a: NDArray[np.intp], b: NDArray[np.intp]) -> float:
    """Adjusted Rand index of integer labels, from their contingency table."""
    width = int(b.max()) + 1
    table = np.bincount(a * width + b, minlength=(int(a.max()) + 1) * width).reshape(-1, width)

    def pairs(counts: NDArray) -> float:
        return float((counts * (counts - 1)).sum()) / 2

    both, rows, columns = pairs(table), pairs(table.sum(1)), pairs(table.sum(0))
    every = pairs(np.array([len(a)]))
    expected = rows * columns / every if every else 0.0
    top = (rows + columns) / 2
    return 1.0 if top == expected else (both - expected) / (top - expected)

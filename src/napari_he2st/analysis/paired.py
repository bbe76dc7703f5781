"""Is one predictor better than another? Tests on scores of the same genes, and of one map against chance."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_he2st.analysis.metrics import METRICS


def wilcoxon_pairs(scores: NDArray[np.float64]) -> list[tuple[int, int, float]]:
    """Wilcoxon's signed-rank test of every pair of rows, p values corrected by Holm.

    Parameters
    ----------
    scores
        One row per system, one column per gene, float64; a column that is NaN in one of a pair is left out for it.

    Returns
    -------
    list of tuple
        Both rows and the corrected p value; 1 where nothing differs.
    """
    from scipy.stats import wilcoxon

    pairs = list(combinations(range(len(scores)), 2))
    raw = []
    for first, second in pairs:
        difference = scores[first] - scores[second]
        difference = difference[np.isfinite(difference)]
        raw.append(float(wilcoxon(difference).pvalue) if difference.any() else 1.0)
    return [(*pair, p) for pair, p in zip(pairs, holm(np.array(raw)).tolist(), strict=True)]


def holm(p: NDArray[np.float64]) -> NDArray[np.float64]:
    """P values corrected for their number (Holm, Scandinavian Journal of Statistics 6, 1979), float64 (tests,)."""
    order = np.argsort(p, kind="stable")
    corrected = np.empty(len(p))
    corrected[order] = np.minimum(np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)), 1.0)
    return corrected


def permuted_pcc(predicted: Any, measured: Any, n_permutations: int = 999) -> tuple[float, float]:
    """Mean Pearson correlation over genes, and its p value over permuted spots.

    Undefined correlations count as 0. Genes keep what they have in common, for whole spots change places.
    """
    pcc = METRICS["pcc"].function
    rng = np.random.default_rng(0)
    score = float(np.nan_to_num(pcc(predicted, measured)).mean())
    by_chance = [
        float(np.nan_to_num(pcc(predicted[rng.permutation(len(predicted))], measured)).mean())
        for _ in range(n_permutations)
    ]
    return score, (1 + sum(value >= score for value in by_chance)) / (1 + n_permutations)

"""Which of several results agrees best with one reference, and whether that is more than chance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_he2st.analysis.bootstrap import pcc_interval
from napari_he2st.analysis.metrics import METRICS
from napari_he2st.analysis.paired import wilcoxon_pairs
from napari_he2st.core.errors import GeneError
from napari_he2st.engine.compare import Comparison

if TYPE_CHECKING:
    from pandas import DataFrame


@dataclass(frozen=True, eq=False)
class Ranking:
    """Results in the order of their mean correlation, over the same genes and spots.

    Attributes
    ----------
    names
        The best first.
    genes
        Genes that all know and that vary in the reference.
    pcc
        Correlation over spots, float64 (names, genes); 0 where a result is constant.
    table
        One row per name: ``pcc_mean`` with the ends of its interval, ``pcc_median``, ``wins`` (share of genes at
        which it is the best), ``p`` of the paired test against the first.
    pairs
        One row per pair: ``first``, ``second``, mean ``difference``, ``p`` (Wilcoxon's signed-rank test over genes,
        corrected by Holm).
    spots
        How many spots were used.
    warnings
        What one has to know when reading it.
    """

    names: list[str]
    genes: list[str]
    pcc: NDArray[np.float64]
    table: DataFrame
    pairs: DataFrame
    spots: int
    warnings: list[str]


def rank(comparisons: Mapping[str, Comparison]) -> Ranking:
    """Rank results by how they agree with the reference that all were compared with.

    Genes that one does not know are left out for all, and so are spots, as far as all comparisons are made at spots
    of the reference.

    Raises
    ------
    GeneError
        They share no gene that varies.
    """
    import pandas as pd

    found = list(comparisons.values())
    rows, warnings = _common_spots(found)
    seen = [name for name, comparison in comparisons.items() if comparison.seen]
    if 0 < len(seen) < len(found):
        warnings.append(f"Trained on this very section, and flattered by it: {', '.join(seen)}.")
    shared = [gene for gene in found[0].genes if all(gene in set(c.genes) for c in found[1:])]
    scores, intervals = [], []
    for comparison, spots in zip(found, rows, strict=True):
        columns = pd.Index(comparison.genes).get_indexer(pd.Index(shared))
        left, right = (values[np.ix_(spots, columns)] for values in (comparison.predicted, comparison.measured))
        scores.append(METRICS["pcc"].function(left, right))
        intervals.append(pcc_interval(left, right, comparison.grid.take(spots)))
    pcc = np.array(scores).reshape(len(found), len(shared))
    varies = np.isfinite(pcc).any(axis=0)
    if not varies.any():
        raise GeneError("The results share no gene that varies", todo="Compare results with a panel in common")
    pcc = np.nan_to_num(pcc[:, varies])
    order = np.argsort(-pcc.mean(axis=1), kind="stable")
    names = [list(comparisons)[i] for i in order]
    pcc = pcc[order]
    pairs = _pairs(names, pcc)
    best = pcc == pcc.max(axis=0)
    table = pd.DataFrame(
        {
            "name": names,
            "pcc_mean": pcc.mean(axis=1),
            "pcc_low": [intervals[i].mean[0] for i in order],
            "pcc_high": [intervals[i].mean[1] for i in order],
            "pcc_median": np.median(pcc, axis=1),
            "wins": (best / best.sum(axis=0)).mean(axis=1),
            "p": [np.nan, *pairs.loc[pairs["first"] == names[0], "p"]],
        }
    )
    genes = [gene for gene, kept in zip(shared, varies, strict=True) if kept]
    return Ranking(names, genes, pcc, table, pairs, min(map(len, rows)), warnings)


def _common_spots(found: Sequence[Comparison]) -> tuple[list[NDArray[np.intp]], list[str]]:
    """Rows of each comparison whose spots all have; all rows where they are not those of the reference."""
    own = [np.arange(len(comparison.grid)) for comparison in found]
    if any(comparison.matching.by_area == 1 for comparison in found):
        if len(found) == 1:
            return own, []
        return own, ["The reference is denser than a result, so scores are taken at each result's own spots."]
    known = [comparison.matching.index[1] for comparison in found]
    shared = known[0]
    for index in known[1:]:
        shared = np.intersect1d(shared, index)
    lost = max(map(len, known)) - len(shared)
    warnings = [f"{lost:,} spots that some result does not cover are left out for all."] if lost else []
    return [np.flatnonzero(np.isin(index, shared)) for index in known], warnings


def _pairs(names: Sequence[str], pcc: NDArray[np.float64]) -> DataFrame:
    import pandas as pd

    rows: list[dict[str, Any]] = [
        {"first": names[i], "second": names[j], "difference": float((pcc[i] - pcc[j]).mean()), "p": p}
        for i, j, p in wilcoxon_pairs(pcc)
    ]
    return pd.DataFrame(rows, columns=["first", "second", "difference", "p"])

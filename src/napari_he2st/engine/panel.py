"""Which genes a predictor learns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from napari_he2st.analysis.normalise import log1p_cp10k
from napari_he2st.core import keys
from napari_he2st.core.errors import GeneError
from napari_he2st.core.types import GeneSet

if TYPE_CHECKING:
    from anndata import AnnData


def choose_panel(sections: Sequence[AnnData], rule: str | Sequence[str] = "hvg:1000") -> GeneSet:
    """Choose genes that all sections measure.

    Parameters
    ----------
    sections
        Training sections with ``layers["counts"]``; nothing else may decide the panel.
    rule
        ``"hvg:N"``: the N with the largest variance of log1p CP10k over all spots; ``"mean:N"``: the N with
        the highest mean count; ``"all"``; or a list of symbols.

    Raises
    ------
    GeneError
        No gene is measured in all sections, a listed gene is not, or the rule is unknown.
    """
    shared = set(sections[0].var_names).intersection(*(s.var_names for s in sections[1:]))
    if not shared:
        raise GeneError("The sections share no gene", todo="Check that all use symbols of one species")
    in_order = [gene for gene in map(str, sections[0].var_names) if gene in shared]
    if not isinstance(rule, str):
        missing = [gene for gene in rule if gene not in shared]
        if missing:
            message = f"{len(missing)} genes of the list are not measured in every section: {', '.join(missing[:5])}"
            raise GeneError(message, todo="Remove them from the list")
        return GeneSet(tuple(rule), "list")
    kind, _, number = rule.partition(":")
    if kind == "all":
        return GeneSet(tuple(in_order), "all", rule)
    if kind not in ("hvg", "mean") or not number.isdigit() or int(number) < 1:
        raise GeneError(f"There is no panel rule {rule!r}", todo="Use hvg:N, mean:N, all, or a list of genes")
    score = expression_variance(sections, in_order) if kind == "hvg" else _mean_counts(sections, in_order)
    best = np.sort(np.argsort(-score, kind="stable")[: int(number)])
    return GeneSet(tuple(in_order[i] for i in best), rule, rule)


def expression_variance(sections: Sequence[AnnData], genes: Sequence[str]) -> NDArray[np.float64]:
    """Variance of log1p CP10k over all spots of all sections, float64, shape (genes,)."""
    n, total, squares = 0, np.zeros(len(genes)), np.zeros(len(genes))
    for section in sections:
        X = log1p_cp10k(section.layers[keys.COUNTS])[:, section.var_names.get_indexer(list(genes))]
        X = X.toarray() if hasattr(X, "toarray") else np.asarray(X)
        X = X.astype(np.float64)
        n, total, squares = n + len(X), total + X.sum(axis=0), squares + np.square(X).sum(axis=0)
    variance: NDArray[np.float64] = squares / n - np.square(total / n)
    return variance


def _mean_counts(sections: Sequence[AnnData], genes: Sequence[str]) -> NDArray[np.float64]:
    sums = [
        np.asarray(s.layers[keys.COUNTS].sum(axis=0)).ravel()[s.var_names.get_indexer(list(genes))] for s in sections
    ]
    mean: NDArray[np.float64] = np.sum(sums, axis=0) / sum(s.n_obs for s in sections)
    return mean

"""Which genes a predictor learns."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_he2st.analysis.graphs import lattice_graph
from napari_he2st.analysis.metrics.moran import morans_i
from napari_he2st.analysis.normalise import log1p_cp10k
from napari_he2st.core import keys
from napari_he2st.core.errors import GeneError
from napari_he2st.core.schema import grid_of
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
        ``"hvg:N"``: the N with the largest variance of log1p CP10k over all spots; ``"var:N"``: of the counts
        themselves; ``"mean:N"``: the N with the highest mean count; ``"moran:N"``: the N whose maps of log1p CP10k
        are smoothest, by Moran's I averaged over the sections; ``"all"``; or a list of symbols.

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
    if kind not in _RULES or not number.isdigit() or int(number) < 1:
        raise GeneError(
            f"There is no panel rule {rule!r}", todo="Use hvg:N, var:N, mean:N, moran:N, all, or a list of genes"
        )
    score = _RULES[kind](sections, in_order)
    best = np.sort(np.argsort(-score, kind="stable")[: int(number)])
    return GeneSet(tuple(in_order[i] for i in best), rule, rule)


def further_genes(sections: Sequence[AnnData], panel: Sequence[str], n: int) -> list[str]:
    """The ``n`` genes with the highest mean count that are not in a panel, for systems that learn them beside it.

    Raises
    ------
    GeneError
        There are fewer.
    """
    if n == 0:
        return []
    taken = set(panel)
    found = [g for g in choose_panel(sections, f"mean:{len(panel) + n}").symbols if g not in taken][:n]
    if len(found) < n:
        message = f"Beside the panel only {len(found)} genes are measured in every section, not {n}"
        raise GeneError(message, todo=f"Train with --argument n_aux={len(found)}")
    return found


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
    sums = [np.asarray(counts.sum(axis=0)).ravel() for counts in _counts(sections, genes)]
    mean: NDArray[np.float64] = np.sum(sums, axis=0) / sum(s.n_obs for s in sections)
    return mean


def _count_variance(sections: Sequence[AnnData], genes: Sequence[str]) -> NDArray[np.float64]:
    squares = [np.asarray(counts.multiply(counts).sum(axis=0)).ravel() for counts in _counts(sections, genes)]
    mean = _mean_counts(sections, genes)
    variance: NDArray[np.float64] = np.sum(squares, axis=0) / sum(s.n_obs for s in sections) - np.square(mean)
    return variance


def _counts(sections: Sequence[AnnData], genes: Sequence[str]) -> Iterator[Any]:
    """Counts of some genes, sparse, float64, section by section."""
    from scipy.sparse import csr_array

    for section in sections:
        yield csr_array(section.layers[keys.COUNTS][:, section.var_names.get_indexer(list(genes))], dtype=np.float64)


def _smoothness(sections: Sequence[AnnData], genes: Sequence[str]) -> NDArray[np.float64]:
    """Moran's I averaged over sections; a gene that does not vary in one counts as 0 there."""
    total = np.zeros(len(genes))
    for section in sections:
        X = log1p_cp10k(section.layers[keys.COUNTS])[:, section.var_names.get_indexer(list(genes))]
        total += np.nan_to_num(morans_i(X, lattice_graph(grid_of(section))))
    return total / len(sections)


_RULES = {"hvg": expression_variance, "var": _count_variance, "mean": _mean_counts, "moran": _smoothness}

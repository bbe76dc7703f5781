"""Genes whose expression is not spread over the tissue at random."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_he2st.analysis.graphs import lattice_graph, row_normalised
from napari_he2st.analysis.metrics.moran import morans_i
from napari_he2st.analysis.metrics.pairs import all_finite, blocks, dots, is_flat, ratio
from napari_he2st.core.progress import Progress
from napari_he2st.core.types import Grid

if TYPE_CHECKING:
    import pandas as pd
    from scipy.sparse import csr_array

_BLOCK = 2**19
_STEP_VALUES = 2**22  # between two looks at whether the user has cancelled


def gearys_c(values: Any, graph: csr_array) -> NDArray[np.float64]:
    """Geary's C per gene, with weights that sum to 1 over the neighbours of a spot.

    Parameters
    ----------
    values
        Expression, spots × genes, dense or sparse.
    graph
        Which spots are neighbours, 0 or 1, symmetric, shape (spots, spots).

    Returns
    -------
    array
        Shape (genes,); 1 without spatial structure, below where neighbours are alike; NaN where a gene is constant or
        not known everywhere.
    """
    weights = row_normalised(graph)
    received = np.asarray(weights.sum(axis=0)).ravel()[:, None]
    own = np.asarray(weights.sum(axis=1)).ravel()[:, None]
    parts = []
    for block in blocks(values, _BLOCK):
        known = None if all_finite(block) else np.isfinite(block).all(axis=0)
        block = np.nan_to_num(block)
        mean = block.mean(axis=0)
        block = block - mean
        squares = block**2
        # Σ w (x_i − x_j)² = Σ_i x_i² (row + column weight) − 2 Σ x_i (W x)_i
        apart = ((own + received) * squares).sum(axis=0) - 2 * dots(block, weights @ block)
        total = squares.sum(axis=0)
        score = ratio((len(block) - 1) * apart, 2 * weights.sum() * total)
        score = np.where(is_flat(total / max(len(block), 1), mean), np.nan, score)
        parts.append(score if known is None else np.where(known, score, np.nan))
    return np.concatenate(parts) if parts else np.empty(0)


def moran_of_genes(values: Any, grid: Grid, *, control: Progress | None = None) -> NDArray[np.float64]:
    """Moran's I of every gene over the lattice of the spots, a block of genes at a time.

    Parameters
    ----------
    values
        Expression, spots × genes, dense or sparse CSC; NaN is unmeasured.
    grid
        The spots.
    control
        Told of progress, block by block; may cancel.

    Returns
    -------
    array
        Shape (genes,); NaN where a gene is constant.
    """
    graph, genes = lattice_graph(grid), values.shape[1]
    block = max(1, _STEP_VALUES // max(len(grid), 1))
    starts = range(0, genes, block)
    if control is not None:
        control.start(len(starts), "Measuring Moran's I")
    scores = np.full(genes, np.nan)
    for start in starts:
        scores[start : start + block] = morans_i(values[:, start : start + block], graph)
        if control is not None:
            control.advance()
    return scores


def spatial_genes(values: Any, grid: Grid, genes: list[str]) -> pd.DataFrame:
    """Every gene with its spatial autocorrelation, the most structured first.

    Parameters
    ----------
    values
        Log-normalised expression, spots × genes.
    grid
        The spots.
    genes
        Their names.

    Returns
    -------
    DataFrame
        ``gene``, ``moran`` (Moran's I), ``geary`` (Geary's C), ``p_adjusted`` (one-sided, by the normal approximation
        of Moran's I for normal values, Benjamini–Hochberg), ``mean``, ``detected`` (share of
        spots above 0). Genes that do not vary come last.
    """
    import pandas as pd
    from scipy.stats import false_discovery_control, norm

    graph = lattice_graph(grid)
    moran, geary = morans_i(values, graph), gearys_c(values, graph)
    p = norm.sf((moran + 1 / max(len(grid) - 1, 1)) / _spread(row_normalised(graph), len(grid)))
    known = np.isfinite(moran)
    adjusted = np.full(len(moran), np.nan)
    if known.any():
        adjusted[known] = false_discovery_control(p[known])
    summaries = [(np.nanmean(b, axis=0), (b > 0).mean(axis=0)) for b in blocks(values)]
    mean, detected = (np.concatenate([np.empty(0), *column]) for column in zip(*summaries, strict=True))
    columns = {"moran": moran, "geary": geary, "p_adjusted": adjusted, "mean": mean, "detected": detected}
    table = pd.DataFrame({"gene": genes, **columns})
    return table.sort_values("moran", ascending=False, na_position="last", kind="stable").reset_index(drop=True)


def _spread(weights: csr_array, n: int) -> float:
    """Standard deviation of Moran's I of normal values, by the weights (Cliff and Ord 1981)."""
    total = weights.sum()
    if n < 3 or total == 0:
        return float("nan")
    both = weights + weights.T
    s1 = 0.5 * float((both.multiply(both)).sum())
    degree = np.asarray(weights.sum(axis=0)).ravel() + np.asarray(weights.sum(axis=1)).ravel()
    s2 = float((degree**2).sum())
    variance = (n**2 * s1 - n * s2 + 3 * total**2) / ((n**2 - 1) * total**2) - 1 / (n - 1) ** 2
    return float(np.sqrt(max(variance, 1e-300)))

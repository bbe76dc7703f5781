"""Which genes an export holds, and their values block by block."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from napari_he2st.core.errors import GeneError
from napari_he2st.data.truth.genes import match_genes

if TYPE_CHECKING:
    from anndata import AnnData


def columns_of(adata: AnnData, genes: str | list[str]) -> NDArray[np.intp]:
    """Columns of genes that are given as a list or separated by commas, by symbol or Ensembl identifier.

    Raises
    ------
    GeneError
        One is not in the data.
    """
    wanted = genes.split(",") if isinstance(genes, str) else genes
    match = match_genes([gene.strip() for gene in wanted], adata)
    if match.missing:
        raise GeneError(f"There is no gene {', '.join(match.missing)}", todo="Check the spelling")
    return np.asarray(match.found, dtype=np.intp)


def variance_of(adata: AnnData) -> NDArray[np.float64]:
    """Variance of each gene over the spots where it is known; 0 where it is nowhere."""
    X = adata.X
    if hasattr(X, "power"):
        mean = np.asarray(X.mean(axis=0)).ravel()
        spread = np.asarray(X.power(2).mean(axis=0)).ravel() - mean**2
    else:
        known = np.isfinite(X)
        n = np.maximum(known.sum(axis=0), 1)
        filled = np.where(known, X, 0)
        spread = (filled**2).sum(axis=0) / n - (filled.sum(axis=0) / n) ** 2
    return np.nan_to_num(np.asarray(spread, dtype=np.float64))


def block_of(adata: AnnData, rows: slice, columns: NDArray[np.intp]) -> NDArray[np.float32]:
    """Values of some spots and genes, float32 (spots, genes)."""
    X = adata.X[rows]
    X = X.toarray() if hasattr(X, "toarray") else np.asarray(X)
    return np.asarray(X[:, columns], dtype=np.float32)

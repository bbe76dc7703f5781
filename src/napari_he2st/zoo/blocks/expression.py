"""From counts to what methods that learn on one section take in."""

from __future__ import annotations

from functools import reduce
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from napari_he2st.core.errors import ModelError

if TYPE_CHECKING:
    from anndata import AnnData


def most_variable(counts: Any, n: int) -> NDArray[np.intp]:
    """Columns of the ``n`` genes whose counts vary most beyond what their mean explains, in their order.

    As in Seurat v3, with a quadratic fit of log variance on log mean in place of a local one: variance of the
    standardised counts, clipped at √spots.
    """
    dense = _dense(counts)
    mean, variance = dense.mean(0, dtype=np.float64), dense.var(0, dtype=np.float64, ddof=1)
    varies = np.flatnonzero((variance > 0) & (mean > 0))
    if len(varies) <= n:
        return varies
    x, y = np.log10(mean[varies]), np.log10(variance[varies])
    spread = 10 ** (np.polyval(np.polyfit(x, y, 2), x) / 2)
    standard = np.minimum((dense[:, varies] - mean[varies]) / spread, np.sqrt(len(dense)))
    score = (standard**2).sum(0) / (len(dense) - 1)
    return np.sort(varies[np.argsort(-score, kind="stable")[:n]])


def normalised(counts: Any, to: float | Literal["median"] = 1e4, *, log: bool = True) -> NDArray[np.float32]:
    """Counts of each spot scaled to a total of ``to``, then log1p; dense float32."""
    dense = _dense(counts)
    totals = dense.sum(1, keepdims=True, dtype=np.float64)
    positive = totals[totals > 0]
    target = (float(np.median(positive)) if len(positive) else 1.0) if to == "median" else float(to)
    dense = dense * (target / np.where(totals > 0, totals, 1.0)).astype(np.float32)
    return np.log1p(dense) if log else dense


def scaled(values: NDArray[np.float32], *, centre: bool = True, limit: float | None = 10.0) -> NDArray[np.float32]:
    """Genes divided by their standard deviation, and cut at ``limit``; a constant gene stays as it is."""
    std = values.std(0, ddof=1, dtype=np.float64)
    shift = values.mean(0, dtype=np.float64) if centre else 0.0
    result = ((values - shift) / np.where(std > 0, std, 1.0)).astype(np.float32)
    return result if limit is None else np.clip(result, -limit, limit)


def components(values: NDArray[np.float32], n: int, seed: int = 0) -> NDArray[np.float32]:
    """The leading principal components, float32 (spots, at most n)."""
    from sklearn.decomposition import PCA

    n = min(n, len(values) - 1, values.shape[1])
    return PCA(n, random_state=seed).fit_transform(values).astype(np.float32)


def panel(adata: AnnData, n_genes: int, *, limit: float | None = 10.0) -> NDArray[np.float32]:
    """The most variable genes, log-normalised and divided by their standard deviation: float32 (spots, n_genes)."""
    chosen = most_variable(adata.X, n_genes)
    return scaled(normalised(adata.X)[:, chosen], centre=False, limit=limit)


def shared_panel(adata: AnnData, n_genes: int) -> NDArray[np.float32]:
    """Genes that are among the most variable ones of every section in ``obs["section"]``, log-normalised.

    Raises
    ------
    ModelError
        No gene is.
    """
    codes = adata.obs["section"].cat.codes.to_numpy()
    each = [most_variable(adata.X[codes == code], n_genes) for code in range(codes.max() + 1)]
    chosen = reduce(np.intersect1d, each)
    if not len(chosen):
        raise ModelError(f"No gene is among the {n_genes} most variable of every section", todo="Take more genes")
    return normalised(adata.X)[:, chosen]


def _dense(counts: Any) -> NDArray[np.float32]:
    return np.asarray(counts.toarray() if hasattr(counts, "toarray") else counts, dtype=np.float32)

"""What the domain methods share: spots in a few principal components, and labels in their final order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_he2st.analysis.graphs import nearest
from napari_he2st.analysis.metrics.pairs import blocks
from napari_he2st.analysis.normalise import logged
from napari_he2st.core import keys
from napari_he2st.core.errors import He2stError, SchemaError
from napari_he2st.core.types import Domains

if TYPE_CHECKING:
    from anndata import AnnData


@dataclass(frozen=True)
class Embedding:
    """Spots in principal components.

    Attributes
    ----------
    components
        float32, shape (kept spots, components), by falling variance.
    kept
        Which spots have any value, bool, shape (spots,).
    report
        Numbers for :attr:`Domains.params <napari_he2st.core.types.Domains.params>`: what was used and dropped.
    """

    components: NDArray[np.float32]
    kept: NDArray[np.bool_]
    report: dict[str, int]

    def __len__(self) -> int:
        return len(self.components)


def embed(adata: AnnData, *, genes: int, components: int, smooth: int) -> Embedding:
    """Principal components of log-normalised expression, smoothed over the tissue if asked.

    Spots without any value are left out, then genes that are not known in every spot or do not vary.

    Parameters
    ----------
    adata
        Expression in our schema.
    genes
        Use this many genes, those of highest variance.
    components
        Keep at most this many principal components.
    smooth
        Average each spot's components with those of this many nearest spots; 0 keeps them apart.

    Raises
    ------
    SchemaError
        No gene is left.
    He2stError
        A setting is out of its range.
    """
    check_setting("genes", genes, 1)
    check_setting("components", components, 1)
    check_setting("smooth", smooth, 0)
    X = logged(adata)
    kept = np.zeros(adata.n_obs, dtype=bool)
    for block in blocks(X):
        kept |= np.isfinite(block).any(axis=1)
    with np.errstate(invalid="ignore"):  # a gene with an unknown value has variance NaN: that is the test
        variances = (
            np.concatenate([np.empty(0), *(b[kept].var(axis=0) for b in blocks(X))]) if kept.any() else np.empty(0)
        )
    usable = np.flatnonzero(variances > 1e-12)
    if len(usable) == 0:
        message = f"None of the {adata.n_vars} genes is known in all {int(kept.sum())} spots and varies"
        raise SchemaError(message, todo="Drop spots that are mostly unmeasured, or choose another result")
    chosen = np.sort(usable[np.argsort(-variances[usable], kind="stable")[:genes]])
    found = _principal_components(_columns(X, chosen)[kept], components)
    if smooth > 0:
        near = nearest(np.asarray(adata.obsm[keys.SPATIAL])[kept], smooth)
        total = found.copy()
        for column in near.T:
            total += found[column]
        found = total / (1 + near.shape[1])
    report = {
        "spots_dropped": int((~kept).sum()),
        "genes_used": len(chosen),
        "genes_incomplete": int(np.isnan(variances).sum()),
        "genes_constant": int((variances <= 1e-12).sum()),
    }
    return Embedding(found, kept, report)


def check_setting(name: str, value: float, least: float) -> None:
    """Refuse a setting below ``least``."""
    if not value >= least:
        message = f"The setting {name!r} has to be at least {least}, not {value}"
        raise He2stError(message, todo="Choose a larger value")


def check_request(n_domains: int | None, n_spots: int) -> None:
    """Refuse a number of domains that ``n_spots`` spots cannot have."""
    if n_domains is not None and not 1 <= n_domains <= n_spots:
        message = f"{n_domains} domains cannot be made of {n_spots} spots with expression"
        raise He2stError(message, todo="Ask for at least 1 and at most as many as there are spots")


def domains_of(labels: NDArray[np.intp], embedding: Embedding, params: dict[str, Any]) -> Domains:
    """Domains numbered by falling size; −1 for spots that were left out."""
    every = np.full(len(embedding.kept), -1, dtype=np.intp)
    every[embedding.kept] = by_size(labels)
    components = np.full((len(every), embedding.components.shape[1]), np.nan, dtype=np.float32)
    components[embedding.kept] = embedding.components
    return Domains(every, {**params, "n_domains": int(every.max()) + 1, **embedding.report}, components)


def by_size(labels: NDArray[np.intp]) -> NDArray[np.intp]:
    """Groups numbered by falling size, those of one size by first appearance."""
    _, first, codes, sizes = np.unique(labels, return_index=True, return_inverse=True, return_counts=True)
    rank = np.empty(len(sizes), dtype=np.intp)
    rank[np.lexsort((first, -sizes))] = np.arange(len(sizes))
    return rank[codes]


def _columns(X: Any, chosen: NDArray[np.intp]) -> NDArray[np.float32]:
    part = X[:, chosen]
    return np.array(part.toarray() if hasattr(part, "toarray") else part, dtype=np.float32)


def _principal_components(values: NDArray[np.float32], components: int) -> NDArray[np.float32]:
    """Principal components from the genes' covariance: exact, and one matrix product for any number of spots."""
    values -= values.mean(axis=0, dtype=np.float64).astype(np.float32)
    spread, axes = np.linalg.eigh((values.T @ values).astype(np.float64))
    spread, axes = spread[::-1][:components], axes[:, ::-1][:, :components]
    axes = axes[:, spread > 1e-6 * spread[0]]  # the rest is rounding of a matrix of lower rank
    signs = np.sign(axes[np.abs(axes).argmax(axis=0), np.arange(axes.shape[1])])
    result: NDArray[np.float32] = values @ (axes * signs).astype(np.float32)
    return result

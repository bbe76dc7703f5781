"""Scores of signatures and ratios of genes as maps of a result, which are shown and exported like its genes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from napari_he2st.analysis.signatures import log2_ratio, signature_score
from napari_he2st.analysis.summary import GeneSummary, summarise_genes
from napari_he2st.core.errors import GeneError
from napari_he2st.core.expression import unit_of
from napari_he2st.core.progress import Progress
from napari_he2st.engine.gene_names import find_genes
from napari_he2st.engine.session_items import Derived, Result

if TYPE_CHECKING:
    from anndata import AnnData

MADE_OF = "made_of"
"""``var[MADE_OF]``: how a map that is no gene was made."""

_MOST_BYTES = 2 * 2**30


def score(
    result: Result,
    genes: Sequence[str],
    *,
    summary: GeneSummary | None = None,
    source: str = "",
    control: Progress | None = None,
) -> Derived:
    """The score of a signature, see :func:`~napari_he2st.analysis.signatures.signature_score`.

    Parameters
    ----------
    result
        Whose genes are scored.
    genes
        Symbols, identifiers or everyday names; those that the result lacks are left out.
    summary
        Means of its genes where they are known already.
    source
        Where the set comes from.
    control
        Progress and cancel.

    Raises
    ------
    GeneError
        The result has none of the genes.
    """
    found, missing = find_genes(genes, result)
    if not found:
        raise GeneError(f"None of the {len(genes)} genes is in {result.title}", todo="Choose another signature")
    place = {gene: column for column, gene in enumerate(result.genes)}
    columns = np.asarray([place[gene] for gene in found], dtype=np.intp)
    mean = (summary or summarise_genes(result.values, control=control)).mean
    values = signature_score(result.values, columns, mean, control=control)
    said = f"Mean of {', '.join(found)} minus that of control genes"
    said += f"; not in the panel: {', '.join(missing)}" if missing else ""
    said += f"; set: {source}" if source else ""
    return Derived(values, f"{unit_of(result.scale)} score", said)


def ratio(result: Result, above: str, below: str) -> Derived:
    """log2 of the ratio of two genes of a result, with 1 added to both in linear units.

    Raises
    ------
    GeneError
        A gene is not in the result.
    SchemaError
        Its scale has no ratios.
    """
    found = [find_genes([name], result)[0] for name in (above, below)]
    for name, symbols in zip((above, below), found, strict=True):
        if not symbols:
            raise GeneError(f"{name or 'The empty name'} is no gene of {result.title}", todo="Choose one of its genes")
    (a,), (b,) = found
    values = log2_ratio(result.column(a), result.column(b), result.scale)
    return Derived(
        values, "log2 ratio", f"log2(({a} + 1) / ({b} + 1)), before the logarithm of {unit_of(result.scale)}"
    )


def with_derived(adata: AnnData, derived: Mapping[str, Derived]) -> AnnData:
    """Expression with its derived maps as further columns, and as columns of ``obs`` where it is too large to copy.

    ``var["made_of"]`` says how each was made, and is empty for genes. Layers are unknown there.
    """
    import pandas as pd
    from anndata import AnnData
    from scipy.sparse import csr_matrix, hstack, issparse

    if not derived:
        return adata
    if adata.isbacked or 4 * adata.n_obs * adata.n_vars > _MOST_BYTES:
        wide = AnnData(adata.X, obs=adata.obs.copy(), var=adata.var, uns=adata.uns, obsm=dict(adata.obsm))
        for label, found in derived.items():
            wide.obs[label] = found.values
        return wide
    columns = np.stack([found.values for found in derived.values()], axis=1)

    def joined(X: object, further: np.ndarray) -> object:
        return hstack([X, csr_matrix(further)], format="csr") if issparse(X) else np.hstack([np.asarray(X), further])

    further = pd.DataFrame({MADE_OF: [found.made_of for found in derived.values()]}, index=list(derived))
    var = pd.concat([adata.var.assign(**{MADE_OF: ""}), further])
    for column in var.columns:
        if var[column].dtype == object:
            var[column] = var[column].fillna("")
    unknown = np.full(columns.shape, np.nan, dtype=np.float32)
    layers = {name: joined(layer, unknown) for name, layer in adata.layers.items()}
    obsm, obsp = dict(adata.obsm), dict(adata.obsp)
    return AnnData(joined(adata.X, columns), obs=adata.obs, var=var, uns=adata.uns, obsm=obsm, obsp=obsp, layers=layers)

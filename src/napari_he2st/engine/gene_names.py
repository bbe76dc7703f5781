"""By which names the genes of a result are found: symbol, Ensembl identifier, everyday name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_he2st.core import keys
from napari_he2st.core.errors import GeneError
from napari_he2st.data.truth.gene_lists import aliases, symbol_of_alias
from napari_he2st.data.truth.genes import match_genes

if TYPE_CHECKING:
    import pandas as pd

    from napari_he2st.engine.session_items import Result


def variables(result: Result) -> pd.DataFrame:
    """Genes of a result as the ``var`` of an AnnData: symbols as index, column ``ensembl`` where it is known."""
    import pandas as pd

    var = pd.DataFrame(index=pd.Index(result.genes, dtype=object))
    if result.adata is not None and keys.ENSEMBL in result.adata.var:
        var[keys.ENSEMBL] = result.adata.var[keys.ENSEMBL].astype(object).reindex(result.genes).fillna("")
    elif result.bundle is not None and result.bundle.manifest.ensembl:
        known = dict(zip(result.bundle.genes, result.bundle.manifest.ensembl, strict=True))
        var[keys.ENSEMBL] = [known.get(gene) or "" for gene in result.genes]
    return var


def also_called(result: Result) -> NDArray[Any]:
    """Other names of each gene, text, shape (genes,), separated by spaces."""
    var, everyday = variables(result), aliases()
    identifiers = var[keys.ENSEMBL] if keys.ENSEMBL in var else [""] * len(var)
    names = (
        " ".join((str(identifier), *everyday.get(gene.upper(), ())))
        for gene, identifier in zip(result.genes, identifiers, strict=True)
    )
    return np.asarray(list(names), dtype=str)


def find_genes(names: Sequence[str], result: Result) -> tuple[list[str], list[str]]:
    """Symbols of a result that a list of names means, and the names that mean none.

    A name is a symbol, an Ensembl identifier (versions do not matter), a symbol in other letter case, or an everyday
    name such as HER2, in this order.
    """
    known = {gene.upper() for gene in result.genes}
    meant = [name if name.upper() in known else symbol_of_alias().get(name.upper(), name) for name in names]
    try:
        match = match_genes(meant, variables(result))
    except GeneError:
        return [], list(names)
    missing = [name for name, how in zip(names, match.how, strict=True) if how == "missing"]
    return [result.genes[column] for column in match.found], missing

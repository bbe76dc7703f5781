"""Bringing expression to one scale."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from napari_he2st.core import keys
from napari_he2st.core.errors import SchemaError
from napari_he2st.core.expression import COUNTS_SCALE, LOG1P_CP10K, log1p_cp10k
from napari_he2st.core.schema import facts_of

if TYPE_CHECKING:
    from anndata import AnnData

__all__ = ["log1p_cp10k", "logged", "to_log1p_cp10k"]


def to_log1p_cp10k(adata: AnnData) -> AnnData:
    """A copy of measured expression whose ``X`` is log1p of counts per 10,000.

    Raises
    ------
    SchemaError
        There are no raw counts to start from.
    """
    facts = facts_of(adata)
    if facts["scale"] == LOG1P_CP10K:
        return adata.copy()
    if keys.COUNTS in adata.layers:
        counts = adata.layers[keys.COUNTS]
    elif facts["scale"] == COUNTS_SCALE:
        counts = adata.X
    else:
        message = f"Expression in scale {facts['scale']!r} comes without raw counts"
        raise SchemaError(message, where=f"layers[{keys.COUNTS!r}]", todo="Read the section from its original files")
    result = adata.copy()
    result.X = log1p_cp10k(counts)
    if keys.COUNTS not in result.layers:
        result.layers[keys.COUNTS] = counts.copy()
    result.uns[keys.UNS] = {**facts, "scale": LOG1P_CP10K}
    return result


def logged(adata: AnnData) -> Any:
    """``X``, log-normalised first where the provenance says that it holds counts; spots × genes."""
    return log1p_cp10k(adata.X) if facts_of(adata)["scale"] == COUNTS_SCALE else adata.X

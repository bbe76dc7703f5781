"""Tables for spreadsheets, R and everything else."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from napari_he2st.core import geometry, keys
from napari_he2st.core.schema import facts_of
from napari_he2st.data.export.columns import block_of, columns_of
from napari_he2st.data.export.registry import exporter

if TYPE_CHECKING:
    from collections.abc import Iterable

    from anndata import AnnData

    from napari_he2st.data.slides import Slide

_ROWS = 4096


@exporter("csv", "Table of spots × genes with positions in pixels and µm", suffix=".csv")
def write_csv(adata: AnnData, path: Path, slide: Slide | None, *, genes: str | list[str] | None = None) -> None:
    """Write a row per spot: name, kind, position, label and domain where known, then a column per gene.

    Parameters
    ----------
    adata, path, slide
        See :func:`~napari_he2st.data.export.registry.exporter`; the slide is not used.
    genes
        Symbols or Ensembl identifiers to write, as a list or separated by commas; by default all.

    Raises
    ------
    GeneError
        A gene is not in the data.
    """
    import pandas as pd
    import pyarrow as pa
    from pyarrow import csv as pa_csv

    facts = facts_of(adata)
    columns = np.arange(adata.n_vars) if genes is None else columns_of(adata, genes)
    xy_px = np.asarray(adata.obsm[keys.SPATIAL], dtype=np.float64)
    xy_um = geometry.um_from_px(xy_px, facts["mpp"])
    kind = "measured" if facts["kind"] == "measured" else "predicted (research use only)"
    table = pd.DataFrame({"spot": inert(adata.obs_names), "kind": kind})
    for name, values in zip(("x_px", "y_px", "x_um", "y_um"), (*xy_px.T, *xy_um.T), strict=True):
        table[name] = values
    for name in (keys.LABEL, keys.DOMAIN):
        if name in adata.obs:
            table[name] = inert(adata.obs[name].astype(object).fillna(""))
    header = inert(adata.var_names[columns])

    def block(start: int) -> pa.Table:
        X = block_of(adata, slice(start, start + _ROWS), columns)
        spots = table[start : start + _ROWS].reset_index(drop=True)
        rows = pd.concat([spots, pd.DataFrame(X, columns=header)], axis=1)
        return pa.Table.from_pandas(rows, preserve_index=False)

    first = block(0)
    with pa_csv.CSVWriter(path, first.schema) as writer:  # ten times as fast as pandas
        writer.write(first)
        for start in range(_ROWS, adata.n_obs, _ROWS):
            writer.write(block(start))


def inert(texts: Iterable[str]) -> list[str]:
    """Cells that no spreadsheet takes for a formula: those that start like one get an apostrophe."""
    return [f"'{text}" if str(text)[:1] in ("=", "+", "-", "@", "\t", "\r") else str(text) for text in texts]

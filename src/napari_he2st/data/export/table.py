"""Tables for spreadsheets, R and everything else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from napari_he2st.core import geometry, keys
from napari_he2st.core.schema import facts_of
from napari_he2st.data.export.columns import block_of, columns_of
from napari_he2st.data.export.registry import exporter

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    import pyarrow as pa
    from anndata import AnnData

    from napari_he2st.data.slides import Slide

_ROWS = 4096


@exporter("csv", "Table of spots × genes with positions in pixels and µm", suffix=".csv")
def write_csv(adata: AnnData, path: Path, slide: Slide | None, *, genes: str | list[str] | None = None) -> None:
    """Write a row per spot: name, kind, position, label and domain where known, then a column per gene.

    What a spreadsheet would take for a formula gets an apostrophe before it.

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
    from pyarrow import csv

    blocks = _blocks(adata, genes, inert)
    first = next(blocks)
    with csv.CSVWriter(path, first.schema) as writer:  # ten times as fast as pandas
        writer.write(first)
        for block in blocks:
            writer.write(block)


@exporter("parquet", "The table of csv in Parquet, for pandas, polars, R and Spark", suffix=".parquet")
def write_parquet(adata: AnnData, path: Path, slide: Slide | None, *, genes: str | list[str] | None = None) -> None:
    """Write the table of the csv format; values stay float32, and the provenance is in the file's metadata.

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
    from pyarrow import parquet

    blocks = _blocks(adata, genes, lambda texts: [str(text) for text in texts])
    first = next(blocks)
    note = json.dumps(facts_of(adata), default=lambda value: value.tolist() if hasattr(value, "tolist") else str(value))
    schema = first.schema.with_metadata({**(first.schema.metadata or {}), keys.UNS: note})
    with parquet.ParquetWriter(path, schema) as writer:
        writer.write_table(first.replace_schema_metadata(schema.metadata))
        for block in blocks:
            writer.write_table(block.replace_schema_metadata(schema.metadata))


def _blocks(
    adata: AnnData, genes: str | list[str] | None, plain: Callable[[Iterable[str]], list[str]]
) -> Iterator[pa.Table]:
    """The table, some thousand spots at a time; ``plain`` makes texts fit for the format."""
    import pandas as pd
    import pyarrow as pa

    facts = facts_of(adata)
    columns = np.arange(adata.n_vars) if genes is None else columns_of(adata, genes)
    xy_px = np.asarray(adata.obsm[keys.SPATIAL], dtype=np.float64)
    xy_um = geometry.um_from_px(xy_px, facts["mpp"])
    kind = "measured" if facts["kind"] == "measured" else "predicted (research use only)"
    table = pd.DataFrame({"spot": plain(adata.obs_names), "kind": kind})
    for name, values in zip(("x_px", "y_px", "x_um", "y_um"), (*xy_px.T, *xy_um.T), strict=True):
        table[name] = values
    for name in (keys.LABEL, keys.DOMAIN):
        if name in adata.obs:
            table[name] = plain(adata.obs[name].astype(object).fillna(""))
    header = plain(adata.var_names[columns])
    for start in range(0, max(adata.n_obs, 1), _ROWS):
        X = block_of(adata, slice(start, start + _ROWS), columns)
        spots = table[start : start + _ROWS].reset_index(drop=True)
        rows = pd.concat([spots, pd.DataFrame(X, columns=header)], axis=1)
        yield pa.Table.from_pandas(rows, preserve_index=False)


def inert(texts: Iterable[str]) -> list[str]:
    """Cells that no spreadsheet takes for a formula: those that start like one get an apostrophe."""
    return [f"'{text}" if str(text)[:1] in ("=", "+", "-", "@", "\t", "\r") else str(text) for text in texts]

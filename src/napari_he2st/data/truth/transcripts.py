"""Counts and positions of cells from a table of single transcripts, for folders that hold nothing else."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_he2st.core.errors import TruthError
from napari_he2st.data.truth.assemble import check_counts
from napari_he2st.data.truth.cells import Cells
from napari_he2st.data.truth.tables import floats
from napari_he2st.data.truth.tenx import FeatureMatrix

if TYPE_CHECKING:
    from pandas import DataFrame


@dataclass(frozen=True)
class Columns:
    """Names of the columns of a transcript table."""

    cell: str
    gene: str
    x: str
    y: str


def count_transcripts(
    chunks: Iterator[DataFrame], columns: Columns, keep: Callable[[DataFrame], Any], where: Path
) -> tuple[FeatureMatrix, Cells]:
    """Sum up transcripts by cell and gene; a cell lies at the mean of its transcripts.

    Parameters
    ----------
    chunks
        Pieces of the table, see :func:`~napari_he2st.data.truth.tables.table_chunks`.
    columns
        Which columns tell cell, gene and position (in any unit: that of the positions returned).
    keep
        Mask of the rows that count: of good quality and in a cell.
    where
        The table, for messages.

    Raises
    ------
    TruthError
        No transcript lies in a cell, or a position is not a number.
    """
    from scipy.sparse import csr_matrix

    cells: dict[str, int] = {}
    genes: dict[str, int] = {}
    sums = np.zeros((0, 3))
    counts, n_rows, n_kept = None, 0, 0
    for chunk in chunks:
        n_rows += len(chunk)
        rows = chunk[np.asarray(keep(chunk), dtype=bool)]
        n_kept += len(rows)
        at = _numbered(rows[columns.cell], cells)
        gene = _numbered(rows[columns.gene], genes)
        try:
            xy = [floats(rows[name]) for name in (columns.x, columns.y)]
        except ValueError as error:
            raise TruthError(f"A position is {error}, which is not a number", where=where) from error
        if not all(np.isfinite(values).all() for values in xy):
            raise TruthError("A transcript has no position", where=where)
        sums = np.concatenate([sums, np.zeros((len(cells) - len(sums), 3))])
        for column, values in enumerate((*xy, np.ones(len(rows)))):
            sums[:, column] += np.bincount(at, weights=values, minlength=len(cells))
        block = csr_matrix((np.ones(len(rows), dtype=np.float32), (at, gene)), shape=(len(cells), len(genes)))
        if counts is not None:
            counts.resize(block.shape)
        counts = block if counts is None else counts + block
    if counts is None or not cells:
        raise TruthError("No transcript lies in a cell", where=where)
    check_counts(counts, where)
    notes = [f"{n_rows - n_kept:,} of {n_rows:,} transcripts left out (quality, controls, outside cells)"]
    names = list(cells)
    return FeatureMatrix(counts, names, list(genes), None, notes, names), Cells(names, sums[:, :2] / sums[:, 2:])


def _numbered(values: Any, known: dict[str, int]) -> Any:
    """Number of each value; new ones are added to ``known``."""
    import pandas as pd

    codes, names = pd.factorize(values.astype(str))
    numbers = np.array([known.setdefault(name, len(known)) for name in names], dtype=np.intp)
    return numbers[codes] if len(names) else codes

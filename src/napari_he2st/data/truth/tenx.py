"""Feature-barcode matrices of 10x Genomics, as HDF5 or as a Matrix Market folder."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from numpy.typing import NDArray

from napari_he2st.core.errors import TruthError
from napari_he2st.data.truth.assemble import check_counts, check_unique
from napari_he2st.data.truth.genes import without_version
from napari_he2st.data.truth.tables import MAX_BYTES, decode, read_bytes

GENES = "Gene Expression"
"""Feature type of genes; antibodies and other features are left out."""


_BLOCK = 1 << 24
"""Entries of a matrix that are read at once."""

_BYTES_PER_ENTRY = 24
"""Of a finished section: counts and normalised values, each with its column, and what is in between."""


@dataclass(frozen=True)
class FeatureMatrix:
    """Checked raw counts with their names.

    Attributes
    ----------
    counts
        CSR, barcodes × genes.
    barcodes, symbols, ids
        Names of rows and columns; ``ids`` are the vendor's gene identifiers, or None where there are none.
    notes
        What was left out, in words.
    all_barcodes
        Names of all rows of the file, also of those that were not wanted.
    """

    counts: Any
    barcodes: list[str]
    symbols: list[str]
    ids: list[str] | None
    notes: list[str]
    all_barcodes: list[str]


@dataclass(frozen=True)
class _Raw:
    """Names in a matrix file, and how its counts are read.

    ``read`` gets the wanted columns, and the wanted rows as a mask or None for all; it returns CSR.
    """

    barcodes: list[str]
    symbols: list[str]
    ids: list[str]
    types: list[str]
    read: Callable[[NDArray[np.intp], NDArray[np.bool_] | None], Any]


def read_feature_matrix(
    path: Path, *, genes: Collection[str] | None = None, barcodes: Any = None, keep: Collection[str] = (GENES,)
) -> FeatureMatrix:
    """Read ``*_feature_bc_matrix.h5``, or a folder with ``matrix.mtx``, ``barcodes.tsv`` and ``features.tsv``.

    HDF5 files are read in blocks, so that what is not wanted never fills the memory.

    Parameters
    ----------
    path
        The file, the folder, or a ``…matrix.mtx`` whose neighbours have the same prefix.
    genes
        Symbols or identifiers of the only genes to read; None reads all.
    barcodes
        pandas Index of the only barcodes to read; None reads all.
    keep
        Feature types that are genes.

    Raises
    ------
    TruthError
        A part is missing or damaged, parts do not fit together, the counts are not raw counts, or they would
        not fit into the memory.
    """
    raw = _read_folder(path) if path.is_dir() or ".mtx" in path.suffixes else _read_h5(path)
    check_unique(raw.barcodes, "barcodes", path)
    columns = np.flatnonzero(np.isin(np.asarray(raw.types, dtype=object), list(keep)))
    notes = []
    if len(columns) < len(raw.types):
        notes.append(f"{len(raw.types) - len(columns)} features that are not genes left out")
    if genes is not None:
        wanted = set(genes)
        named = (raw.symbols[i] in wanted or (without_version(raw.ids[i]) or raw.ids[i]) in wanted for i in columns)
        columns = columns[np.fromiter(named, dtype=bool, count=len(columns))]
        notes.append(f"only {len(columns)} of the genes read, as asked")
    rows = None if barcodes is None else _rows_wanted(raw.barcodes, barcodes)
    counts = raw.read(columns, rows)
    names = raw.barcodes if rows is None else [raw.barcodes[i] for i in np.flatnonzero(rows)]
    check_counts(counts, path)
    symbols, ids = [raw.symbols[i] for i in columns], [raw.ids[i] for i in columns]
    return FeatureMatrix(counts, names, symbols, ids, notes, raw.barcodes)


def _rows_wanted(names: list[str], wanted: Any) -> NDArray[np.bool_] | None:
    """Mask of the wanted rows; None where there are none, so that the caller says why they do not fit."""
    import pandas as pd

    rows = np.asarray(pd.Index(names, dtype=object).isin(wanted))
    return rows if rows.any() and not rows.all() else None


def check_memory(entries: int, where: Path) -> None:
    """Refuse counts that would not fit into the free memory.

    Raises
    ------
    TruthError
        Says how much is needed and free.
    """
    needed, free = entries * _BYTES_PER_ENTRY, psutil.virtual_memory().available
    if needed > free:
        message = f"{entries:,} counts need about {needed / 1024**3:.0f} GiB, and {free / 1024**3:.0f} GiB are free"
        raise TruthError(message, where=where, todo="Read larger bins, or name the genes you need")


def mex_parts(path: Path) -> dict[str, Path]:
    """Files of a Matrix Market folder by kind (``matrix``, ``barcodes``, ``features``), as far as they are there.

    Space Ranger gzips them; some archives unpack them or put a prefix before the names, which is that of ``path``
    where this is the matrix itself. Before 2018 features were called genes.
    """
    folder, prefix = (path, "*") if path.is_dir() else (path.parent, _glob_safe(path.name.partition("matrix.mtx")[0]))
    parts = {}
    names = {"matrix": ("matrix.mtx",), "barcodes": ("barcodes.tsv",), "features": ("features.tsv", "genes.tsv")}
    for kind, endings in names.items():
        files = [file for end in endings for gz in ("", ".gz") for file in sorted(folder.glob(f"{prefix}{end}{gz}"))]
        if files:
            parts[kind] = files[0]
    return parts


def _glob_safe(text: str) -> str:
    return re.sub(r"([*?\[])", r"[\1]", text)


def _read_folder(folder: Path) -> _Raw:
    from scipy.io import mminfo, mmread
    from scipy.sparse import csr_matrix

    parts = mex_parts(folder)
    lacking = [kind for kind in ("matrix", "barcodes", "features") if kind not in parts]
    if lacking:
        raise TruthError(f"The matrix folder lacks {' and '.join(lacking)}", where=folder)
    barcodes = [row[0] for row in _rows(parts["barcodes"])]
    features = _rows(parts["features"])
    if min(map(len, features)) < 2:
        raise TruthError("A feature has no name", where=parts["features"], todo="Cells have to be separated by tabs")

    def read(columns: NDArray[np.intp], rows: NDArray[np.bool_] | None) -> Any:
        data = read_bytes(parts["matrix"])
        try:
            n_rows, n_columns, entries, *_ = mminfo(io.BytesIO(data))
            if (n_rows, n_columns) != (len(features), len(barcodes)) or entries > len(data):
                message = f"The matrix is declared as {n_rows} × {n_columns} with {entries} entries, but there are "
                message += f"{len(features)} features and {len(barcodes)} barcodes"
                raise TruthError(message, where=parts["matrix"])
            matrix = csr_matrix(mmread(io.BytesIO(data)).T)
        except (ValueError, TypeError, OverflowError) as error:
            raise TruthError(f"The matrix is damaged ({error})", where=parts["matrix"]) from error
        matrix = matrix if rows is None else matrix[np.flatnonzero(rows)]
        return matrix[:, columns]

    types = [row[2] if len(row) > 2 else GENES for row in features]
    return _Raw(barcodes, [row[1] for row in features], [row[0] for row in features], types, read)


def _rows(path: Path) -> list[list[str]]:
    return [line.split("\t") for line in decode(read_bytes(path), path).splitlines() if line]


def _read_h5(path: Path) -> _Raw:
    import h5py

    def texts(group: Any, name: str) -> list[str]:
        return [item.decode() if isinstance(item, bytes) else str(item) for item in _array(group[name], path)]

    try:
        with h5py.File(path, "r") as file:
            matrix = file["matrix"]
            features = matrix["features"]
            symbols, ids, types = (texts(features, name) for name in ("name", "id", "feature_type"))
            barcodes = texts(matrix, "barcodes")
            shape = tuple(int(n) for n in _array(matrix["shape"], path))
    except KeyError as error:
        raise TruthError(f"The file is no feature-barcode matrix ({error.args[0]})", where=path) from error
    except (OSError, ValueError, TypeError, AttributeError, RuntimeError) as error:
        raise TruthError(f"The file is damaged ({error})", where=path, todo="Download or copy it again") from error
    if shape != (len(symbols), len(barcodes)) or not len(symbols) == len(ids) == len(types):
        message = f"The matrix is {' × '.join(map(str, shape))}, with {len(symbols)} features and "
        raise TruthError(f"{message}{len(barcodes)} barcodes", where=path, todo="Take all parts from one run")

    def read(columns: NDArray[np.intp], rows: NDArray[np.bool_] | None) -> Any:
        try:
            with h5py.File(path, "r") as file:
                return _stream(file["matrix"], columns, rows, shape, path)
        except (OSError, KeyError, ValueError, TypeError, AttributeError, RuntimeError) as error:
            raise TruthError(f"The file is damaged ({error})", where=path, todo="Download or copy it again") from error

    return _Raw(barcodes, symbols, ids, types, read)


def _array(dataset: Any, path: Path) -> Any:
    """A whole dataset; the declared size can exceed the file's own by far."""
    if dataset.nbytes > MAX_BYTES:
        raise TruthError(f"{dataset.name} is declared with {dataset.nbytes / 1024**3:.0f} GiB", where=path)
    return dataset[()]


def _stream(
    matrix: Any, columns: NDArray[np.intp], rows: NDArray[np.bool_] | None, shape: tuple[int, ...], path: Path
) -> Any:
    """CSR (barcodes × chosen features) of a matrix stored by barcode, read in blocks of barcodes."""
    from scipy.sparse import csr_matrix, vstack

    data, indices, pointers = matrix["data"], matrix["indices"], _array(matrix["indptr"], path).astype(np.int64)
    n_features, n_barcodes = shape
    sizes = np.diff(pointers)
    whole = len(pointers) == n_barcodes + 1 and pointers[0] == 0 and pointers[-1] == len(data) == len(indices)
    if not whole or (sizes < 0).any() or (sizes > n_features).any():
        raise TruthError("The matrix is incomplete", where=path, todo="Download or copy it again")
    if len(columns) == n_features:
        check_memory(int(sizes.sum() if rows is None else sizes[rows].sum()), path)
    blocks, start = [], 0
    while start < n_barcodes:
        stop = max(start + 1, int(np.searchsorted(pointers, pointers[start] + _BLOCK, side="right")) - 1)
        at = slice(int(pointers[start]), int(pointers[stop]))
        parts = (data[at], indices[at], pointers[start : stop + 1] - pointers[start])
        block = csr_matrix(parts, shape=(stop - start, n_features))
        block.check_format(full_check=True)
        if rows is not None:
            block = block[np.flatnonzero(rows[start:stop])]
        blocks.append(block if len(columns) == n_features else block[:, columns])
        start = stop
    return blocks[0] if len(blocks) == 1 else vstack(blocks, format="csr")

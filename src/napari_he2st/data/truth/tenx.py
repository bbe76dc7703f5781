"""Feature-barcode matrices of 10x Genomics, as HDF5 or as a Matrix Market folder."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from napari_he2st.core.errors import TruthError
from napari_he2st.data.truth.assemble import check_counts, check_unique
from napari_he2st.data.truth.tables import MAX_BYTES, decode, read_bytes

GENES = "Gene Expression"
"""Feature type of genes; antibodies and other features are left out."""


@dataclass(frozen=True)
class FeatureMatrix:
    """Checked raw counts with their names.

    Attributes
    ----------
    counts
        CSR, barcodes × genes.
    barcodes, symbols, ids
        Names of rows and columns; ``ids`` are the vendor's gene identifiers.
    notes
        What was left out, in words.
    """

    counts: Any
    barcodes: list[str]
    symbols: list[str]
    ids: list[str]
    notes: list[str]


def read_feature_matrix(path: Path) -> FeatureMatrix:
    """Read ``*_feature_bc_matrix.h5``, or a folder with ``matrix.mtx``, ``barcodes.tsv`` and ``features.tsv``.

    Raises
    ------
    TruthError
        A part is missing or damaged, parts do not fit together, or the counts are not raw counts.
    """
    from scipy.sparse import csr_matrix

    counts, barcodes, symbols, ids, types = _read_folder(path) if path.is_dir() else _read_h5(path)
    if counts.shape != (len(barcodes), len(symbols)):
        message = f"The matrix is {counts.shape[1]} × {counts.shape[0]}, with {len(symbols)} features and "
        raise TruthError(f"{message}{len(barcodes)} barcodes", where=path, todo="Take all parts from one run")
    check_unique(barcodes, "barcodes", path)
    genes = np.flatnonzero(np.asarray(types) == GENES)
    notes = []
    if len(genes) < len(types):
        notes.append(f"{len(types) - len(genes)} features that are not genes left out")
        counts = counts[:, genes]
    counts = csr_matrix(counts)
    check_counts(counts, path)
    return FeatureMatrix(counts, barcodes, [symbols[i] for i in genes], [ids[i] for i in genes], notes)


def mex_parts(folder: Path) -> dict[str, Path]:
    """Files of a Matrix Market folder by kind (``matrix``, ``barcodes``, ``features``), as far as they are there.

    Space Ranger gzips them; some archives unpack them or put a prefix before the names.
    """
    parts = {}
    for kind, name in (("matrix", "matrix.mtx"), ("barcodes", "barcodes.tsv"), ("features", "features.tsv")):
        files = sorted([*folder.glob(f"*{name}"), *folder.glob(f"*{name}.gz")])
        if files:
            parts[kind] = files[0]
    return parts


def _read_folder(folder: Path) -> tuple[Any, list[str], list[str], list[str], list[str]]:
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
    data = read_bytes(parts["matrix"])
    try:
        rows, columns, entries, *_ = mminfo(io.BytesIO(data))
        if (rows, columns) != (len(features), len(barcodes)) or entries > len(data):
            message = f"The matrix is declared as {rows} × {columns} with {entries} entries, but there are "
            raise TruthError(f"{message}{len(features)} features and {len(barcodes)} barcodes", where=parts["matrix"])
        matrix = csr_matrix(mmread(io.BytesIO(data)).T)
    except (ValueError, TypeError, OverflowError) as error:
        raise TruthError(f"The matrix is damaged ({error})", where=parts["matrix"]) from error
    types = [row[2] if len(row) > 2 else GENES for row in features]
    return matrix, barcodes, [row[1] for row in features], [row[0] for row in features], types


def _rows(path: Path) -> list[list[str]]:
    return [line.split("\t") for line in decode(read_bytes(path), path).splitlines() if line]


def _read_h5(path: Path) -> tuple[Any, list[str], list[str], list[str], list[str]]:
    import h5py
    from scipy.sparse import csr_matrix

    def array(group: Any, name: str) -> Any:
        dataset = group[name]
        if dataset.nbytes > MAX_BYTES:  # the declared size can exceed the file's own by far
            raise TruthError(f"{name} is declared with {dataset.nbytes / 1024**3:.0f} GiB", where=path)
        return dataset[()]

    def texts(group: Any, name: str) -> list[str]:
        return [item.decode() if isinstance(item, bytes) else str(item) for item in array(group, name)]

    try:
        with h5py.File(path, "r") as file:
            matrix = file["matrix"]
            features = matrix["features"]
            symbols, ids, types = (texts(features, name) for name in ("name", "id", "feature_type"))
            barcodes = texts(matrix, "barcodes")
            shape = tuple(int(n) for n in array(matrix, "shape"))[::-1]
            parts = tuple(array(matrix, name) for name in ("data", "indices", "indptr"))
        if len(shape) != 2 or len(parts[2]) != shape[0] + 1:
            raise TruthError("The matrix is incomplete", where=path, todo="Download or copy it again")
        counts = csr_matrix(parts, shape=shape)
        counts.check_format(full_check=True)
    except KeyError as error:
        raise TruthError(f"The file is no feature-barcode matrix ({error.args[0]})", where=path) from error
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise TruthError(f"The file is damaged ({error})", where=path, todo="Download or copy it again") from error
    return counts, barcodes, symbols, ids, types

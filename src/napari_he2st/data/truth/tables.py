"""Text tables from untrusted files: every way in which one can be damaged becomes a clear error."""

from __future__ import annotations

import gzip
import io
import zlib
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, cast

import numpy as np
from numpy.typing import NDArray

from napari_he2st.core.errors import TruthError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pandas import DataFrame, Series

MAX_BYTES = 8 * 1024**3
"""Larger tables are refused, also when a small gzip file unpacks to one."""

_BLOCK = 1 << 20
_CHUNK_ROWS = 500_000
_CHUNK_CELLS = 1 << 22  # cells of a table that are parsed at once


def read_bytes(path: Path) -> bytes:
    """Content of a file, unpacked where its name ends in ``.gz``.

    Raises
    ------
    TruthError
        The file cannot be read, is truncated, empty, or larger than :data:`MAX_BYTES`.
    """
    with open_table(path) as stream:
        data = b"".join(iter(lambda: stream.read(_BLOCK), b""))  # reading with the limit at once would allocate it
    if not data.strip():
        raise TruthError("The file is empty", where=path, todo="Download or copy it again")
    return data


@contextmanager
def open_table(path: Path) -> Iterator[BinaryIO]:
    """A file to read in pieces, unpacked where its name ends in ``.gz``; errors of reading become ours.

    Raises
    ------
    TruthError
        The file cannot be read, is truncated, malformed or no text, or unpacks to more than :data:`MAX_BYTES`.
    """
    import pandas as pd

    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as stream:
            yield io.BufferedReader(_Limited(cast("BinaryIO", stream), path))
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise TruthError("The file is truncated or damaged", where=path, todo="Download or copy it again") from error
    except UnicodeDecodeError as error:
        raise TruthError("The file is not UTF-8 text", where=path, todo="Save it as UTF-8") from error
    except (pd.errors.ParserError, pd.errors.EmptyDataError, OverflowError) as error:
        raise TruthError(f"The table is malformed ({error})", where=path) from error
    except OSError as error:
        raise TruthError(f"The file cannot be read ({error.strerror or error})", where=path) from error


class _Limited(io.RawIOBase):
    """A stream that ends with an error after :data:`MAX_BYTES`."""

    def __init__(self, stream: BinaryIO, path: Path) -> None:
        self._stream, self._path, self._left = stream, path, MAX_BYTES

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._stream.read(len(buffer))
        self._left -= len(data)
        if self._left < 0:
            raise TruthError(f"The file unpacks to more than {MAX_BYTES / 1024**3:g} GiB", where=self._path)
        buffer[: len(data)] = data
        return len(data)


def table_chunks(path: Path, columns: Sequence[str], *, optional: Sequence[str] = ()) -> Iterator[DataFrame]:
    """Pieces of a comma-separated or parquet table with these columns, so that it never is in memory as a whole.

    Parameters
    ----------
    path
        ``.csv``, ``.csv.gz`` or ``.parquet``.
    columns, optional
        Columns that have to be there, and columns that are read where they are.

    Raises
    ------
    TruthError
        A column is missing, or the table is damaged.
    """
    import pandas as pd

    if path.suffix == ".parquet":
        yield from _parquet_chunks(path, columns, optional)
        return
    with open_table(path) as stream:
        header = decode(stream.readline(1 << 20), path).strip()
        names = [name.strip().strip('"') for name in header.split(",")]
        wanted = _wanted(names, columns, optional, path)
        text = {name: str for name in wanted if name.lower().endswith(("_id", "id", "gene", "target", "cell"))}
        yield from pd.read_csv(
            stream, names=names, header=None, usecols=wanted, dtype=text, chunksize=_CHUNK_ROWS, index_col=False
        )


def _parquet_chunks(path: Path, columns: Sequence[str], optional: Sequence[str]) -> Iterator[DataFrame]:
    import pandas as pd
    import pyarrow.parquet as pq
    from pyarrow import ArrowException

    try:
        file = pq.ParquetFile(path)
        wanted = _wanted(file.schema_arrow.names, columns, optional, path)
        for batch in file.iter_batches(_CHUNK_ROWS, columns=wanted):
            # Column by column: a whole batch would parse pandas' own notes in the file, which may be damaged.
            frame = pd.DataFrame({name: batch.column(name).to_pandas() for name in wanted})
            for name in frame.select_dtypes("object"):
                frame[name] = [item.decode() if isinstance(item, bytes) else item for item in frame[name]]
            yield frame
    except (OSError, ValueError, ArrowException) as error:
        raise TruthError(f"The table is damaged ({error})", where=path) from error


def _wanted(names: Sequence[str], columns: Sequence[str], optional: Sequence[str], path: Path) -> list[str]:
    lacking = [name for name in columns if name not in names]
    if lacking:
        message = f"Columns {', '.join(lacking)} are missing; there are {', '.join(names[:8])}"
        raise TruthError(message, where=path, todo="Cells have to be separated by commas")
    return [*columns, *(name for name in optional if name in names)]


def count_table(path: Path, keys: Sequence[str] | int) -> tuple[DataFrame, list[str], Any]:
    """Counts of a comma-separated table with a row per cell, read in pieces into a sparse matrix.

    Parameters
    ----------
    path
        ``.csv`` or ``.csv.gz`` with a header.
    keys
        Names of the columns that tell the cell, or how many columns at the front do.

    Returns
    -------
        Table of the key columns as text, names of the other columns, and their values as CSR, float32.

    Raises
    ------
    TruthError
        A key is missing, a cell is not a number, or the table is damaged.
    """
    import pandas as pd
    from scipy.sparse import csr_matrix, vstack

    with open_table(path) as stream:
        header = decode(stream.readline(1 << 26), path).strip()
        names = [name.strip().strip('"') for name in header.split(",")]
        front = names[:keys] if isinstance(keys, int) else list(keys)
        genes = [name for name in names if name not in front]
        if not genes or any(name not in names for name in front):
            message = f"The table has no columns {', '.join(front)} and genes; it starts with {header[:60]!r}"
            raise TruthError(message, where=path, todo="Cells have to be separated by commas")
        if len(set(names)) < len(names):
            twice = sorted({name for name in names if names.count(name) > 1})
            raise TruthError(f"{len(twice)} columns appear more than once, such as {twice[0]}", where=path)
        rows = max(1, _CHUNK_CELLS // len(names))
        text = dict.fromkeys(front, str)
        table, blocks = [], []
        try:
            for chunk in pd.read_csv(
                stream, names=names, header=None, dtype=text, chunksize=rows, index_col=False, keep_default_na=False
            ):
                table.append(chunk[front])
                blocks.append(csr_matrix(chunk[genes].to_numpy(dtype=np.float32)))
        except (ValueError, TypeError) as error:
            raise TruthError(f"A cell is not a number ({error})", where=path, todo="Give raw counts") from error
    if not blocks:
        raise TruthError("The table has no rows", where=path)
    return pd.concat(table, ignore_index=True), genes, vstack(blocks, format="csr")


def decode(data: bytes, path: Path) -> str:
    """Text of UTF-8 bytes; anything else is a :class:`TruthError` that says where."""
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        message = f"The file is not UTF-8 text (byte {error.start})"
        raise TruthError(message, where=path, todo="Save it as UTF-8") from error


def read_matrix(path: Path) -> tuple[list[str], list[str], NDArray[np.float64]]:
    """Row names, column names and values (rows, columns) of a tab-separated matrix with a header.

    Raises
    ------
    TruthError
        The table is not tab-separated, its rows differ in length, or a cell is not a number.
    """
    lines = read_bytes(path).splitlines()
    header = decode(lines[0], path).split("\t")
    if len(header) < 2:
        raise TruthError("The columns are not separated by tabs", where=path, todo="Save the table tab-separated")
    names, cells = [], []
    for number, line in enumerate(lines[1:], start=2):
        if not line.strip():
            continue
        name, _, rest = line.partition(b"\t")
        names.append(decode(name, path))
        cells.append(rest)
        n_cells = line.count(b"\t") + 1
        if n_cells != len(header):
            message = f"Line {number} has {n_cells} cells, the header {len(header)}"
            raise TruthError(message, where=path, todo="The file may be truncated; download or copy it again")
    columns = [column.strip().strip('"') for column in header[1:]]
    if not cells:
        return names, columns, np.empty((0, len(columns)))
    body = b"\n".join(cells).replace(b"\t", b"\n")
    flat = _whole_numbers(body)
    if flat is None:
        try:
            flat = np.loadtxt(io.BytesIO(body), dtype=np.float64, comments=None, ndmin=1)
        except ValueError as error:
            raise TruthError(f"A cell is not a number ({error})", where=path, todo="Give raw counts") from error
    if flat.size != len(names) * len(columns):  # numpy skips empty cells
        raise TruthError("The table has empty cells", where=path, todo="Write 0 where nothing was counted")
    return [name.strip('"') for name in names], columns, flat.reshape(len(names), len(columns))


def _whole_numbers(lines: bytes) -> NDArray[np.float64] | None:
    """Numbers of lines that hold digits alone, or None if any holds something else (or nothing).

    Nearly all cells of a count table have one digit, so this takes a fifth of numpy's text reader.
    """
    digits = np.frombuffer(lines + b"\n", dtype=np.uint8)
    is_end = digits == ord("\n")
    ends = np.flatnonzero(is_end)
    lengths = np.diff(ends, prepend=-1) - 1
    if not ((digits >= ord("0")) & (digits <= ord("9")) | is_end).all() or lengths.min() < 1 or lengths.max() > 15:
        return None
    values = digits[ends - 1].astype(np.float64) - 48
    longer = np.flatnonzero(lengths > 1)
    for place in range(1, int(lengths.max())):
        longer = longer[lengths[longer] > place]
        values[longer] += (digits[ends[longer] - 1 - place] - 48.0) * 10.0**place
    return values


def read_columns(path: Path, required: Sequence[str], *, separator: str, header: bool = True) -> DataFrame:
    """A table with at least the ``required`` columns, all cells still text.

    Parameters
    ----------
    path
        Text table, possibly gzipped.
    required
        Columns that have to be there; without ``header`` the names of the columns, in order.
    separator
        What stands between cells.
    header
        Whether the first line holds the names.

    Raises
    ------
    TruthError
        A column is missing or the table is malformed.
    """
    import pandas as pd

    text = decode(read_bytes(path), path)
    try:
        table = pd.read_csv(
            io.StringIO(text), sep=separator, dtype=str, keep_default_na=False,
            header=0 if header else None, names=None if header else list(required), index_col=False,
        )  # fmt: skip
    except (pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise TruthError(f"The table is malformed ({error})", where=path) from error
    lacking = [column for column in required if column not in table.columns]
    if lacking:
        have = ", ".join(map(str, table.columns[:8]))
        message = f"Columns {', '.join(lacking)} are missing; there are {have}"
        raise TruthError(message, where=path, todo=f"Cells have to be separated by {_said(separator)}")
    return table


def numbers(table: DataFrame, column: str, path: Path) -> NDArray[np.float64]:
    """A text column as float64; empty and NA cells become NaN.

    Raises
    ------
    TruthError
        A cell is anything else than a number.
    """
    try:
        return floats(table[column])
    except ValueError as error:
        raise TruthError(f"Column {column} holds {error}, which is not a number", where=path) from error


def floats(values: Series) -> NDArray[np.float64]:
    """Numbers or texts as float64; empty and NA cells become NaN.

    ``pandas.to_numeric`` is not asked: numbers of some hundred digits crash it.

    Raises
    ------
    ValueError
        A cell is no number; the message is the cell.
    """
    if values.dtype != object and values.dtype.kind in "iufb":
        return values.to_numpy(dtype=np.float64)
    return np.fromiter(map(_float, values), dtype=np.float64, count=len(values))


def _float(cell: object) -> float:
    text = str(cell).strip()
    if text.lower() in ("", "na", "nan", "none", "<na>"):
        return float("nan")
    try:
        if "_" not in text:  # which Python would allow between digits
            return float(text)
    except ValueError:
        pass
    raise ValueError(repr(text[:40]))


def _said(separator: str) -> str:
    return {"\t": "tabs", ",": "commas"}.get(separator, repr(separator))

"""Shards of a zarr v3 array of spots × genes, written and read without zarr, which is an order of magnitude faster.

A shard holds some thousand spots and all genes: chunks of :data:`GENES` genes one after the other, each (rows, genes)
as little-endian float32 or float16, then the index (offset and size of every chunk) and its checksum. Any zarr v3
reader opens it.
"""

from __future__ import annotations

import json
import os
import struct
from pathlib import Path
from typing import Literal

import numpy as np
from google_crc32c import value as crc32c
from numpy.typing import NDArray

from napari_he2st.core.atomic import atomic_write

Precision = Literal["float32", "float16"]

GENES = 4
"""Genes per chunk: few, so that one gene is read with little else."""

_SLAB_GENES = 256  # rearranged at a time
_ENTRY, _CHECKSUM_BYTES = struct.Struct("<QQ"), 4  # of the index: offset and size of a chunk
_ABSENT = 2**64 - 1  # offset of a chunk that is not there


def create_array(path: Path, n_spots: int, n_genes: int, rows: int, precision: Precision = "float32") -> None:
    """Create an array of NaN, (spots, genes), with that many spots per shard."""
    import zarr

    rows, genes = min(rows, n_spots), min(GENES, n_genes)
    zarr.create_array(
        str(path),
        shape=(n_spots, n_genes),
        dtype=precision,
        chunks=(rows, genes),
        shards=(rows, -(-n_genes // genes) * genes),
        compressors=None,
        fill_value=float("nan"),
        dimension_names=("spot", "gene"),
    )


def write_shard(array: Path, number: int, block: NDArray[np.float32]) -> None:
    """Write the rows of a shard, float32 (rows, genes), in the array's precision, aside and then in place."""
    _, n_genes, rows, genes, dtype = _layout(array)
    n_chunks = -(-n_genes // genes)
    size = rows * genes * dtype.itemsize
    index = np.empty((n_chunks, 2), dtype="<u8")
    index[:, 0], index[:, 1] = np.arange(n_chunks, dtype=np.uint64) * np.uint64(size), size
    path = _shard(array, number)
    path.parent.mkdir(parents=True, exist_ok=True)
    room = np.empty((min(n_chunks, _SLAB_GENES // genes), rows, genes), dtype)  # recycled: new pages cost as much
    with atomic_write(path, force=True) as aside, aside.open("wb") as stream:
        for first in range(0, n_chunks, _SLAB_GENES // genes):
            some = block[:, first * genes : first * genes + _SLAB_GENES]
            width = -(-some.shape[1] // genes)
            slab, whole = room[:width], some.shape[1] // genes
            if whole < width or len(some) < rows:
                slab[:] = np.nan
            slab[:whole, : len(some)] = some[:, : whole * genes].reshape(len(some), whole, genes).transpose(1, 0, 2)
            if whole < width:
                slab[whole, : len(some), : some.shape[1] - whole * genes] = some[:, whole * genes :]
            stream.write(slab.data)
        stream.write(index.tobytes())
        stream.write(int(crc32c(index.tobytes())).to_bytes(4, "little"))


def read_gene(array: Path, column: int) -> NDArray[np.float32]:
    """Values of one gene over all spots, float32 (spots,); NaN where no shard is."""
    n_spots, n_genes, rows, genes, dtype = _layout(array)
    place = column // genes * _ENTRY.size - (-(-n_genes // genes) * _ENTRY.size + _CHECKSUM_BYTES)
    values = np.full(n_spots, np.nan, dtype=np.float32)
    for number in range(-(-n_spots // rows)):
        path = _shard(array, number)
        if not path.exists():
            continue
        with path.open("rb", buffering=0) as stream:
            stream.seek(place, os.SEEK_END)
            offset, size = _ENTRY.unpack(stream.read(_ENTRY.size))
            if offset == _ABSENT:
                continue
            stream.seek(offset)
            chunk = np.frombuffer(stream.read(size), dtype).reshape(rows, genes)
        part = values[number * rows : (number + 1) * rows]
        part[:] = chunk[: len(part), column % genes]
    return values


def _layout(array: Path) -> tuple[int, int, int, int, np.dtype[np.floating]]:
    """Spots and genes of an array, and of its chunks; how its values are written."""
    facts = json.loads((array / "zarr.json").read_text(encoding="utf-8"))
    n_spots, n_genes = facts["shape"]
    rows, genes = facts["codecs"][0]["configuration"]["chunk_shape"]
    return n_spots, n_genes, rows, genes, np.dtype(facts["data_type"]).newbyteorder("<")


def _shard(array: Path, number: int) -> Path:
    return array / "c" / str(number) / "0"

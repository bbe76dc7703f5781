"""Shards written without zarr are what zarr reads, and the other way round."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import zarr

from napari_he2st.engine.shards import create_array, read_gene, write_shard


@pytest.mark.parametrize(("n_spots", "n_genes", "rows"), [(100, 10, 40), (30, 3, 64), (64, 600, 32), (5, 1, 2)])
def test_zarr_reads_what_is_written_here(tmp_path: Path, n_spots: int, n_genes: int, rows: int) -> None:
    array = tmp_path / "expression"
    create_array(array, n_spots, n_genes, rows)
    values = np.random.default_rng(0).normal(size=(n_spots, n_genes)).astype(np.float32)
    skipped = 1
    for number in range(-(-n_spots // rows)):
        if number == skipped:
            values[number * rows : (number + 1) * rows] = np.nan
        else:
            write_shard(array, number, values[number * rows : (number + 1) * rows])
    opened = zarr.open_array(str(array), mode="r")
    np.testing.assert_array_equal(opened[:], values)
    for column in {0, n_genes // 2, n_genes - 1}:
        np.testing.assert_array_equal(opened[:, column], values[:, column])
        np.testing.assert_array_equal(read_gene(array, column), values[:, column])


def test_what_zarr_writes_is_read_here(tmp_path: Path) -> None:
    array = tmp_path / "expression"
    create_array(array, 50, 9, 16)
    values = np.random.default_rng(0).normal(size=(50, 9)).astype(np.float32)
    zarr.open_array(str(array), mode="r+")[:] = values
    np.testing.assert_array_equal(read_gene(array, 8), values[:, 8])


def test_a_damaged_index_is_noticed(tmp_path: Path) -> None:
    array = tmp_path / "expression"
    create_array(array, 8, 4, 8)
    write_shard(array, 0, np.ones((8, 4), dtype=np.float32))
    (shard,) = (array / "c").rglob("0/0")
    content = bytearray(shard.read_bytes())
    content[-5] ^= 1
    shard.write_bytes(content)
    with pytest.raises(ValueError, match=r"(?i)checksum"):
        zarr.open_array(str(array), mode="r")[:]

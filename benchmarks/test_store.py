"""The store: writing it, one gene of a million spots from it, and a million spots as h5ad."""

from __future__ import annotations

import shutil
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import anndata as ad
import numpy as np
import pytest

from napari_he2st.core.schema import provenance
from napari_he2st.core.types import Chunk, Grid
from napari_he2st.data.export import export
from napari_he2st.engine.shards import create_array, read_gene, write_shard
from napari_he2st.engine.store import SHARD_ROWS, Store

N_SPOTS, N_GENES = 1_000_000, 1000
N_WRITTEN, BATCH = 3 * SHARD_ROWS, 64
N_EXPORTED = 100_000


def cpu_seconds(call: Callable[[], object]) -> float:
    start = time.process_time()
    call()
    return time.process_time() - start


def wall(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


@pytest.fixture(scope="module")
def array(tmp_path_factory: pytest.TempPathFactory):
    """The expression of a million spots: the same block in every shard."""
    path = tmp_path_factory.mktemp("store") / "expression"
    create_array(path, N_SPOTS, N_GENES, SHARD_ROWS)
    block = np.random.default_rng(0).random((SHARD_ROWS, N_GENES), dtype=np.float32)
    for number in range(-(-N_SPOTS // SHARD_ROWS)):
        write_shard(path, number, block[: N_SPOTS - number * SHARD_ROWS])
    yield path
    shutil.rmtree(path)


def test_one_gene_of_a_million_spots(figure, array: Path) -> None:
    import zarr

    def by_zarr(column: int) -> np.ndarray:
        return zarr.open_array(str(array), mode="r")[:, column]

    np.testing.assert_array_equal(by_zarr(7), read_gene(array, 7))
    columns = np.random.default_rng(1).integers(0, N_GENES, 9)
    ms = [
        statistics.median(1000 * wall(lambda c=c, read=read: read(c)) for c in columns)
        for read in (by_zarr, lambda c: read_gene(array, c))
    ]
    figure("store: one gene of 10^6 spots × 1,000, through zarr", ms[0], "ms", at_most=100)
    figure("store: one gene of 10^6 spots × 1,000, read directly", ms[1], "ms", at_most=10)


def test_writing(figure, tmp_path: Path) -> None:
    """Batches into the journal, and from there into shards."""
    index = np.stack([np.arange(N_WRITTEN), np.zeros(N_WRITTEN, np.intp)], axis=1)
    ones = np.ones(N_WRITTEN, dtype=bool)
    grid = Grid(index * 100.0, 50, "irregular", 50, 0.5, index, (N_WRITTEN, 1), ones)
    block = np.random.default_rng(0).random((SHARD_ROWS, N_GENES), dtype=np.float32)
    rows = np.arange(N_WRITTEN, dtype=np.intp)
    create_array(tmp_path / "alone", SHARD_ROWS, N_GENES, SHARD_ROWS)
    alone = (
        SHARD_ROWS
        * N_GENES
        * 4
        / 1e6
        / min(cpu_seconds(lambda: write_shard(tmp_path / "alone", 0, block)) for _ in range(3))
    )

    def write(folder: Path) -> None:
        genes = [f"G{i}" for i in range(N_GENES)]
        with Store.open_run(folder, grid, genes, rows, {"batch_size": BATCH}) as store:
            for first in range(0, N_WRITTEN, BATCH):
                place = first % SHARD_ROWS
                store.write(Chunk("expression", rows[first : first + BATCH], block[place : place + BATCH], None))
        shutil.rmtree(folder)

    # The first time, memory for the file cache is found, which costs as much again: the best of three, as above.
    rate = N_WRITTEN * N_GENES * 4 / 1e6 / min(cpu_seconds(lambda: write(tmp_path / "run")) for _ in range(3))
    figure(
        "store: writing, journal and shards", rate, "MB per CPU-s", at_least=300, beside=f"{alone:.0f} the shards alone"
    )


def test_h5ad(figure, tmp_path: Path) -> None:
    """Against the bare write of anndata."""
    index = np.indices((N_EXPORTED // 250, 250)).reshape(2, -1).T
    values = np.random.default_rng(0).random((N_EXPORTED, N_GENES), dtype=np.float32)
    adata = ad.AnnData(values, obsm={"spatial": index[:, ::-1] * 200.0})
    facts = {"mpp": 0.5, "pitch_um": 100, "spot_um": 55, "lattice": "square", "library": "made"}
    adata.uns["he2st"] = provenance("predicted", scale="log1p_cp10k", **facts)
    seconds = [
        (
            wall(lambda: adata.write_h5ad(tmp_path / "bare.h5ad")),
            wall(lambda: export(adata, "h5ad", tmp_path / "a.h5ad", force=True)),
        )
        for _ in range(3)
    ]
    ratio = statistics.median(ours / bare for bare, ours in seconds)
    figure("store: h5ad of 10^5 spots × 1,000, against anndata's bare write", ratio, "times", at_most=1.3)

"""The store: what is written survives, what is torn is cut off, and a resumed run is the same run."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

from napari_he2st.core.errors import StoreError
from napari_he2st.core.types import Chunk, Grid
from napari_he2st.engine import store as store_module
from napari_he2st.engine.shards import read_gene
from napari_he2st.engine.store import Store, read_store

GENES = ["A", "B", "C"]


def make_grid(n: int) -> Grid:
    index = np.stack([np.arange(n) // 10, np.arange(n) % 10], axis=1).astype(np.intp)
    return Grid(index[:, ::-1] * 100.0, 50.0, "square", 50.0, 0.5, index, (-(-n // 10), 10), np.ones(n, bool))


def make_chunk(rows: np.ndarray, std: bool = False) -> Chunk:
    mean = (rows[:, None] * 10 + np.arange(len(GENES))).astype(np.float32)
    return Chunk("expression", rows, mean, mean / 2 if std else None)


def batches_of(rows: np.ndarray, size: int) -> list[np.ndarray]:
    return [rows[i : i + size] for i in range(0, len(rows), size)]


@pytest.fixture
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "SHARD_ROWS", 16)


@pytest.mark.usefixtures("small_shards")
@pytest.mark.parametrize("std", [False, True])
def test_what_is_written_in_any_order_reads_back(tmp_path: Path, std: bool) -> None:
    grid, rows = make_grid(40), np.random.default_rng(0).permutation(40).astype(np.intp)
    with Store.open_run(tmp_path / "s", grid, GENES, rows, {"batch_size": 7}) as store:
        for batch in batches_of(rows, 7):
            store.write(make_chunk(batch, std))
    stored_grid, genes, values, manifest = read_store(tmp_path / "s")
    assert genes == GENES
    np.testing.assert_array_equal(stored_grid.xy, grid.xy)
    np.testing.assert_array_equal(values[:], make_chunk(np.arange(40)).mean)
    assert manifest["sealed"] == [0, 1, 2]
    assert not list((tmp_path / "s" / "journal").iterdir())
    with Store.open_run(tmp_path / "s", grid, GENES, rows, {"batch_size": 7}) as store:
        for chunk in store.finished(batches_of(rows, 7)):
            expected = make_chunk(chunk.index, std)
            np.testing.assert_array_equal(chunk.mean, expected.mean)
            assert (chunk.std is not None) == std
            if std:
                np.testing.assert_array_equal(chunk.std, expected.std)


@pytest.mark.usefixtures("small_shards")
def test_a_torn_batch_is_cut_off_and_the_others_kept(tmp_path: Path) -> None:
    grid, rows = make_grid(40), np.arange(40, dtype=np.intp)
    with Store.open_run(tmp_path / "s", grid, GENES, rows, {"batch_size": 5}) as store:
        store.write(make_chunk(rows[:5]))
        store.write(make_chunk(rows[5:10]))
    journal = tmp_path / "s" / "journal" / "00000.bin"
    whole = journal.read_bytes()
    journal.write_bytes(whole[:-3])
    with Store.open_run(tmp_path / "s", grid, GENES, rows, {"batch_size": 5}) as store:
        assert store.has(rows[:5])
        assert not store.has(rows[5:10])
        store.write(make_chunk(rows[5:10]))
    assert journal.read_bytes() == whole


def test_region_runs_seal_when_their_rows_are_done(tmp_path: Path) -> None:
    grid, rows = make_grid(40), np.array([3, 4, 8], dtype=np.intp)
    with Store.open_run(tmp_path / "s", grid, GENES, rows, {"batch_size": 5}) as store:
        store.write(make_chunk(rows))
    _, _, values, manifest = read_store(tmp_path / "s")
    assert manifest["sealed"] == [0]
    assert np.isfinite(values[:]).all(axis=1).nonzero()[0].tolist() == [3, 4, 8]


def test_another_run_is_refused_and_named(tmp_path: Path) -> None:
    grid, rows = make_grid(20), np.arange(20, dtype=np.intp)
    Store.open_run(tmp_path / "s", grid, GENES, rows, {"batch_size": 5, "seed": 1}).__exit__(None, None, None)
    with pytest.raises(StoreError, match="seed"):
        Store.open_run(tmp_path / "s", grid, GENES, rows, {"batch_size": 5, "seed": 2})
    with pytest.raises(StoreError, match="run_sha256"):
        Store.open_run(tmp_path / "s", grid, GENES, rows[1:], {"batch_size": 5, "seed": 1})
    with Store.open_run(tmp_path / "s", grid, GENES, rows, {"batch_size": 9, "seed": 1}) as store:
        assert store.batch_size == 5


def test_a_folder_with_other_files_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.docx").write_text("years of work")
    with pytest.raises(StoreError, match="not empty"):
        Store.open_run(tmp_path, make_grid(5), GENES, np.arange(5), {"batch_size": 5})
    with pytest.raises(StoreError, match="no prediction store"):
        read_store(tmp_path)


@pytest.mark.parametrize("left", [[], ["grid.npz"], ["grid.npz", "expression"], [".grid.0123abcd.npz"]])
def test_a_store_whose_making_was_killed_is_made_anew(tmp_path: Path, left: list[str]) -> None:
    grid, rows, folder = make_grid(20), np.arange(20, dtype=np.intp), tmp_path / "s"
    (folder / "journal").mkdir(parents=True)
    (folder / "lock").touch()
    for name in left:
        (folder / name).write_bytes(b"half") if "." in name else (folder / name).mkdir()
    with Store.open_run(folder, grid, GENES, rows, {"batch_size": 20}) as store:
        store.write(make_chunk(rows))
    assert np.isfinite(read_store(folder)[2]).all()
    assert not list(folder.glob(".*.npz"))


def test_a_second_process_is_refused_until_the_first_dies(tmp_path: Path) -> None:
    code = textwrap.dedent(
        """
        import sys, time
        sys.path.insert(0, {tests!r})
        from test_store import *
        store = Store.open_run({folder!r}, make_grid(20), GENES, np.arange(20), {{"batch_size": 5}})
        print("locked", flush=True)
        time.sleep(20)
        """
    ).format(tests=str(Path(__file__).parent), folder=str(tmp_path / "s"))
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline().strip() == b"locked"
        with pytest.raises(StoreError, match="Another process"):
            Store.open_run(tmp_path / "s", make_grid(20), GENES, np.arange(20), {"batch_size": 5})
        other.kill()
    with Store.open_run(tmp_path / "s", make_grid(20), GENES, np.arange(20), {"batch_size": 5}) as store:
        assert not store.has(np.arange(5))


def test_a_damaged_manifest_is_named(tmp_path: Path) -> None:
    (tmp_path / "he2st-store.json").write_text(json.dumps({"spots": 3})[:-2])
    with pytest.raises(StoreError, match="damaged"):
        read_store(tmp_path)


@pytest.mark.usefixtures("small_shards")
def test_half_precision_halves_the_arrays_and_changes_nothing_when_a_run_goes_on(tmp_path: Path) -> None:
    grid, rows = make_grid(40), np.arange(40, dtype=np.intp)
    plan = {"batch_size": 5}
    sizes = {}
    for precision in ("float32", "float16"):
        with Store.open_run(tmp_path / precision, grid, GENES, rows, plan, spread=True, precision=precision) as store:
            first = [store.rounded(make_chunk(batch, std=True)) for batch in batches_of(rows, 5)]
            for chunk in first[:6]:
                store.write(chunk)
        with Store.open_run(tmp_path / precision, grid, GENES, rows, plan, spread=True, precision=precision) as store:
            for kept, chunk in zip(store.finished(batches_of(rows, 5)), first, strict=False):
                np.testing.assert_array_equal(kept.mean, chunk.mean)
                np.testing.assert_array_equal(kept.std, chunk.std)
            for chunk in first[6:]:
                store.write(chunk)
        _, _, values, manifest = read_store(tmp_path / precision)
        assert manifest["precision"] == precision == values.dtype
        np.testing.assert_array_equal(values[:], np.concatenate([chunk.mean for chunk in first]))
        np.testing.assert_array_equal(read_gene(tmp_path / precision / "std", 1), values_of_std(first)[:, 1])
        sizes[precision] = sum(file.stat().st_size for file in (tmp_path / precision).rglob("c/*/0"))
    assert sizes["float16"] < 0.7 * sizes["float32"]
    with pytest.raises(StoreError, match="precision"):
        Store.open_run(tmp_path / "float16", grid, GENES, rows, plan, spread=True)
    with Store.open_run(tmp_path / "large", grid, GENES, rows, plan, precision="float16") as store:
        large = make_chunk(rows[:5])
        large.mean[0, 0] = 1e6
        with pytest.raises(StoreError, match="too large"):
            store.rounded(large)


def values_of_std(chunks: list) -> np.ndarray:
    return np.concatenate([chunk.std for chunk in chunks])

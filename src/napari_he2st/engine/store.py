"""Stream a whole-slide prediction to disk, and go on after an interruption.

A store is a folder::

    he2st-store.json    manifest: bundle, slide, grid, options, seed, device, batch size, genes
    grid.npz            spots
    journal/NNNNN.bin   finished batches of a shard that is not complete yet, appended one by one
    expression, std     zarr v3 arrays (spots, genes), one gene contiguous within a shard; NaN where unknown
    lock                held by the process that writes; the operating system releases it at death

A batch survives the death of the process once :meth:`Store.write` returns. A shard moves from its journal
into the array when all its rows are there.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import struct
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any

import numpy as np
from google_crc32c import value as crc32c
from numpy.typing import NDArray

from napari_he2st.core.atomic import atomic_write
from napari_he2st.core.errors import StoreError
from napari_he2st.core.types import Chunk, Grid
from napari_he2st.engine.shards import Precision, create_array, write_shard

if TYPE_CHECKING:
    import zarr

SHARD_ROWS = 16384
_MAGIC = b"h2sk"
_HEADER = struct.Struct("<4sIII")  # magic, rows, whether std follows the mean, crc32c of the body
_MANIFEST = "he2st-store.json"
_BEGUN = re.compile(r"journal|lock|grid\.npz|expression|\.(grid|he2st-store)\.[0-9a-f]{8}\.(npz|json)")
"""What there may be before a manifest is written; aside files among it."""

Block = tuple[NDArray[np.float32], NDArray[np.float32] | None]


class Store:
    """A run on disk that is being written; :func:`read_store` reads one.

    Parameters
    ----------
    folder
        An existing store.
    manifest
        Its manifest.
    rows
        Grid rows that the run predicts.
    lock
        The open lock file.
    """

    def __init__(self, folder: Path, manifest: dict[str, Any], rows: NDArray[np.intp], lock: IO[bytes]) -> None:
        self._folder, self._manifest, self._lock = folder, manifest, lock
        self._n, self._n_genes = int(manifest["spots"]), len(manifest["genes"])
        self._wanted = np.zeros(self._n, dtype=bool)
        self._wanted[rows] = True
        self._done = np.zeros(self._n, dtype=bool)
        self._journals: dict[int, IO[bytes]] = {}
        self._last: tuple[int, Block] | None = None
        for shard in range(-(-self._n // SHARD_ROWS)):
            if shard in manifest["sealed"]:
                self._done[self._span(shard)] = self._wanted[self._span(shard)]
            for done, _, _ in self._replay(shard):
                self._done[done] = True

    @classmethod
    def open_run(
        cls,
        folder: str | Path,
        grid: Grid,
        genes: list[str],
        rows: NDArray[np.intp],
        plan: dict[str, Any],
        *,
        spread: bool = False,
        precision: Precision = "float32",
    ) -> Store:
        """Create a store, or open the one of the same run to go on with it.

        Parameters
        ----------
        folder
            Its place; has to be empty, absent, or a store of the same run.
        grid, genes, rows
            Spots, panel, and the grid rows that the run predicts.
        plan
            Everything else that decides the result, ``batch_size`` included; JSON values.
        spread
            Whether a standard deviation comes with every value.
        precision
            Of the values on disk.

        Raises
        ------
        StoreError
            The folder holds something else or another run, another process writes to it, or the disk is too small.
        """
        path = Path(folder)
        manifest = {**plan, "genes": genes, "spots": len(grid), "run_sha256": _run_hash(grid, rows), "sealed": []}
        manifest["precision"] = precision
        if path.exists() and _holds_something_else(path):
            raise StoreError("The folder is not empty and holds no store", where=path, todo="Choose another folder")
        (path / "journal").mkdir(parents=True, exist_ok=True)
        lock = _lock(path / "lock")
        try:
            if (path / _MANIFEST).exists():
                stored = {"precision": "float32", **read_manifest(path)}
                _check_same_run(path, stored, manifest)
                manifest = stored
            else:
                _create(path, grid, manifest)
            _check_room(path, disk_bytes(len(grid), len(genes), spread=spread, precision=precision))
            return cls(path, manifest, rows, lock)
        except BaseException:
            lock.close()
            raise

    def __enter__(self) -> Store:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for journal in self._journals.values():
            journal.close()
        self._lock.close()

    @property
    def batch_size(self) -> int:
        """Spots per batch of this run; resuming keeps it, so that results are bit-identical."""
        return int(self._manifest["batch_size"])

    def has(self, rows: NDArray[np.intp]) -> bool:
        """Whether all these grid rows are on disk."""
        return bool(self._done[rows].all())

    def rounded(self, chunk: Chunk) -> Chunk:
        """A batch as the store keeps it, so that a run says the same whether it went on or not.

        Raises
        ------
        StoreError
            A value is too large for float16.
        """
        if self._manifest["precision"] == "float32":
            return chunk
        with np.errstate(over="ignore"):
            mean = chunk.mean.astype(np.float16)
            std = None if chunk.std is None else chunk.std.astype(np.float16)
        if np.isinf(mean).any() or (std is not None and np.isinf(std).any()):
            todo = "Keep the run in another folder, with --precision float32"
            raise StoreError("A predicted value is too large for float16", where=self._folder, todo=todo)
        return Chunk(
            chunk.output, chunk.index, mean.astype(np.float32), None if std is None else std.astype(np.float32)
        )

    def write(self, chunk: Chunk) -> None:
        """Append a batch.

        Raises
        ------
        StoreError
            The disk is full or the folder is gone; what was written before stays readable.
        """
        shards = chunk.index // SHARD_ROWS
        try:
            for shard in np.unique(shards).tolist():
                here = shards == shard
                self._append(shard, chunk.index[here], chunk.mean[here], None if chunk.std is None else chunk.std[here])
                self._done[chunk.index[here]] = True
                span = self._span(shard)
                if np.array_equal(self._done[span], self._wanted[span]):
                    self._seal(shard)
        except OSError as error:
            message = f"The store cannot be written ({error.strerror or error})"
            todo = "Free disk space, then run the same command again; it goes on where it stopped"
            raise StoreError(message, where=self._folder, todo=todo) from error

    def finished(self, batches: list[NDArray[np.intp]]) -> Iterator[Chunk]:
        """Read back those batches that are on disk already."""
        for batch in filter(self.has, batches):
            mean = np.empty((len(batch), self._n_genes), dtype=np.float32)
            std: NDArray[np.float32] | None = None
            for shard in np.unique(batch // SHARD_ROWS).tolist():
                here = np.flatnonzero(batch // SHARD_ROWS == shard)
                if self._last is None or self._last[0] != shard:
                    self._last = (shard, self._block(shard))
                block, spread = self._last[1]
                mean[here] = block[batch[here] - shard * SHARD_ROWS]
                if spread is not None:
                    std = np.empty_like(mean) if std is None else std
                    std[here] = spread[batch[here] - shard * SHARD_ROWS]
            yield Chunk("expression", batch, mean, std)
        self._last = None

    def _span(self, shard: int) -> slice:
        return slice(shard * SHARD_ROWS, min((shard + 1) * SHARD_ROWS, self._n))

    def _journal(self, shard: int) -> Path:
        return self._folder / "journal" / f"{shard:05d}.bin"

    def _append(
        self, shard: int, rows: NDArray[np.intp], mean: NDArray[np.float32], std: NDArray[np.float32] | None
    ) -> None:
        arrays = [np.ascontiguousarray(rows, "<i8"), np.ascontiguousarray(mean, "<f4")]
        arrays += [] if std is None else [np.ascontiguousarray(std, "<f4")]
        body = b"".join(array.data for array in arrays)
        if shard not in self._journals:
            self._journals[shard] = self._journal(shard).open("ab")
        journal = self._journals[shard]
        journal.write(_HEADER.pack(_MAGIC, len(rows), std is not None, int(crc32c(body))) + body)
        journal.flush()

    def _replay(
        self, shard: int
    ) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.float32] | None]]:
        """Records of a journal; a torn end, as a killed process leaves it, is cut off."""
        path = self._journal(shard)
        if not path.exists():
            return
        intact = 0
        with path.open("rb") as stream:
            while len(head := stream.read(_HEADER.size)) == _HEADER.size:
                magic, n, has_std, crc = _HEADER.unpack(head)
                n_values = n * self._n_genes
                size = n * 8 + n_values * 4 * (2 if has_std else 1)
                body = stream.read(size) if magic == _MAGIC and n <= SHARD_ROWS else b""
                if len(body) != size or crc32c(body) != crc:
                    break
                intact = stream.tell()
                rows = np.frombuffer(body, "<i8", n)
                values = np.frombuffer(body, "<f4", offset=n * 8).reshape(-1, n, self._n_genes)
                yield rows, values[0], values[1] if has_std else None
        if intact < path.stat().st_size:
            os.truncate(path, intact)

    def _block(self, shard: int) -> Block:
        """All values of a shard, from the arrays or from its journal."""
        span = self._span(shard)
        if shard in self._manifest["sealed"]:
            arrays = [_array(self._folder, name) for name in ("expression", "std") if (self._folder / name).exists()]
            blocks = [np.asarray(array[span], dtype=np.float32) for array in arrays]
            return blocks[0], blocks[1] if len(blocks) > 1 else None
        mean = np.full((span.stop - span.start, self._n_genes), np.nan, dtype=np.float32)
        spread: NDArray[np.float32] | None = None
        for rows, values, std in self._replay(shard):
            mean[rows - span.start] = values
            if std is not None:
                spread = np.full_like(mean, np.nan) if spread is None else spread
                spread[rows - span.start] = std
        return mean, spread

    def _seal(self, shard: int) -> None:
        """Move a complete shard from its journal into the arrays."""
        self._journals.pop(shard).close()
        mean, spread = self._block(shard)
        write_shard(self._folder / "expression", shard, mean)
        if spread is not None:
            if not (self._folder / "std" / "zarr.json").exists():
                create_array(self._folder / "std", self._n, self._n_genes, SHARD_ROWS, self._manifest["precision"])
            write_shard(self._folder / "std", shard, spread)
        self._manifest["sealed"] = sorted({*self._manifest["sealed"], shard})
        _write_manifest(self._folder, self._manifest)
        self._journal(shard).unlink()


def disk_bytes(n_spots: int, n_genes: int, *, spread: bool = False, precision: Precision = "float32") -> int:
    """Disk space that a store takes at most: its arrays, and the journals of the shards that are not complete."""
    arrays = 2 if spread else 1
    return arrays * n_genes * (n_spots * np.dtype(precision).itemsize + 4 * min(n_spots, SHARD_ROWS))


def _check_room(folder: Path, needed: int) -> None:
    """Refuse a run that would fill the disk."""
    there = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    free = shutil.disk_usage(folder).free
    if needed - there > free:
        message = f"The run needs {(needed - there) / 1e9:.2g} GB on disk, and {free / 1e9:.2g} GB are free"
        raise StoreError(message, where=folder, todo="Free disk space, keep fewer genes, or choose a coarser pitch")


def read_store(folder: str | Path) -> tuple[Grid, list[str], zarr.Array, dict[str, Any]]:
    """Grid, genes, values (a zarr array, spots × genes, read lazily) and manifest of a store.

    Rows of shards that are not complete yet are NaN.

    Raises
    ------
    StoreError
        The folder is no store, or a damaged one.
    """
    path = Path(folder)
    manifest = read_manifest(path)
    with np.load(path / "grid.npz", allow_pickle=False) as stored:
        names = tuple(stored["names"].tolist()) if "names" in stored else None
        grid = Grid(
            xy=stored["xy"], index=stored["index"], in_tissue=stored["in_tissue"], names=names, **manifest["grid"]
        )
    return grid, list(manifest["genes"]), _array(path, "expression"), manifest


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a store; raises :class:`StoreError` where there is none."""
    try:
        manifest: dict[str, Any] = json.loads((folder / _MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise StoreError("This is no prediction store, or a damaged one", where=folder) from error
    return manifest


def _write_manifest(folder: Path, manifest: dict[str, Any]) -> None:
    with atomic_write(folder / _MANIFEST, force=True) as aside:
        aside.write_text(json.dumps(manifest, indent=1), encoding="utf-8")


def _holds_something_else(folder: Path) -> bool:
    """Whether a folder is neither empty nor a store, nor one that a process left before its manifest was written."""
    names = {path.name for path in folder.iterdir()}
    begun = "journal" in names and not any((folder / "journal").iterdir())
    return _MANIFEST not in names and bool(names) and not (begun and all(map(_BEGUN.fullmatch, names)))


def _create(folder: Path, grid: Grid, manifest: dict[str, Any]) -> None:
    shutil.rmtree(folder / "expression", ignore_errors=True)  # half made, if it is there
    for aside in folder.glob(".*.????????.*"):
        aside.unlink()
    arrays = {"xy": grid.xy, "index": grid.index, "in_tissue": grid.in_tissue}
    if grid.names is not None:
        arrays["names"] = np.asarray(grid.names, dtype=str)
    with atomic_write(folder / "grid.npz", force=True) as aside:
        np.savez(aside, allow_pickle=False, **arrays)
    create_array(folder / "expression", len(grid), len(manifest["genes"]), SHARD_ROWS, manifest["precision"])
    manifest["grid"] = {
        "pitch_um": grid.pitch_um,
        "lattice": grid.lattice,
        "spot_um": grid.spot_um,
        "mpp": grid.mpp,
        "shape": list(grid.shape),
        "tissue": dict(grid.tissue),
    }
    _write_manifest(folder, manifest)


def _array(folder: Path, name: str) -> zarr.Array:
    """An array of the store, for reading."""
    import zarr

    return zarr.open_array(str(folder / name), mode="r")


def _run_hash(grid: Grid, rows: NDArray[np.intp]) -> str:
    digest = hashlib.sha256()
    for array in (grid.xy, grid.index.astype("<i8"), rows.astype("<i8")):
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def _check_same_run(folder: Path, stored: dict[str, Any], wanted: dict[str, Any]) -> None:
    differing = [
        key for key, value in wanted.items() if key not in ("sealed", "batch_size") and stored.get(key) != value
    ]
    if differing:
        message = f"The store belongs to another run ({', '.join(differing)} differ)"
        raise StoreError(message, where=folder, todo="Choose another folder, or repeat the first run's settings")


def _lock(path: Path) -> IO[bytes]:
    """Hold a lock file; the operating system releases it when this process ends, however it ends."""
    handle = path.open("ab")
    try:
        if os.name == "nt":
            import msvcrt

            msvcrt.locking(handle.fileno(), msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
        else:
            import fcntl

            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        handle.close()
        raise StoreError("Another process is writing to this store", where=path.parent, todo="Wait for it") from error
    return handle

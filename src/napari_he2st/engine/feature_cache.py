"""Encoder features on disk, shared by all models that see a slide through the same encoder.

There is one folder in the cache for each slide (with its colours and pixel size), encoder (with its weights and the
device it runs on) and tile size. Every process appends to two files of its own there::

    TOKEN.f32     features, float32 (rows, dim)
    TOKEN.rows    position and checksum of each row, written after it

Nothing that is there is changed: a row that was kept once stays what it is, so that a run that was stopped goes on
with the very numbers it began with.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import threading
import warnings
import zlib
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from napari_he2st.core.cache import limit, trim
from napari_he2st.core.paths import cache_folder
from napari_he2st.engine.device import half_on

if TYPE_CHECKING:
    from napari_he2st.data.slides import Slide
    from napari_he2st.engine.backend import CompiledEncoder
    from napari_he2st.zoo.encoders.build import Encoder

_LAYOUT = 1  # of the files
_ROW = np.dtype([("xy", "<c16"), ("crc", "<u4")])
_MERGED = 4096  # rows that are kept unsorted before they join the index
_TRIMMED = 2**26  # bytes written between two looks at the size of the whole cache

Position = NDArray[np.complex128]


class FeatureCache:
    """Features of one slide, encoder and tile size, by position; safe with several threads and processes.

    Parameters
    ----------
    folder
        Where they lie; None keeps and knows nothing.
    dim
        Numbers per position.
    """

    def __init__(self, folder: Path | None, dim: int) -> None:
        self._folder, self._dim = folder, dim
        self._lock = threading.Lock()
        self._own = f"{os.getpid()}-{secrets.token_hex(4)}"
        self._rows: dict[str, int] = {}  # of each pair of files, by its token
        self._tokens: list[str] = []
        self._index: tuple[Position, NDArray[np.int64]] = np.zeros(0, np.complex128), np.zeros((0, 2), np.int64)
        self._fresh: dict[complex, tuple[int, int]] = {}
        self._written = _TRIMMED

    def refresh(self) -> None:
        """Take in what other processes have written since, and forget what was removed."""
        if self._folder is None or not self._folder.is_dir():
            self._forget(self._tokens)
            return
        try:
            os.utime(self._folder)
            sizes = {path.stem: path.stat().st_size // _ROW.itemsize for path in self._folder.glob("*.rows")}
        except FileNotFoundError:  # removed at this moment
            return
        self._forget([token for token in self._rows if token not in sizes])
        with self._lock:
            for token, n_rows in sizes.items():
                first = self._rows.get(token, 0)
                if token == self._own or n_rows <= first:
                    continue
                rows = np.fromfile(self._path(token, "rows"), _ROW, n_rows - first, offset=first * _ROW.itemsize)
                self._add(token, np.arange(first, first + len(rows)), rows["xy"])
            self._merge()

    def has(self, xy: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Which positions (n, 2), level-0 pixels, are known."""
        with self._lock:
            return self._places(_position(xy))[:, 0] >= 0

    def get(self, xy: NDArray[np.float64]) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Features at some positions.

        Returns
        -------
        values : NDArray[np.float32]
            Shape (n, dim); zero where nothing is known.
        known : NDArray[np.bool_]
            Shape (n,).
        """
        wanted = _position(xy)
        with self._lock:
            places = self._places(wanted)
        values = np.zeros((len(wanted), self._dim), dtype=np.float32)
        known = np.zeros(len(wanted), dtype=bool)
        for number in np.unique(places[places[:, 0] >= 0, 0]).tolist():
            here = np.flatnonzero(places[:, 0] == number)
            try:
                self._read(self._tokens[number], places[here, 1], wanted[here], values, here)
                known[here] = True
            except (OSError, ValueError) as error:
                self._discard(self._tokens[number], error)
        values[~known] = 0
        return values, known

    def put(self, xy: NDArray[np.float64], values: NDArray[np.float32]) -> None:
        """Keep features (n, dim) of positions that are not known yet; where that fails, say so and go on without."""
        with self._lock:
            if self._folder is None:
                return
            at = _position(xy)
            new = self._places(at)[:, 0] < 0
            if not new.any():
                return
            rows = np.zeros(int(new.sum()), dtype=_ROW)
            rows["xy"], block = at[new], np.ascontiguousarray(values[new], dtype="<f4")
            rows["crc"] = [_checksum(position, row) for position, row in zip(rows["xy"], block, strict=True)]
            try:
                self._folder.mkdir(parents=True, exist_ok=True)
                first = self._rows.get(self._own, 0)
                for suffix, data in (("f32", block), ("rows", rows)):
                    with self._path(self._own, suffix).open("ab", buffering=0) as file:
                        file.write(data.tobytes())
                self._written += block.nbytes
                if self._written >= _TRIMMED:
                    self._written = 0
                    trim()
            except OSError as error:
                warnings.warn(f"Features are not kept any more ({error.strerror or error})", stacklevel=2)
                self._folder = None
                return
            self._add(self._own, np.arange(first, first + len(rows)), rows["xy"])

    def _path(self, token: str, suffix: str) -> Path:
        return Path(str(self._folder), f"{token}.{suffix}")

    def _add(self, token: str, rows: NDArray[np.intp], at: Position) -> None:
        """Index some rows of a file."""
        if token not in self._rows:
            self._tokens.append(token)
        number = len(self._tokens) - 1 - self._tokens[::-1].index(token)
        self._rows[token] = self._rows.get(token, 0) + len(rows)
        for position, row in zip(at.tolist(), rows.tolist(), strict=True):
            self._fresh.setdefault(position, (number, row))
            if len(self._fresh) >= _MERGED:
                self._merge()

    def _merge(self) -> None:
        """Sort the fresh rows into the index; of two at a position the older stays."""
        known, places = self._index
        at = np.concatenate([known, np.array(list(self._fresh), dtype=np.complex128)])
        joined = np.concatenate([places, np.array(list(self._fresh.values()), dtype=np.int64).reshape(-1, 2)])
        self._fresh = {}
        unique, first = np.unique(at, return_index=True)
        self._index = unique, joined[first]

    def _places(self, at: Position) -> NDArray[np.int64]:
        """File and row of each position, −1 where there is none: (n, 2)."""
        known, places = self._index
        found = np.full((len(at), 2), -1, dtype=np.int64)
        if len(known):
            near = np.searchsorted(known, at).clip(0, len(known) - 1)
            hit = known[near] == at
            found[hit] = places[near[hit]]
        for i in np.flatnonzero(found[:, 0] < 0).tolist() if self._fresh else ():
            found[i] = self._fresh.get(complex(at[i]), (-1, -1))
        return found

    def _read(
        self,
        token: str,
        rows: NDArray[np.int64],
        at: Position,
        values: NDArray[np.float32],
        into: NDArray[np.intp],
    ) -> None:
        size = self._dim * 4
        with (
            self._path(token, "f32").open("rb", buffering=0) as features,
            self._path(token, "rows").open("rb") as records,
        ):
            for row, position, place in zip(rows.tolist(), at, into.tolist(), strict=True):
                features.seek(row * size)
                records.seek(row * _ROW.itemsize)
                value = np.frombuffer(features.read(size), "<f4")
                record = np.frombuffer(records.read(_ROW.itemsize), _ROW)
                if value.size != self._dim or not len(record) or record["crc"][0] != _checksum(position, value):
                    raise ValueError("the checksum is wrong")
                values[place] = value

    def _discard(self, token: str, error: Exception) -> None:
        """Remove files that cannot be read; others may have done so already."""
        if not isinstance(error, FileNotFoundError):
            warnings.warn(f"Damaged features in the cache are computed again ({error})", stacklevel=3)
        try:
            for suffix in ("rows", "f32"):
                self._path(token, suffix).unlink(missing_ok=True)
        except OSError as refused:  # they stay, and are not used
            warnings.warn(f"Damaged features cannot be removed ({refused.strerror})", stacklevel=3)
        self._forget([token])

    def _forget(self, tokens: list[str]) -> None:
        """Take files out of the index."""
        with self._lock:
            gone = [number for number, token in enumerate(self._tokens) if token in set(tokens)]
            if not gone:
                return
            self._merge()
            known, places = self._index
            stays = ~np.isin(places[:, 0], gone)
            self._index = known[stays], places[stays]
            for token in {self._tokens[number] for number in gone}:
                self._rows.pop(token, None)
            if self._own in {self._tokens[number] for number in gone}:
                self._own = f"{os.getpid()}-{secrets.token_hex(4)}"


def feature_cache(
    slide: Slide, encoder: Encoder | CompiledEncoder, device: torch.device, px: int, mpp: float
) -> FeatureCache:
    """The features of tiles of ``px`` pixels at ``mpp`` that an encoder gave on a device; with a cache of 0 bytes none.

    Devices are told apart, since they round differently.
    """
    spec = encoder.spec
    if limit() == 0:
        return FeatureCache(None, spec.dim)
    half = str(half_on(device, spec.half))
    backend = type(encoder).__name__ if device.type == "cpu" else device.type
    parts = (_LAYOUT, slide.fingerprint, slide.colours, slide.mpp, encoder.sha256, spec, backend, half, px, mpp)
    name = hashlib.sha256(repr(parts).encode()).hexdigest()[:32]
    found = _opened(cache_folder() / "features" / name, spec.dim, os.getpid())
    found.refresh()
    return found


@lru_cache(maxsize=16)
def _opened(folder: Path, dim: int, process: int) -> FeatureCache:
    """One for all runs of this process, so that it adds one pair of files; a forked one has its own."""
    return FeatureCache(folder, dim)


def _position(xy: NDArray[np.float64]) -> Position:
    """Positions as numbers that sort and compare exactly."""
    return np.ascontiguousarray(xy, dtype=np.float64).reshape(-1, 2).view(np.complex128).ravel()


def _checksum(position: complex, value: NDArray[np.float32]) -> int:
    return zlib.crc32(value.tobytes(), zlib.crc32(np.complex128(position).tobytes()))

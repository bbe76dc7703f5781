"""Batches of everything a system's inputs need.

A :class:`Supply` goes through the batches of one run in order and yields, for each, what every input
needs. Tiles of the same size and pixel size are read once, whichever inputs use them.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from napari_he2st.core.errors import ModelError
from napari_he2st.engine.device import to_device
from napari_he2st.engine.features import ENCODED, Scene, ahead
from napari_he2st.engine.inputs import given, positions, tiles
from napari_he2st.zoo import inputs as kinds
from napari_he2st.zoo.base import Input

if TYPE_CHECKING:
    from napari_he2st.data.slides import TileBatch

Resolve = Callable[[int, NDArray[np.intp]], Any]


class Supply:
    """Everything a system's inputs need, batch by batch, in the given order of spots.

    Parameters
    ----------
    inputs
        Name → spec, as the system declares them.
    scene
        Slide, grid, device.
    batches
        Grid rows of each batch.
    together
        Whether the spots of a batch see each other: array positions then count from the batch's first.

    Yields
    ------
    rows : NDArray[np.intp]
        Grid rows of the batch.
    values : dict
        Name → tensor on the device (or what its kind documents).
    ok : NDArray[np.bool_]
        False where a tile could not be read.
    """

    def __init__(
        self, inputs: Mapping[str, Input], scene: Scene, batches: list[NDArray[np.intp]], *, together: bool = False
    ) -> None:
        self._scene, self._batches, self.together = scene, batches, together
        self._tiles: dict[tuple[int, float], _TileStream] = {}
        self._lock = threading.RLock()
        self._resolvers = {name: self._resolver(spec) for name, spec in inputs.items()}

    def __iter__(self) -> Iterator[tuple[NDArray[np.intp], dict[str, Any], NDArray[np.bool_]]]:
        return map(self.resolve, self.numbers())

    def numbers(self) -> Generator[int]:
        """Numbers of the batches, each once its tiles are read; :meth:`resolve` gives the rest, in any thread."""
        try:
            for number in range(len(self._batches)):
                for stream in self._tiles.values():
                    stream.take(number)
                yield number
        finally:
            for stream in self._tiles.values():
                stream.close()

    def resolve(self, number: int) -> tuple[NDArray[np.intp], dict[str, Any], NDArray[np.bool_]]:
        """What a batch whose number was given needs; once."""
        rows = self._batches[number]
        values = {name: resolve(number, rows) for name, resolve in self._resolvers.items()}
        ok = np.ones(len(rows), dtype=bool)
        for stream in self._tiles.values():
            ok &= stream.drop(number)
        return rows, values, ok

    def _resolver(self, spec: Input) -> Resolve:
        make = _RESOLVERS.get(type(spec))
        if make is None:
            message = f"No resolver for inputs of kind {type(spec).__name__}"
            raise ModelError(message)
        if spec.per != "slide":
            return make(self, spec)
        if type(spec) in _WHOLE:
            return self._once(make(self, spec))
        return self._once(self._stacked(replace(spec, per="unit")))

    def _once(self, resolve: Resolve) -> Resolve:
        """Call with all spots, and once, whatever the batch; where a batch is a slide of its own, with its spots."""
        every = np.arange(len(self._scene.grid), dtype=np.intp)
        known: dict[int, Any] = {}

        def values(number: int, rows: NDArray[np.intp]) -> Any:
            key = number if self.together else 0
            with self._lock:
                if key not in known:
                    known.clear()
                    known[key] = resolve(number, rows if self.together else every)
                return known[key]

        return values

    def _stacked(self, spec: Input) -> Resolve:
        """The rows of an input over any number of spots, which are read in parts."""

        def values(number: int, rows: NDArray[np.intp]) -> Any:
            parts = [rows[i : i + ENCODED] for i in range(0, len(rows), ENCODED)]
            batches = [rows] if isinstance(spec, kinds.Positions) else parts
            whole = Supply({"all": spec}, self._scene, batches, together=self.together)
            return torch.cat([found["all"] for _, found, _ in whole])

        return values

    def tiles(
        self, px: int, mpp: float, known: Callable[[NDArray[np.float64]], NDArray[np.bool_]] | None = None
    ) -> _TileStream:
        """The stream of tiles of one size, shared by all inputs that need it.

        Parameters
        ----------
        px, mpp
            The size.
        known
            Says of which positions no tile is needed: batches that have no other are not read ahead.
        """
        key = (px, mpp)
        if key not in self._tiles:
            self._tiles[key] = _TileStream(self._scene, self._batches, px, mpp)
        stream, xy = self._tiles[key], self._scene.grid.xy
        stream.ahead |= {i for i, rows in enumerate(self._batches) if known is None or not known(xy[rows]).all()}
        return stream

    @property
    def scene(self) -> Scene:
        """What the inputs are resolved against."""
        return self._scene


class _TileStream:
    """Tiles of one size, one batch at a time; those of the batches in ``ahead`` are read ahead by a thread."""

    def __init__(self, scene: Scene, batches: list[NDArray[np.intp]], px: int, mpp: float) -> None:
        self._scene, self._batches, self._px, self._mpp = scene, batches, px, mpp
        self.ahead: set[int] = set()
        self._source: Generator[TileBatch] | None = None
        self._held: dict[int, tuple[Tensor, NDArray[np.bool_]]] = {}

    def take(self, number: int) -> None:
        """Hold the tiles of batch ``number``, which comes after the last that was taken, if it is read ahead."""
        if number not in self.ahead:
            return
        if self._source is None:
            order = np.concatenate([self._batches[i] for i in sorted(self.ahead)])
            self._source = ahead(self._read(order, len(self._batches[min(self.ahead)])), depth=2)
        self._hold(number, next(self._source))

    def get(self, number: int) -> Tensor:
        """Tiles of a batch that was taken: uint8 (n, 3, px, px) on the device; read now if not ahead."""
        if number not in self._held:
            rows = self._batches[number]
            (batch,) = self._read(rows, len(rows))
            self._hold(number, batch)
        return self._held[number][0]

    def ok(self, number: int) -> NDArray[np.bool_]:
        """Which tiles of a batch could be read; all if none was needed."""
        return self._held[number][1] if number in self._held else np.ones(len(self._batches[number]), dtype=bool)

    def drop(self, number: int) -> NDArray[np.bool_]:
        """Let a batch go; returns which of its tiles could be read."""
        ok = self.ok(number)
        self._held.pop(number, None)
        return ok

    def close(self) -> None:
        """End the reading thread."""
        if self._source is not None:
            self._source.close()

    def _read(self, rows: NDArray[np.intp], size: int) -> Iterator[TileBatch]:
        scene = self._scene
        return scene.slide.read_tiles(scene.grid.xy[rows], self._px, self._mpp, batch_size=size)

    def _hold(self, number: int, batch: TileBatch) -> None:
        tiles = torch.from_numpy(batch.tiles).permute(0, 3, 1, 2)
        self._held[number] = to_device(tiles, self._scene.device), batch.ok


_RESOLVERS: dict[type[Input], Callable[[Supply, Any], Resolve]] = {
    kinds.Tiles: tiles.tiles,
    kinds.MultiScaleTiles: tiles.multi_scale_tiles,
    kinds.RegionImage: tiles.region_image,
    kinds.Features: tiles.features,
    kinds.NeighbourTiles: tiles.neighbour_tiles,
    kinds.NeighbourFeatures: tiles.neighbour_features,
    kinds.TileGraph: tiles.tile_graph,
    kinds.Bag: tiles.bag,
    kinds.Positions: positions.positions,
    kinds.Index: positions.index,
    kinds.KnnGraph: positions.knn_graph,
    kinds.Expression: given.expression,
    kinds.Nuclei: given.nuclei,
    kinds.CellReference: given.cell_reference,
    kinds.Reference: given.reference,
}

_WHOLE = (kinds.TileGraph, kinds.Bag, kinds.KnnGraph, kinds.CellReference, kinds.Reference)
"""Inputs that describe all spots together, not one after the other."""

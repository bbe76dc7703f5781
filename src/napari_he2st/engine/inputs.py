"""Resolve the inputs that a system declares: one resolver per kind.

A :class:`Supply` goes through the batches of one run in order and yields, for each, what every input
needs. Tiles of the same size and pixel size are read once, whichever inputs use them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from napari_he2st.analysis.graphs import nearest
from napari_he2st.core.errors import ModelError
from napari_he2st.core.types import Grid
from napari_he2st.engine.features import Scene, ahead, encode, encoder_on, encoder_tile, slide_statistics
from napari_he2st.zoo import inputs as kinds
from napari_he2st.zoo.base import Input

if TYPE_CHECKING:
    from napari_he2st.data.slides import TileBatch

_ENCODED = 16
"""Tiles that go through an encoder together."""


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
        self._resolvers = {name: self._resolver(spec) for name, spec in inputs.items()}

    def __iter__(self) -> Iterator[tuple[NDArray[np.intp], dict[str, Any], NDArray[np.bool_]]]:
        try:
            for number, rows in enumerate(self._batches):
                values = {name: resolve(number, rows) for name, resolve in self._resolvers.items()}
                ok = np.ones(len(rows), dtype=bool)
                for stream in self._tiles.values():
                    ok &= stream.ok
                yield rows, values, ok
        finally:
            for stream in self._tiles.values():
                stream.close()

    def _resolver(self, spec: Input) -> Callable[[int, NDArray[np.intp]], Any]:
        if spec.per == "slide" and not isinstance(spec, kinds.TileGraph):
            return self._whole(replace(spec, per="unit"))
        for kind, make in _RESOLVERS.items():
            if type(spec) is kind:
                return make(self, spec)
        message = f"No resolver for inputs of kind {type(spec).__name__}"
        raise ModelError(message)

    def _whole(self, spec: Input) -> Callable[[int, NDArray[np.intp]], Any]:
        """An input of all spots, whatever the batch; where a batch is a slide of its own, of its spots."""
        every = np.arange(len(self._scene.grid), dtype=np.intp)
        known: dict[int, Any] = {}

        def values(number: int, rows: NDArray[np.intp]) -> Any:
            key = number if self.together else 0
            if key not in known:
                spots = rows if self.together else every
                parts = [spots[i : i + _ENCODED] for i in range(0, len(spots), _ENCODED)]
                batches = [spots] if isinstance(spec, kinds.Positions) else parts
                whole = Supply({"all": spec}, self._scene, batches, together=self.together)
                known.clear()
                known[key] = torch.cat([found["all"] for _, found, _ in whole])
            return known[key]

        return values

    def tiles(self, px: int, mpp: float) -> _TileStream:
        """The stream of tiles of one size, shared by all inputs that need it."""
        key = (px, mpp)
        if key not in self._tiles:
            self._tiles[key] = _TileStream(self._scene, self._batches, px, mpp)
        return self._tiles[key]

    @property
    def scene(self) -> Scene:
        """What the inputs are resolved against."""
        return self._scene


class _TileStream:
    """Tiles of one size, read ahead by a thread, one batch at a time."""

    def __init__(self, scene: Scene, batches: list[NDArray[np.intp]], px: int, mpp: float) -> None:
        order = np.concatenate(batches) if batches else np.zeros(0, dtype=np.intp)
        size = len(batches[0]) if batches else 1
        centres = scene.grid.xy[order]
        self._source = ahead(scene.slide.read_tiles(centres, px, mpp, batch_size=size), depth=2)
        self._number, self._device = -1, scene.device
        self.ok: NDArray[np.bool_] = np.zeros(0, dtype=bool)
        self._tensor: Tensor = torch.empty(0)

    def get(self, number: int) -> Tensor:
        """Tiles of batch ``number``: uint8 (n, 3, px, px) on the device."""
        if number != self._number:
            batch: TileBatch = next(self._source)
            self._number, self.ok = number, batch.ok
            self._tensor = torch.from_numpy(batch.tiles).to(self._device).permute(0, 3, 1, 2)
        return self._tensor

    def close(self) -> None:
        """End the reading thread."""
        self._source.close()


# --- resolvers: (supply, spec) -> function of (batch number, rows)


def _tiles(supply: Supply, spec: kinds.Tiles) -> Callable[[int, NDArray[np.intp]], Tensor]:
    stream = supply.tiles(spec.px, supply.scene.tile_mpp(spec.mpp))
    return lambda number, rows: stream.get(number)


def _features(supply: Supply, spec: kinds.Features) -> Callable[[int, NDArray[np.intp]], Tensor]:
    scene = supply.scene
    encoder = encoder_on(spec.encoder, scene.device)
    px, mpp = encoder_tile(scene, spec)
    stream = supply.tiles(px, mpp)
    if spec.standardise == "slide":
        mean, std = (t.to(scene.device) for t in slide_statistics(scene, spec.encoder, px, mpp))
        return lambda number, rows: (encode(encoder, stream.get(number)) - mean) / std
    return lambda number, rows: encode(encoder, stream.get(number))


def _positions(supply: Supply, spec: kinds.Positions) -> Callable[[int, NDArray[np.intp]], Tensor]:
    grid, device = supply.scene.grid, supply.scene.device
    if spec.kind == "um":
        um = torch.from_numpy((grid.xy * grid.mpp).astype(np.float32)).to(device)
        return lambda number, rows: um[torch.from_numpy(rows).to(device)]
    column_row = np.ascontiguousarray(grid.index[:, ::-1], dtype=np.int64)

    def positions(number: int, rows: NDArray[np.intp]) -> Tensor:
        first = column_row[rows if supply.together else slice(None)].min(axis=0)
        # The small surplus keeps whole positions whole where the step is not exact in floating point.
        here = np.floor((column_row[rows] - first) * supply.scene.array_step + 1e-6).astype(np.int64)
        if spec.bins is not None and int(here.max()) >= spec.bins:
            message = f"The spots span {int(here.max()) + 1} array positions; this predictor knows {spec.bins}"
            raise ModelError(message, todo="Predict a smaller region, or at a coarser pitch")
        return torch.from_numpy(here).to(device)

    return positions


def _index(supply: Supply, spec: kinds.Index) -> Callable[[int, NDArray[np.intp]], Tensor]:
    device = supply.scene.device
    return lambda number, rows: torch.from_numpy(rows.astype(np.int64)).to(device)


def _neighbour_tiles(
    supply: Supply, spec: kinds.NeighbourTiles
) -> Callable[[int, NDArray[np.intp]], tuple[Tensor, Tensor]]:
    scene = supply.scene
    neighbours = lattice_rows(scene.grid, spec.offsets)
    mpp = scene.tile_mpp(spec.mpp)

    def tiles(number: int, rows: NDArray[np.intp]) -> tuple[Tensor, Tensor]:
        here = neighbours[rows]
        needed, place = np.unique(here[here >= 0], return_inverse=True)
        read = _read(scene, scene.grid.xy[needed], spec.px, mpp)
        found = torch.zeros(*here.shape, 3, spec.px, spec.px, dtype=torch.uint8)
        found[torch.from_numpy(here >= 0)] = read[torch.from_numpy(place)]
        return found.to(scene.device), torch.from_numpy(here >= 0).to(scene.device)

    return tiles


def _neighbour_features(
    supply: Supply, spec: kinds.NeighbourFeatures
) -> Callable[[int, NDArray[np.intp]], tuple[Tensor, Tensor]]:
    scene = supply.scene
    encoder = encoder_on(spec.encoder, scene.device)
    px, mpp = encoder_tile(scene, kinds.Features(encoder=spec.encoder, px=spec.px, mpp=spec.mpp))
    half = spec.size // 2
    steps = np.stack(np.meshgrid(np.arange(spec.size), np.arange(spec.size)), axis=-1).reshape(-1, 2) - half

    if spec.at == "lattice":
        neighbours = lattice_rows(scene.grid, [(int(dx), int(dy)) for dx, dy in steps])

        def around(rows: NDArray[np.intp]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
            here = neighbours[rows]
            return scene.grid.xy[np.maximum(here, 0)], here >= 0
    else:
        stride_px = spec.px * scene.tile_mpp(spec.mpp) / scene.slide.mpp

        def around(rows: NDArray[np.intp]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
            centres = scene.grid.xy[rows][:, None] + steps * stride_px
            inside = np.asarray(((centres >= 0) & (centres < np.asarray(scene.slide.size))).all(axis=-1))
            return centres, inside

    # A tile that several spots have in their neighbourhood is encoded once.
    known: dict[tuple[float, float], Tensor] = {}

    def features(number: int, rows: NDArray[np.intp]) -> tuple[Tensor, Tensor]:
        centres, exists = around(rows)
        wanted = [tuple(centre) for centre in np.round(centres[exists], 3).tolist()]
        fresh = list(dict.fromkeys(centre for centre in wanted if centre not in known))
        if fresh:
            tiles = _read(scene, np.asarray(fresh), px, mpp)
            for start in range(0, len(fresh), _ENCODED):
                encoded = encode(encoder, tiles[start : start + _ENCODED].to(scene.device))
                known.update(zip(fresh[start : start + _ENCODED], encoded, strict=True))
        found = torch.zeros(*exists.shape, encoder.spec.dim, device=scene.device)
        mask = torch.from_numpy(exists).to(scene.device)
        if wanted:
            found[mask] = torch.stack([known[centre] for centre in wanted])
        return found, mask

    return features


def _tile_graph(
    supply: Supply, spec: kinds.TileGraph
) -> Callable[[int, NDArray[np.intp]], tuple[Tensor, Tensor, Tensor]]:
    scene = supply.scene
    encoder = encoder_on(spec.encoder, scene.device)
    px, mpp = encoder_tile(scene, kinds.Features(encoder=spec.encoder, px=spec.px, mpp=spec.mpp))
    side_px = spec.px * scene.tile_mpp(spec.mpp) / scene.slide.mpp

    def graph(number: int, rows: NDArray[np.intp]) -> tuple[Tensor, Tensor, Tensor]:
        cells, owner = np.unique(np.floor(scene.grid.xy[rows] / side_px), axis=0, return_inverse=True)
        tiles = _read(scene, (cells + 0.5) * side_px, px, mpp)
        parts = [encode(encoder, tiles[i : i + _ENCODED].to(scene.device)) for i in range(0, len(tiles), _ENCODED)]
        near = np.zeros((len(cells), len(cells)), dtype=bool)
        if len(cells) > 1:
            near[np.arange(len(cells))[:, None], nearest(cells, min(8, len(cells) - 1))] = True
        mutual = torch.from_numpy((near & near.T).astype(np.float32)).to(scene.device)
        return torch.cat(parts), torch.from_numpy(owner.reshape(-1)).to(scene.device), mutual

    return graph


def _read(scene: Scene, centres: NDArray[np.float64], px: int, mpp: float) -> Tensor:
    """Tiles around some positions: uint8 (n, 3, px, px) on the CPU; white where one cannot be read."""
    if not len(centres):
        return torch.zeros(0, 3, px, px, dtype=torch.uint8)
    tiles = np.concatenate([batch.tiles for batch in scene.slide.read_tiles(centres, px, mpp, batch_size=_ENCODED)])
    return torch.from_numpy(tiles).permute(0, 3, 1, 2)


def lattice_rows(grid: Grid, offsets: Sequence[tuple[int, int]]) -> NDArray[np.intp]:
    """Row of the spot at each (column, row) step from each spot: intp (n, steps), −1 where there is none."""
    where = {(int(column), int(row)): i for i, (row, column) in enumerate(grid.index)}
    return np.array(
        [[where.get((int(c) + dx, int(r) + dy), -1) for dx, dy in offsets] for r, c in grid.index], dtype=np.intp
    ).reshape(len(grid), len(offsets))


_RESOLVERS: dict[type[Input], Callable[[Supply, Any], Callable[[int, NDArray[np.intp]], Any]]] = {
    kinds.Tiles: _tiles,
    kinds.Features: _features,
    kinds.Positions: _positions,
    kinds.Index: _index,
    kinds.NeighbourTiles: _neighbour_tiles,
    kinds.NeighbourFeatures: _neighbour_features,
    kinds.TileGraph: _tile_graph,
}

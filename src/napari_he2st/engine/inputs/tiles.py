"""Resolvers of image inputs: tiles, regions, and the features that encoders make of them.

A resolver takes the supply and a spec and returns a function of (batch number, grid rows).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from napari_he2st.analysis.graphs import nearest
from napari_he2st.core.errors import ModelError
from napari_he2st.core.types import Grid
from napari_he2st.data.slides.grid import square_grid
from napari_he2st.data.slides.tissue import tissue_mask
from napari_he2st.engine.device import auto_workers
from napari_he2st.engine.features import ENCODED, Scene, ahead, encoder_on, encoder_tile, slide_statistics
from napari_he2st.engine.workers import in_order
from napari_he2st.zoo import inputs as kinds
from napari_he2st.zoo.base import Regions

if TYPE_CHECKING:
    from napari_he2st.data.slides import TileBatch
    from napari_he2st.engine.inputs.supply import Supply

Rows = NDArray[np.intp]

RECENT_TILES = 4096
"""Tiles in the neighbourhood of spots whose features are held in memory: some rows of a slide."""


def tiles(supply: Supply, spec: kinds.Tiles) -> Callable[[int, Rows], Tensor]:
    """Tiles around spots."""
    stream = supply.tiles(spec.px, supply.scene.tile_mpp(spec.mpp))
    return lambda number, rows: stream.get(number)


def features(supply: Supply, spec: kinds.Features) -> Callable[[int, Rows], Tensor]:
    """Encoder features of tiles around spots."""
    scene = supply.scene
    px, mpp = encoder_tile(scene, spec)
    known = scene.known(spec.encoder, px, mpp)  # so that what is wrong with it is said before any reading
    stream = supply.tiles(px, mpp, known.has)

    def encoded(number: int, rows: Rows) -> Tensor:
        xy = scene.grid.xy[rows]
        values, there = known.get(xy)
        if there.all():
            return torch.from_numpy(values).to(scene.device)
        missing = np.flatnonzero(~there)
        tiles = stream.get(number)
        fresh = scene.encode(spec.encoder, tiles if not there.any() else tiles[torch.from_numpy(missing)])
        ok = stream.ok(number)[missing]
        known.put(xy[missing[ok]], fresh.cpu().numpy()[ok])
        if not there.any():
            return fresh
        found = torch.from_numpy(values).to(scene.device)
        found[torch.from_numpy(missing).to(scene.device)] = fresh
        return found

    if spec.standardise == "slide":
        mean, std = (t.to(scene.device) for t in slide_statistics(scene, spec.encoder, px, mpp))
        return lambda number, rows: (encoded(number, rows) - mean) / std
    return encoded


def neighbour_tiles(supply: Supply, spec: kinds.NeighbourTiles) -> Callable[[int, Rows], tuple[Tensor, Tensor]]:
    """Tiles of lattice neighbours, and which exist."""
    scene = supply.scene
    neighbours = lattice_rows(scene.grid, spec.offsets)
    mpp = scene.tile_mpp(spec.mpp)

    def tiles(number: int, rows: Rows) -> tuple[Tensor, Tensor]:
        here = neighbours[rows]
        needed, place = np.unique(here[here >= 0], return_inverse=True)
        read = read_tiles(scene, scene.grid.xy[needed], spec.px, mpp)
        found = torch.zeros(*here.shape, 3, spec.px, spec.px, dtype=torch.uint8)
        found[torch.from_numpy(here >= 0)] = read[torch.from_numpy(place)]
        return found.to(scene.device), torch.from_numpy(here >= 0).to(scene.device)

    return tiles


def neighbour_features(supply: Supply, spec: kinds.NeighbourFeatures) -> Callable[[int, Rows], tuple[Tensor, Tensor]]:
    """Features of the tiles around spots, and which exist."""
    scene = supply.scene
    dim = encoder_on(spec.encoder, scene.device, scene.compiled).spec.dim
    px, mpp = encoder_tile(scene, kinds.Features(encoder=spec.encoder, px=spec.px, mpp=spec.mpp))
    half = spec.size // 2
    steps = np.stack(np.meshgrid(np.arange(spec.size), np.arange(spec.size)), axis=-1).reshape(-1, 2) - half

    if spec.at == "lattice":
        neighbours = lattice_rows(scene.grid, [(int(dx), int(dy)) for dx, dy in steps])

        def around(rows: Rows) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
            here = neighbours[rows]
            return scene.grid.xy[np.maximum(here, 0)], here >= 0
    else:
        stride_px = spec.px * scene.tile_mpp(spec.mpp) / scene.slide.mpp

        def around(rows: Rows) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
            centres = scene.grid.xy[rows][:, None] + steps * stride_px
            inside = np.asarray(((centres >= 0) & (centres < np.asarray(scene.slide.size))).all(axis=-1))
            return centres, inside

    # A tile that several spots have in their neighbourhood is encoded once: the last ones are at hand, the others
    # in the cache.
    recent: OrderedDict[tuple[float, float], Tensor] = OrderedDict()

    def features(number: int, rows: Rows) -> tuple[Tensor, Tensor]:
        centres, exists = around(rows)
        wanted = [tuple(centre) for centre in np.round(centres[exists], 3).tolist()]
        here = {centre: recent[centre] for centre in wanted if centre in recent}
        fresh = list(dict.fromkeys(centre for centre in wanted if centre not in here))
        if fresh:
            values, _ = encoded_at(scene, spec.encoder, np.asarray(fresh), px, mpp)
            here.update(zip(fresh, values, strict=True))
        for centre, value in here.items():
            recent[centre] = value
            recent.move_to_end(centre)
        while len(recent) > RECENT_TILES:
            recent.popitem(last=False)
        found = torch.zeros(*exists.shape, dim, device=scene.device)
        mask = torch.from_numpy(exists).to(scene.device)
        if wanted:
            found[mask] = torch.stack([here[centre] for centre in wanted])
        return found, mask

    return features


def tile_graph(supply: Supply, spec: kinds.TileGraph) -> Callable[[int, Rows], tuple[Tensor, Tensor, Tensor]]:
    """Features of the tiles that spots lie in, the tile of each spot, and their neighbours."""
    scene = supply.scene
    px, mpp = encoder_tile(scene, kinds.Features(encoder=spec.encoder, px=spec.px, mpp=spec.mpp))
    side_px = spec.px * scene.tile_mpp(spec.mpp) / scene.slide.mpp

    def graph(number: int, rows: Rows) -> tuple[Tensor, Tensor, Tensor]:
        cells, owner = np.unique(np.floor(scene.grid.xy[rows] / side_px), axis=0, return_inverse=True)
        encoded, _ = encoded_at(scene, spec.encoder, (cells + 0.5) * side_px, px, mpp)
        near = np.zeros((len(cells), len(cells)), dtype=bool)
        if len(cells) > 1:
            near[np.arange(len(cells))[:, None], nearest(cells, min(8, len(cells) - 1))] = True
        mutual = torch.from_numpy((near & near.T).astype(np.float32)).to(scene.device)
        return encoded, torch.from_numpy(owner.reshape(-1)).to(scene.device), mutual

    return graph


def multi_scale_tiles(supply: Supply, spec: kinds.MultiScaleTiles) -> Callable[[int, Rows], Tensor]:
    """Tiles of every scale: uint8 (n, scales, 3, px, px)."""
    mpp = supply.scene.tile_mpp(spec.mpp)
    streams = [supply.tiles(spec.px, mpp * factor) for factor in spec.factors]
    return lambda number, rows: torch.stack([stream.get(number) for stream in streams], dim=1)


def region_image(supply: Supply, spec: kinds.RegionImage) -> Callable[[int, Rows], Tensor]:
    """Images of regions, whose centres are the scene's grid: uint8 (n, 3, px, px)."""
    unit = supply.scene.unit
    px, mpp = (unit.px, unit.mpp) if isinstance(unit, Regions) else (spec.px, spec.mpp)
    if px is None or mpp is None:
        raise ModelError("A RegionImage says neither how large it is nor has a unit that does")
    stream = supply.tiles(px, mpp)
    return lambda number, rows: stream.get(number)


def bag(supply: Supply, spec: kinds.Bag) -> Callable[[int, Rows], tuple[Tensor, Tensor]]:
    """Features and positions (µm) of the tiles that cover the tissue, encoded at the first call."""
    scene = supply.scene
    px, mpp = encoder_tile(scene, kinds.Features(encoder=spec.encoder, px=spec.px, mpp=spec.mpp))
    tiles_um = spec.px * scene.tile_mpp(spec.mpp)
    known: list[tuple[Tensor, Tensor]] = []

    def found(number: int, rows: Rows) -> tuple[Tensor, Tensor]:
        if not known:
            xy = square_grid(scene.slide, tiles_um, mask=tissue_mask(scene.slide)).xy
            if not len(xy):
                raise ModelError("No tissue was found on the slide", where=scene.slide.name)
            if spec.max_tiles is not None and len(xy) > spec.max_tiles:
                xy = xy[np.linspace(0, len(xy) - 1, spec.max_tiles).round().astype(np.intp)]
            # A tile that cannot be read is not in the bag.
            encoded, ok = encoded_at(scene, spec.encoder, xy, px, mpp, n_workers=auto_workers(scene.device))
            um = torch.from_numpy((xy[ok] * scene.slide.mpp).astype(np.float32)).to(scene.device)
            known.append((encoded[torch.from_numpy(ok).to(scene.device)], um))
        return known[0]

    return found


def encoded_at(
    scene: Scene, encoder: str, centres: NDArray[np.float64], px: int, mpp: float, *, n_workers: int = 1
) -> tuple[Tensor, NDArray[np.bool_]]:
    """Features around some positions: float32 (n, dim), and which of the tiles could be read."""
    known = scene.known(encoder, px, mpp)
    values, there = known.get(centres)
    missing = np.flatnonzero(~there)
    ok = np.ones(len(centres), dtype=bool)

    def encoded(batch: TileBatch) -> tuple[TileBatch, Tensor]:
        return batch, scene.encode(encoder, torch.from_numpy(batch.tiles).permute(0, 3, 1, 2))

    if len(missing):
        batches = ahead(scene.slide.read_tiles(centres[missing], px, mpp, batch_size=ENCODED), depth=2)
        for start, (batch, fresh) in zip(
            range(0, len(missing), ENCODED), in_order(encoded, batches, n_workers), strict=True
        ):
            rows = missing[start : start + ENCODED]
            values[rows], ok[rows] = fresh.cpu().numpy(), batch.ok
            known.put(centres[rows[batch.ok]], values[rows[batch.ok]])
    return torch.from_numpy(values).to(scene.device), ok


def read_tiles(scene: Scene, centres: NDArray[np.float64], px: int, mpp: float) -> Tensor:
    """Tiles around some positions: uint8 (n, 3, px, px) on the CPU; white where one cannot be read."""
    if not len(centres):
        return torch.zeros(0, 3, px, px, dtype=torch.uint8)
    tiles = np.concatenate([batch.tiles for batch in scene.slide.read_tiles(centres, px, mpp, batch_size=ENCODED)])
    return torch.from_numpy(tiles).permute(0, 3, 1, 2)


def lattice_rows(grid: Grid, offsets: Sequence[tuple[int, int]]) -> NDArray[np.intp]:
    """Row of the spot at each (column, row) step from each spot: intp (n, steps), −1 where there is none."""
    where = {(int(column), int(row)): i for i, (row, column) in enumerate(grid.index)}
    return np.array(
        [[where.get((int(c) + dx, int(r) + dy), -1) for dx, dy in offsets] for r, c in grid.index], dtype=np.intp
    ).reshape(len(grid), len(offsets))

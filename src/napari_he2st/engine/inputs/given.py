"""Resolvers of inputs that the user supplies beside the slide: measured spots, single cells, nuclei."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from napari_he2st.core import keys
from napari_he2st.core.errors import GeneError, ModelError, TruthError
from napari_he2st.core.schema import grid_of
from napari_he2st.core.types import Nuclei
from napari_he2st.zoo import inputs as kinds
from napari_he2st.zoo.base import Expression, Predictor, Regions
from napari_he2st.zoo.scale import scale_of

if TYPE_CHECKING:
    from anndata import AnnData

    from napari_he2st.engine.features import Scene
    from napari_he2st.engine.inputs.supply import Supply

Rows = NDArray[np.intp]


def reference(supply: Supply, spec: kinds.Reference) -> Callable[[int, Rows], None]:
    """None: the bank belongs to a trained member, and is put in its place where that is known."""
    return lambda number, rows: None


def cell_reference(supply: Supply, spec: kinds.CellReference) -> Callable[[int, Rows], dict[str, Tensor]]:
    """Counts, totals and types of the user's single cells."""
    scene, model = supply.scene, _model_of(supply.scene)
    cells = scene.given.cells
    if cells is None:
        raise TruthError("This predictor needs single cells with known types", todo="Supply them with --cells")
    if spec.label not in cells.obs:
        message = f"The single cells have no column {spec.label!r}"
        raise TruthError(message, todo=f"They have {', '.join(map(str, cells.obs.columns[:8]))}")
    counts, total = counts_of(cells, model.genes)
    if np.isnan(counts).all():
        raise GeneError("The single cells share no gene with the predictor", todo="Give both symbols of one species")
    types = np.unique(np.asarray(cells.obs[spec.label]).astype(str), return_inverse=True)[1]
    found = {
        "counts": torch.from_numpy(counts.astype(np.float32)).to(scene.device),
        "total": torch.from_numpy(total.astype(np.float32)).to(scene.device),
        "label": torch.from_numpy(types.reshape(-1).astype(np.int64)).to(scene.device),
    }
    return lambda number, rows: found


def expression(supply: Supply, spec: kinds.Expression) -> Callable[[int, Rows], Tensor]:
    """Measured expression at the spots of the grid, NaN at spots where nothing was measured."""
    scene, model = supply.scene, _model_of(supply.scene)
    measured = scene.given.measured
    n = len(scene.grid)
    values = np.full((n, len(model.genes)), np.nan, dtype=np.float32)
    if measured is not None:
        target = model.targets["expression"]
        own = target.scale if isinstance(target, Expression) else "log1p_cp10k"
        counts, total = counts_of(measured, model.genes)
        fitted = model.extras.get("scale", {}) if spec.scale in (None, own) else {}
        known = np.asarray(scale_of(spec.scale or own).transform(counts, fitted, total), dtype=np.float32)
        where = grid_of(measured)
        distance, row = _closest(where.xy, scene.grid.xy)
        near = distance * scene.grid.mpp <= 0.5 * min(where.pitch_um, scene.grid.pitch_um)
        values[near] = known[row[near]]
    found = torch.from_numpy(values).to(scene.device)
    return lambda number, rows: found[torch.from_numpy(rows).to(scene.device)]


def nuclei(supply: Supply, spec: kinds.Nuclei) -> Callable[[int, Rows], Tensor]:
    """Masks of nuclei, or label maps of regions."""
    scene = supply.scene
    given = scene.given.nuclei
    if given is None:
        raise TruthError("This predictor needs segmented nuclei", todo="Segment the slide, then supply its labels")
    if isinstance(scene.unit, Regions):
        px, mpp, members = scene.unit.px, scene.unit.mpp, scene.members

        def label_maps(number: int, rows: Rows) -> Tensor:
            kept = np.concatenate([members[row] for row in rows])
            place = np.zeros(given.largest + 1, dtype=np.int64)
            place[given.numbers[kept]] = 1 + np.arange(len(kept))
            maps = place[np.stack([_cut(given, scene, scene.grid.xy[row], px, mpp) for row in rows])]
            for i, row in enumerate(rows):  # a nucleus too small to be hit by the map's pixels is one pixel large
                lost = members[row][~np.isin(place[given.numbers[members[row]]], maps[i])]
                at = given.centres_px[lost] * given.mpp - scene.grid.xy[row] * scene.slide.mpp
                x, y = np.floor(at / mpp + px / 2).astype(np.intp).clip(0, px - 1).T
                maps[i, y, x] = place[given.numbers[lost]]
            return torch.from_numpy(maps).to(scene.device)

        return label_maps
    if spec.px is None:
        raise ModelError("A Nuclei input says not how large its masks are")
    px, mpp = spec.px, scene.tile_mpp(spec.mpp)
    number_of = scene.grid.index[:, 0]

    def masks(number: int, rows: Rows) -> Tensor:
        cut = np.stack([_cut(given, scene, scene.grid.xy[row], px, mpp) == number_of[row] for row in rows])
        return torch.from_numpy(cut).to(scene.device)

    return masks


def counts_of(adata: AnnData, genes: list[str]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Counts in a panel's order, (n, genes), NaN for genes that were not measured, and totals over all genes, (n,).

    Raises
    ------
    TruthError
        There are no raw counts.
    """
    if keys.COUNTS not in adata.layers:
        raise TruthError("There are no raw counts", where=f"layers[{keys.COUNTS!r}]", todo="Keep the counts there")
    counts = adata.layers[keys.COUNTS]
    total = np.asarray(counts.sum(axis=1), dtype=np.float64).ravel()
    column = adata.var_names.get_indexer(genes)
    panel = counts[:, column[column >= 0]]
    values = np.full((adata.n_obs, len(genes)), np.nan)
    values[:, column >= 0] = panel.toarray() if hasattr(panel, "toarray") else np.asarray(panel)
    return values, total


def _model_of(scene: Scene) -> Predictor:
    if scene.model is None:
        raise ModelError("This input depends on what the predictor learned, and none is there")
    return scene.model


def _closest(known: NDArray[np.float64], wanted: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
    """Distance and row of the closest of ``known`` positions to each wanted one."""
    from scipy.spatial import cKDTree

    if not len(known):
        return np.full(len(wanted), np.inf), np.zeros(len(wanted), dtype=np.intp)
    distance, row = cKDTree(known).query(wanted)
    return distance, np.asarray(row, dtype=np.intp)


def _cut(nuclei: Nuclei, scene: Scene, centre: NDArray[np.float64], px: int, mpp: float) -> NDArray[np.int64]:
    """Labels around a position (x, y) in level-0 pixels: int64 (px, px), 0 outside of the label image."""
    at = (np.arange(px) + 0.5 - px / 2) * mpp / nuclei.mpp
    x, y = (np.floor(c * scene.slide.mpp / nuclei.mpp + at).astype(np.intp) for c in centre)
    height, width = nuclei.labels.shape
    inside = ((y >= 0) & (y < height))[:, None] & ((x >= 0) & (x < width))[None]
    found = nuclei.labels[y.clip(0, height - 1)[:, None], x.clip(0, width - 1)[None]]
    return np.where(inside, found, 0).astype(np.int64)

"""Resolve the inputs and targets of training sections, once per section."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from napari_he2st.analysis.graphs import nearest
from napari_he2st.core import keys
from napari_he2st.core.errors import TruthError
from napari_he2st.core.progress import Control
from napari_he2st.core.schema import grid_of
from napari_he2st.core.types import Grid
from napari_he2st.data.slides import Slide
from napari_he2st.data.slides.stain import normalised
from napari_he2st.engine.features import ENCODED, NOTHING_GIVEN, Given, Scene
from napari_he2st.engine.inputs import Supply
from napari_he2st.engine.regions import Geometry, Layout
from napari_he2st.engine.run import is_dense, predicts_cells
from napari_he2st.zoo.base import Expression, Pixels, Predictor, Regions, Spots
from napari_he2st.zoo.scale import scale_of

if TYPE_CHECKING:
    from anndata import AnnData

    from napari_he2st.data.truth import Section


@dataclass(eq=False)
class TrainingSection:
    """A measured section with its open slide.

    Attributes
    ----------
    name, patient
        What the card and the splits call it.
    adata
        Measured expression with ``layers["counts"]``.
    slide, grid
        Where its spots lie.
    given
        What some predictors need beside the slide.
    """

    name: str
    patient: str
    adata: AnnData
    slide: Slide
    grid: Grid
    given: Given = NOTHING_GIVEN

    @classmethod
    def open(cls, section: Section, given: Given = NOTHING_GIVEN, stain: str | None = None) -> TrainingSection:
        """Open the slide of a section, its stain normalised if a method is named.

        Raises
        ------
        TruthError
            The section has no slide, or no raw counts.
        """
        if section.slide_path is None:
            raise TruthError("The section has no image to train on", where=section.name, todo="Put its H&E beside it")
        if keys.COUNTS not in section.adata.layers:
            raise TruthError("The section has no raw counts", where=section.name, todo="Give it layers['counts']")
        grid = grid_of(section.adata)
        check_counts(section)
        slide = normalised(Slide.open(section.slide_path, mpp=grid.mpp, name=section.name), stain)
        return cls(section.name, section.patient or section.name, section.adata, slide, grid, given)

    def digest(self) -> list[str]:
        """What identifies image, patient and spots."""
        counts, spots = self.adata.layers[keys.COUNTS], hashlib.sha256()
        for values in (
            np.asarray(counts.sum(axis=0)),
            np.asarray(counts.sum(axis=1)),
            self.adata.obsm[keys.SPATIAL],
            np.array(list(self.adata.var_names), dtype="U"),
        ):
            spots.update(np.ascontiguousarray(values).tobytes())
        return [self.slide.fingerprint, self.patient, spots.hexdigest()]

    def counts(self, genes: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Counts of a panel, float64 (n, genes), NaN where unmeasured, and library size over all measured genes."""
        counts = self.adata.layers[keys.COUNTS]
        column = self.adata.var_names.get_indexer(list(genes))
        panel = counts[:, column]
        panel = (panel.toarray() if hasattr(panel, "toarray") else np.asarray(panel)).astype(np.float64)
        panel[:, column < 0] = np.nan
        return panel, np.asarray(counts.sum(axis=1), dtype=np.float64).ravel()


def check_counts(section: Section) -> None:
    """Refuse counts that are not all known; raises TruthError with how many are missing, and where."""
    counts = section.adata.layers[keys.COUNTS]
    missing = np.asarray(np.isnan(np.asarray(counts.sum(axis=0), dtype=np.float64))).ravel()
    if missing.any():
        names = ", ".join(map(str, section.adata.var_names[missing][:3]))
        message = f"Counts of {int(missing.sum())} genes are not numbers in some spots ({names} …)"
        raise TruthError(message, where=section.name, todo="Drop these genes or spots; a count of nothing is 0")


@dataclass(eq=False)
class Resolved:
    """Inputs of one section, on the CPU.

    Attributes
    ----------
    inputs
        By name, one row per unit: spot, nucleus or region; or already prepared, one row per cell.
    ok
        False for units of which a tile could not be read, shape (units,).
    owner
        Spot that each unit (shape (units,)), each cell of a region (shape (regions, cells)) or each nucleus (shape
        (nuclei,)) lies in, int64, −1 in none; None where units are the spots themselves.
    members
        Nuclei of each region, as rows of ``owner``; None where regions hold the cells of a lattice.
    """

    inputs: dict[str, Any]
    ok: np.ndarray
    owner: np.ndarray | None = None
    members: tuple[np.ndarray, ...] | None = None


def resolve(model: Predictor, section: TrainingSection, mpp: float, device: torch.device, control: Control) -> Resolved:
    """Everything the model's inputs need for all spots of a section, held in memory."""
    control.start(None, f"Reading {section.name}")
    grid = section.grid
    scene = Scene(section.slide, grid, mpp, device, model=model, given=section.given)
    if isinstance(model.unit, Regions) and predicts_cells(model):
        return _resolve_nuclei(model, scene, control)
    if is_dense(model):
        return _resolve_regions(model, scene, control)
    owner = None
    if section.given.nuclei is not None and predicts_cells(model):
        cells = section.given.nuclei.grid(grid.mpp)
        owner = _spot_of(cells.xy, grid)
        scene, grid = replace(scene, grid=cells), cells
    rows = np.arange(len(grid), dtype=np.intp)
    size = ENCODED if isinstance(model.unit, Spots) else len(rows)
    batches = [rows[i : i + size] for i in range(0, len(rows), size)]
    control.start(len(rows), f"Reading {section.name}")
    inputs, ok = _collect(model, Supply(model.inputs, scene, batches), control)
    return Resolved(inputs, ok, owner)


def _resolve_nuclei(model: Predictor, scene: Scene, control: Control) -> Resolved:
    """The regions that show nuclei within a section's spots, with these nuclei."""
    if scene.given.nuclei is None:
        raise TruthError(
            "This predictor needs segmented nuclei", where=scene.slide.name, todo="Name them with --nuclei"
        )
    nuclei = scene.given.nuclei.grid(scene.grid.mpp)
    owner = _spot_of(nuclei.xy, scene.grid)
    if (owner < 0).all():
        raise TruthError("No nucleus lies in a spot of the section", where=scene.slide.name, todo="Check that both fit")
    layout = Layout.of(Geometry.of(model), scene.slide, nuclei, np.flatnonzero(owner >= 0))
    regions = np.arange(len(layout), dtype=np.intp)
    control.start(len(regions), f"Reading {scene.slide.name}")
    scene = replace(scene, grid=layout.centres, members=layout.members)
    inputs, ok = _collect(model, Supply(model.inputs, scene, [regions[i : i + 1] for i in regions]), control)
    return Resolved(inputs, ok, owner, layout.members)


def _resolve_regions(model: Predictor, scene: Scene, control: Control) -> Resolved:
    """The regions that show a section's spots; for a predictor of pixels, the cells of its spots, prepared."""
    layout = Layout.of(Geometry.of(model), scene.slide, scene.grid, np.arange(len(scene.grid), dtype=np.intp))
    regions = np.arange(len(layout), dtype=np.intp)
    scene = replace(scene, grid=layout.centres, members=layout.members)
    supply = Supply(model.inputs, scene, [regions[i : i + 1] for i in regions])
    control.start(len(regions), "Reading regions")
    owner = np.full((len(regions), layout.geometry.bins**2), -1, dtype=np.int64)
    for region in range(len(layout)):
        cells, spot = layout.owned(region)
        owner[region, cells] = layout.members[region][spot]
    if not isinstance(model.unit, Pixels):
        inputs, ok = _collect(model, supply, control)
        return Resolved(inputs, ok, owner)
    parts: list[dict[str, Any]] = []
    owners = []
    for region, (_, values, readable) in enumerate(supply):
        control.advance()
        cells, spot = layout.owned(region)
        if readable.all() and len(cells):
            with torch.inference_mode():
                prepared = model.prepare(**values)
            parts.append({name: value[torch.from_numpy(cells)].cpu() for name, value in prepared.items()})
            owners.append(layout.members[region][spot])
    if not parts:
        raise TruthError("No region of the section can be read", where=scene.slide.name)
    inputs = {name: torch.cat([part[name] for part in parts]).clone() for name in parts[0]}
    found = np.concatenate(owners)
    return Resolved(inputs, np.ones(len(found), dtype=bool), found.astype(np.int64))


def _collect(model: Predictor, supply: Supply, control: Control) -> tuple[dict[str, Any], np.ndarray]:
    """All batches of a supply, joined, on the CPU."""
    parts: dict[str, list[Any]] = {name: [] for name in model.inputs}
    ok = []
    for done, values, readable in supply:
        for name, value in values.items():
            parts[name].append(to_device(value, torch.device("cpu")))
        ok.append(readable)
        control.advance(len(done))
    return {name: join(model.inputs[name].per, values) for name, values in parts.items()}, np.concatenate(ok)


def _spot_of(xy: np.ndarray, grid: Grid) -> np.ndarray:
    """Row of the spot whose disc each position lies in, −1 in none: int64 (n,)."""
    from scipy.spatial import cKDTree

    distance, row = cKDTree(grid.xy).query(xy)
    return np.where(distance * grid.mpp <= grid.spot_um / 2, row, -1).astype(np.int64)


def join(per: str, values: list[Any]) -> Any:
    """Batches of an input as one; what describes the whole slide is the same in all of them."""
    if per == "slide":
        return values[0]
    if isinstance(values[0], tuple):
        return tuple(torch.cat(parts) for parts in zip(*values, strict=True))
    return torch.cat(values)


def take(value: Any, rows: Any) -> Any:
    """Rows of an input, which may be a tuple of tensors."""
    return tuple(part[rows] for part in value) if isinstance(value, tuple) else value[rows]


def to_device(value: Any, device: torch.device) -> Any:
    """An input on a device."""
    if isinstance(value, tuple):
        return tuple(to_device(part, device) for part in value)
    if isinstance(value, dict):
        return {name: to_device(part, device) for name, part in value.items()}
    return value.to(device) if isinstance(value, Tensor) else value


def expression_target(
    section: TrainingSection, genes: Sequence[str], target: Expression, fitted: dict[str, Any]
) -> Tensor:
    """Training target of a section: float32 (n, genes), in the target's scale, smoothed if it says so."""
    counts, total = section.counts(genes)
    expression = scale_of(target.scale).transform(counts, fitted, total)
    if target.smooth is not None and target.smooth > 1 and len(expression) > target.smooth:
        neighbours = np.concatenate(
            [np.arange(len(expression))[:, None], nearest(section.grid.xy, target.smooth - 1)], axis=1
        )
        expression = np.asarray(expression)[neighbours].mean(axis=1)
    return torch.from_numpy(np.asarray(expression, dtype=np.float32))

"""Resolve the inputs and targets of training sections, once per section."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
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
from napari_he2st.engine.features import Scene
from napari_he2st.engine.inputs import Supply
from napari_he2st.zoo.base import Expression, Predictor, Spots
from napari_he2st.zoo.scale import scale_of

if TYPE_CHECKING:
    from anndata import AnnData

    from napari_he2st.data.truth import Section

_BATCH = 16


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
    """

    name: str
    patient: str
    adata: AnnData
    slide: Slide
    grid: Grid

    @classmethod
    def open(cls, section: Section) -> TrainingSection:
        """Open the slide of a section.

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
        slide = Slide.open(section.slide_path, mpp=grid.mpp)
        return cls(section.name, section.patient or section.name, section.adata, slide, grid)

    def counts(self, genes: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Counts of a panel, float64 (n, genes), NaN where unmeasured, and library size over all measured genes."""
        counts = self.adata.layers[keys.COUNTS]
        column = self.adata.var_names.get_indexer(list(genes))
        panel = counts[:, column]
        panel = (panel.toarray() if hasattr(panel, "toarray") else np.asarray(panel)).astype(np.float64)
        panel[:, column < 0] = np.nan
        return panel, np.asarray(counts.sum(axis=1), dtype=np.float64).ravel()


@dataclass(eq=False)
class Resolved:
    """Inputs of one section, one row per spot; ``ok`` is False where a tile could not be read."""

    inputs: dict[str, Any]
    ok: np.ndarray


def resolve(model: Predictor, section: TrainingSection, mpp: float, device: torch.device, control: Control) -> Resolved:
    """Everything the model's inputs need for all spots of a section, held in memory on the CPU."""
    rows = np.arange(len(section.grid), dtype=np.intp)
    size = _BATCH if isinstance(model.unit, Spots) else len(rows)
    batches = [rows[i : i + size] for i in range(0, len(rows), size)]
    scene = Scene(section.slide, section.grid, mpp, device)
    control.start(len(rows), f"Reading {section.name}")
    parts: dict[str, list[Any]] = {name: [] for name in model.inputs}
    ok = []
    for done, values, readable in Supply(model.inputs, scene, batches):
        for name, value in values.items():
            parts[name].append(to_device(value, torch.device("cpu")))
        ok.append(readable)
        control.advance(len(done))
    inputs = {name: _join(model.inputs[name].per, values) for name, values in parts.items()}
    return Resolved(inputs, np.concatenate(ok))


def _join(per: str, values: list[Any]) -> Any:
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


class TrainingBatches:
    """Batches over training sections: shuffled spots, or whole sections where spots see each other.

    Parameters
    ----------
    model
        Tells the unit and prepares inputs.
    resolved, targets
        One per section; targets by name.
    batch_size
        Spots (or sections) per batch.
    seed
        Order of the spots; each epoch has its own, fixed by the seed.
    """

    def __init__(
        self,
        model: Predictor,
        resolved: Sequence[Resolved],
        targets: Sequence[Mapping[str, Tensor]],
        batch_size: int,
        seed: int,
        device: torch.device,
    ) -> None:
        self._model, self._resolved, self._targets = model, resolved, targets
        self._device, self._seed, self._epoch = device, seed, 0
        self.n_slides = len(resolved)
        owner = [np.full(len(r.ok), i) for i, r in enumerate(resolved)]
        parts = [np.stack([o, np.arange(len(o))], axis=1)[r.ok] for o, r in zip(owner, resolved, strict=True)]
        self._by_spot = isinstance(model.unit, Spots)
        # Spots of several sections share a batch unless it comes with something of its whole section.
        mixed = self._by_spot and all(spec.per != "slide" for spec in model.inputs.values())
        self._groups = [np.concatenate(parts)] if mixed else parts
        self._size = batch_size

    def __len__(self) -> int:
        if not self._by_spot:
            return self.n_slides
        return sum(-(-len(group) // self._size) for group in self._groups)

    def __iter__(self) -> Iterator[tuple[dict[str, Tensor], dict[str, Any]]]:
        generator = np.random.default_rng((self._seed, self._epoch))
        self._epoch += 1
        batches = []
        for group in self._groups:
            size = self._size if self._by_spot else max(len(group), 1)
            order = generator.permutation(len(group))
            batches += [group[np.sort(order[start : start + size])] for start in range(0, len(order), size)]
        for number in generator.permutation(len(batches)).tolist():
            yield self._batch(batches[number])

    def _batch(self, rows: np.ndarray) -> tuple[dict[str, Tensor], dict[str, Any]]:
        sections = np.unique(rows[:, 0]).tolist()
        inputs: dict[str, Any] = {}
        for name, spec in self._model.inputs.items():
            if spec.per == "slide":
                inputs[name] = to_device(self._resolved[sections[0]].inputs[name], self._device)
            else:
                parts = [take(self._resolved[s].inputs[name], rows[rows[:, 0] == s, 1]) for s in sections]
                inputs[name] = to_device(_join(spec.per, parts), self._device)
        targets = {
            name: torch.cat([self._targets[s][name][rows[rows[:, 0] == s, 1]] for s in sections]).to(self._device)
            for name in self._targets[sections[0]]
        }
        slide = torch.from_numpy(rows[:, 0].astype(np.int64)).to(self._device)
        return {**targets, "slide": slide}, self._model.prepare(**inputs)

"""Batches over training sections: what a step sees, and which target each of its rows has.

Three layouts. Where units are spots, rows and targets go together. Where units are cells of a lattice or nuclei
within spots, a batch is some spots with all of theirs, and ``owner`` links the two. Where units are regions, a
batch is some regions; their cells are targets themselves, or owned by the spots that lie in them, as are their nuclei.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from napari_he2st.core.errors import ModelError
from napari_he2st.engine.training_data import Resolved, join, take, to_device
from napari_he2st.zoo import inputs as kinds
from napari_he2st.zoo.base import Expression, Pixels, Predictor, Regions, Spots
from napari_he2st.zoo.blocks.augment import stain_jitter
from napari_he2st.zoo.blocks.symmetry import random_symmetry
from napari_he2st.zoo.recipe import Recipe

Batch = tuple[dict[str, Tensor], dict[str, Any]]


def _other_stain(tiles: Tensor) -> Tensor:
    return (stain_jitter(tiles.float() / 255) * 255).round().to(tiles.dtype)


AUGMENTATIONS: Mapping[str, Callable[[Tensor], Tensor]] = {"stain": _other_stain, "flips": random_symmetry}
"""Random changes to tiles: of the optical density of each channel by up to 30 %; one of the square's symmetries."""


class TrainingBatches:
    """What ``fit`` iterates: one iteration is one epoch.

    Parameters
    ----------
    model
        Tells the unit and prepares inputs.
    resolved, targets
        One per section; targets by name, one row per spot.
    recipe
        Says how many units make a batch.
    seed
        Order of the units; each epoch has its own, fixed by the seed.
    device
        Where batches go.
    augment
        How tiles change at random each time they come, see :data:`AUGMENTATIONS`.

    Attributes
    ----------
    epoch
        How often they were gone over.

    Raises
    ------
    ModelError
        The system has no tiles to change.
    """

    def __init__(
        self,
        model: Predictor,
        resolved: Sequence[Resolved],
        targets: Sequence[Mapping[str, Tensor]],
        recipe: Recipe,
        seed: int,
        device: torch.device,
        augment: Sequence[str] = (),
    ) -> None:
        self._model, self._resolved, self._targets = model, resolved, targets
        self._device, self._seed, self._augment = device, seed, tuple(augment)
        self.epoch = 0
        if augment and not any(isinstance(spec, kinds.Tiles) for spec in model.inputs.values()):
            message = f"{type(model).__name__} does not see tiles as they are, so they cannot be changed at random"
            raise ModelError(message, todo="Train without augmentation")
        self.n_slides = len(resolved)
        self._regions = isinstance(model.unit, Regions)
        self._owned = not self._regions and any(found.owner is not None for found in resolved)
        self._by_section = not isinstance(model.unit, Spots | Pixels | Regions)
        units = [self._units(found) for found in resolved]
        parts = [np.stack([np.full(len(u), i), u], axis=1) for i, u in enumerate(units)]
        # Units of several sections share a batch unless it comes with something of its whole section.
        mixed = not self._by_section and all(spec.per != "slide" for spec in model.inputs.values())
        self._groups = [np.concatenate(parts)] if mixed else parts
        n = sum(map(len, units))
        self._size = recipe.batch_size if recipe.batch_of is None else recipe.batch_of(n)

    def _units(self, found: Resolved) -> np.ndarray:
        """What a batch is drawn from: spots that own something readable, or readable units."""
        if self._owned and found.owner is not None:
            return np.unique(found.owner[found.ok & (found.owner >= 0)])
        return np.flatnonzero(found.ok)

    def __len__(self) -> int:
        if self._by_section:
            return self.n_slides
        return sum(-(-len(group) // self._size) for group in self._groups)

    def __iter__(self) -> Iterator[Batch]:
        generator = np.random.default_rng((self._seed, self.epoch))
        self.epoch += 1
        batches = []
        for group in self._groups:
            size = max(len(group), 1) if self._by_section else self._size
            order = generator.permutation(len(group))
            batches += [group[np.sort(order[start : start + size])] for start in range(0, len(order), size)]
        for number in generator.permutation(len(batches)).tolist():
            yield self._batch(batches[number])

    def _batch(self, units: np.ndarray) -> Batch:
        sections = np.unique(units[:, 0]).tolist()
        chosen = {s: units[units[:, 0] == s, 1] for s in sections}
        if self._owned:
            rows, targets = self._owned_rows(chosen)
        elif self._regions:
            rows, targets = chosen, self._region_targets(chosen)
        else:
            rows = chosen
            targets = self._targets_of(chosen)
        if isinstance(self._model.unit, Pixels):  # prepared once for all
            prepared = {
                name: torch.cat([self._resolved[s].inputs[name][rows[s]] for s in sections]).to(self._device)
                for name in self._resolved[sections[0]].inputs
            }
            return targets, prepared
        return targets, self._model.prepare(**self._inputs(rows))

    def _inputs(self, rows: Mapping[int, np.ndarray]) -> dict[str, Any]:
        inputs: dict[str, Any] = {}
        first = next(iter(rows))
        for name, spec in self._model.inputs.items():
            if isinstance(spec, kinds.Reference):
                inputs[name] = self._bank_without(first, spec.training)
            elif isinstance(spec, kinds.Expression):
                parts = [self._targets[s][measured(name)][r] for s, r in rows.items()]
                inputs[name] = torch.cat(parts).to(self._device)
            elif spec.per == "slide":
                inputs[name] = to_device(self._resolved[first].inputs[name], self._device)
            else:
                parts = [take(self._resolved[s].inputs[name], r) for s, r in rows.items()]
                found = join(spec.per, parts)
                if self._regions and isinstance(spec, kinds.Nuclei):
                    found = self._counted_through(found, rows)
                inputs[name] = to_device(found, self._device)
                if isinstance(spec, kinds.Tiles):
                    inputs[name] = self._changed(inputs[name])
        return inputs

    def _changed(self, tiles: Tensor) -> Tensor:
        """Tiles, uint8 NCHW, under the augmentations."""
        for name in self._augment:
            tiles = AUGMENTATIONS[name](tiles)
        return tiles

    def _counted_through(self, maps: Tensor, regions: Mapping[int, np.ndarray]) -> Tensor:
        """Label maps of regions, each counted from 1, with the numbers that their nuclei have in the batch."""
        counts = [len(self._members(s)[region]) for s, chosen in regions.items() for region in chosen]
        before = torch.tensor(np.cumsum([0, *counts[:-1]]), dtype=maps.dtype).view(-1, 1, 1)
        return torch.where(maps > 0, maps + before, maps)

    def _members(self, section: int) -> tuple[np.ndarray, ...]:
        members = self._resolved[section].members
        if members is None:
            message = "Regions without their nuclei"
            raise TypeError(message)
        return members

    def _bank_without(self, section: int, names: tuple[str, ...]) -> dict[str, Tensor] | None:
        """Expression and some inputs of all sections but one; None where no input is asked for."""
        others = [s for s in range(self.n_slides) if s != section]
        if not names or not others:
            return None
        bank = {name: torch.cat([self._resolved[s].inputs[name] for s in others]) for name in names}
        bank["expression"] = torch.cat([self._targets[s]["expression"] for s in others])
        return {name: value.to(self._device) for name, value in bank.items()}

    def _targets_of(self, spots: Mapping[int, np.ndarray]) -> dict[str, Tensor]:
        """Targets of some spots of each section, and which section each belongs to."""
        names = [name for name in self._targets[0] if not name.startswith(measured(""))]
        found = {name: torch.cat([self._targets[s][name][r] for s, r in spots.items()]) for name in names}
        found["slide"] = torch.cat([torch.full((len(r),), s, dtype=torch.int64) for s, r in spots.items()])
        found["row"] = torch.cat([torch.from_numpy(np.asarray(r, dtype=np.int64)) for r in spots.values()])
        return {name: value.to(self._device) for name, value in found.items()}

    def _owned_rows(self, spots: Mapping[int, np.ndarray]) -> tuple[dict[int, np.ndarray], dict[str, Tensor]]:
        """Rows of all that some spots own, and the spots' targets with the owner of each row."""
        rows, owners, before = {}, [], 0
        for section, chosen in spots.items():
            found = self._resolved[section]
            place = np.full(len(self._targets[section]["expression"]) + 1, -1)  # the last is for "in none"
            place[chosen] = np.arange(len(chosen))
            owner = np.where(found.ok, place[found.owner], -1)
            rows[section] = np.flatnonzero(owner >= 0)
            owners.append(owner[rows[section]] + before)
            before += len(chosen)
        owner = torch.from_numpy(np.concatenate(owners)).to(self._device)
        return rows, {**self._targets_of(spots), "owner": owner}

    def _region_targets(self, regions: Mapping[int, np.ndarray]) -> dict[str, Tensor]:
        """Targets of some regions: of every cell, or of the spots in them with the owner of every cell or nucleus."""
        spots, owners, before = {}, [], 0
        for section, chosen in regions.items():
            owner = self._resolved[section].owner
            if owner is None:
                message = "Regions without the spots of their cells"
                raise TypeError(message)
            nuclei = self._resolved[section].members is not None
            here = owner[np.concatenate([self._members(section)[r] for r in chosen]) if nuclei else chosen]
            spots[section] = np.unique(here[here >= 0])
            place = np.searchsorted(spots[section], here)
            owners.append(np.where(here >= 0, place + before, -1))
            before += len(spots[section])
        found = self._targets_of(spots)
        owner = torch.from_numpy(np.concatenate(owners)).to(self._device)
        target = self._model.targets["expression"]
        if not (isinstance(target, Expression) and target.per == "pixel"):
            return {**found, "owner": owner}
        values = found["expression"]
        dense = torch.cat([values, values.new_full((1, values.shape[1]), float("nan"))])[owner]  # −1 is the last
        slide = torch.cat([torch.full((len(r),), s, dtype=torch.int64) for s, r in regions.items()])
        return {"expression": dense, "slide": slide.to(self._device)}


def measured(name: str) -> str:
    """How a section's targets call what an ``Expression`` input of that name gets."""
    return f"input:{name}"

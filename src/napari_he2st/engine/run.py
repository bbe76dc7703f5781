"""The model side of one run: what goes through the model together, and how its output becomes chunks."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from napari_he2st.core.errors import ModelError
from napari_he2st.core.types import Chunk, Grid
from napari_he2st.data.slides.stain import normalised
from napari_he2st.engine.device import Halving, auto_workers, device_errors, placed
from napari_he2st.engine.features import NOTHING_GIVEN, Given, Scene
from napari_he2st.engine.inputs import Supply
from napari_he2st.engine.regions import Geometry, Layout, pool_by_owner
from napari_he2st.engine.sampling import Draws, Sampler, join
from napari_he2st.engine.windows import Window, batches, windows
from napari_he2st.engine.workers import in_order
from napari_he2st.zoo.base import Pixels, Predictor, Regions, Spots, Unit
from napari_he2st.zoo.catalogue import card_of
from napari_he2st.zoo.inputs import Positions

if TYPE_CHECKING:
    from napari_he2st.data.slides import Slide
    from napari_he2st.zoo.bundle import Bundle

_PIXELS_PER_SPOT = 64
"""Cells of a lattice that go through a model in place of one tile."""
_SPOTS_PER_REGION = 4
"""Tiles that weigh as much as a region, which is larger."""


@dataclass(frozen=True)
class Settings:
    """What decides a result beside bundle, slide and grid.

    Attributes
    ----------
    seed, n_samples, options
        As for :func:`~napari_he2st.engine.predict.predict`.
    given
        What the user supplies beside the slide.
    compiled
        Whether encoders run compiled by OpenVINO.
    cached
        Whether features are taken from the cache and kept there; not where time is taken.
    """

    seed: int = 0
    n_samples: int | None = None
    options: Mapping[str, Any] | None = None
    given: Given = NOTHING_GIVEN
    compiled: bool = False
    cached: bool = True


def in_its_stain(bundle: Bundle, slide: Slide, stain: str | None) -> Slide:
    """The slide in the colours that a bundle gets: ``stain``, or what it was trained on where that is None."""
    return normalised(slide, bundle.manifest.stain if stain is None else stain)


def is_dense(model: Predictor) -> bool:
    """Whether a predictor fills a lattice of its own rather than predicting given spots."""
    return isinstance(model.unit, Regions | Pixels)


def sees_a_slide(model: Predictor) -> bool:
    """Whether a predictor returns one row for a whole slide."""
    return any(output.per == "slide" for output in model.outputs.values())


def predicts_cells(model: Predictor) -> bool:
    """Whether a predictor returns one row for each nucleus."""
    return any(output.per == "cell" for output in model.outputs.values())


def pool_of(model: Predictor) -> Literal["mean", "sum"]:
    """How the cells of a dense prediction make up a spot's expression."""
    output = model.outputs.get("expression")
    return "mean" if output is None else output.pool


class Runner:
    """A bundle on a slide.

    Parameters
    ----------
    bundle, slide, grid
        What predicts where.
    rows
        Grid rows to predict, in this order.
    device
        Where the model runs.
    columns
        Genes to keep.
    settings
        What else decides the result.
    size
        Spots per batch, or as many as weigh the same.
    say
        Told in words what the user should know of the run.
    """

    def __init__(
        self,
        bundle: Bundle,
        slide: Slide,
        grid: Grid,
        rows: NDArray[np.intp],
        device: torch.device,
        columns: NDArray[np.intp],
        settings: Settings,
        size: int,
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        members = bundle.members
        for member in members:
            placed(member, device)
        self._bundle, self._grid, self._columns, self._size = bundle, grid, columns, size
        self._halving, self._cells = Halving(say), Halving(say, size * _PIXELS_PER_SPOT)
        self._model = members[0]
        self._sample = Sampler(
            members,
            torch.from_numpy(columns).to(device),
            seed=settings.seed,
            n_samples=settings.n_samples,
            options=settings.options,
            half=card_of(bundle.manifest.system).half,
        )
        self._scene = Scene(
            slide,
            grid,
            bundle.manifest.mpp,
            device,
            bundle.manifest.pitch_um,
            self._model,
            settings.given,
            compiled=settings.compiled,
            cached=settings.cached,
            halving=Halving(say),
        )
        self._layout = Layout.of(Geometry.of(self._model), slide, grid, rows) if is_dense(self._model) else None
        self.plan = self._plan(rows)

    @property
    def unit(self) -> Unit:
        """What a batch is made of."""
        return self._model.unit

    def _plan(self, rows: NDArray[np.intp]) -> list[Window]:
        """How the rows go through the model; for dense predictors, in the order of regions."""
        if self._layout is not None:
            together = isinstance(self._model.unit, Regions) and not predicts_cells(self._model)
            step = max(1, self._size // _SPOTS_PER_REGION) if together else 1
            members = self._layout.members
            groups = [np.concatenate(members[i : i + step]) for i in range(0, len(members), step)]
            return [Window(group, np.ones(len(group), dtype=bool)) for group in groups]
        if isinstance(self._model.unit, Spots) or sees_a_slide(self._model):
            return batches(rows, self._size)
        pitch_um = self._bundle.manifest.pitch_um
        bins = [spec.bins for spec in self._model.inputs.values() if isinstance(spec, Positions) and spec.bins]
        steps = None if not bins else max(1, int(min(bins) * pitch_um / self._grid.pitch_um))
        return windows(self._grid, rows, self._model.max_spots, steps)

    def run(self, plan: list[Window]) -> Iterator[Chunk]:
        """Chunks of some of the plan's windows, in their order.

        Raises
        ------
        ModelError
            The model returned something unusable, or its device stopped working.
        """
        with device_errors(self._scene.device):
            yield from self._run(plan)

    def _run(self, plan: list[Window]) -> Iterator[Chunk]:
        if self._layout is not None:
            yield from self._regions(plan, self._layout)
        elif isinstance(self._model.unit, Spots):
            yield from self._spots(plan)
        else:
            for window in plan:
                for rows, values, ok in Supply(self._model.inputs, self._scene, [window.rows], together=True):
                    found = self._sample(self._sample.prepare(values), rows, (len(rows),))
                    yield _core(self._chunk(rows, found, ok), window)

    def _spots(self, plan: list[Window]) -> Iterator[Chunk]:
        supply = Supply(self._model.inputs, self._scene, [window.rows for window in plan])

        def batch(number: int) -> Chunk:
            rows, values, ok = supply.resolve(number)

            def part(piece: slice) -> Draws:
                cut = {name: _cut(self._model.inputs[name].per, value, piece) for name, value in values.items()}
                return self._sample(self._sample.prepare(cut), rows[piece], (len(rows[piece]),))

            return self._chunk(rows, join(self._halving(part, len(rows))), ok)

        with closing(supply.numbers()) as numbers:
            yield from in_order(batch, numbers, min(auto_workers(self._scene.device), len(plan)))

    def _regions(self, plan: list[Window], layout: Layout) -> Iterator[Chunk]:
        region_of = np.zeros(len(self._grid), dtype=np.intp)
        for region, rows in enumerate(layout.members):
            region_of[rows] = region
        groups = [np.unique(region_of[window.rows]) for window in plan]
        members, nuclei = layout.members, self._scene.given.nuclei
        if nuclei is not None:  # of which the grid may be a part
            members = tuple(np.searchsorted(nuclei.numbers, self._grid.index[rows, 0]) for rows in members)
        scene = replace(self._scene, grid=layout.centres, members=members)
        one = self._pixels if isinstance(self._model.unit, Pixels) else self._region_batch
        for window, (regions, values, ok) in zip(plan, Supply(self._model.inputs, scene, groups), strict=True):
            found = one(layout, regions, values)
            readable = np.repeat(ok, [len(layout.members[region]) for region in regions])
            yield self._chunk(window.rows, found, readable)

    def _region_batch(self, layout: Layout, regions: NDArray[np.intp], values: dict[str, Any]) -> Draws:
        """Spots of some regions that went through the model together."""
        if predicts_cells(self._model):
            (region,) = regions
            return self._sample(self._sample.prepare(values), layout.members[region], (len(layout.members[region]),))

        def part(piece: slice) -> Draws:
            cut = {name: _cut(self._model.inputs[name].per, value, piece) for name, value in values.items()}
            numbers = layout.numbers[regions[piece]]
            return self._sample(self._sample.prepare(cut), numbers, (len(numbers), layout.geometry.bins**2))

        mean, std = join(self._halving(part, len(regions)))
        parts = []
        for place, region in enumerate(regions):
            cells, owner = layout.owned(region)
            found = mean[place], None if std is None else std[place]
            parts.append(self._by_owner(found, cells, owner, len(layout.members[region])))
        return join(parts)

    def _pixels(self, layout: Layout, regions: NDArray[np.intp], values: dict[str, Any]) -> Draws:
        """Spots of one region whose cells go through the model in batches."""
        (region,) = regions
        cells, owner = layout.owned(region)
        needed, place = np.unique(cells, return_inverse=True)
        rows = torch.from_numpy(needed).to(self._scene.device)
        n_cells = layout.geometry.bins**2
        prepared = [
            {name: value[rows] if _per_cell(value, n_cells) else value for name, value in inputs.items()}
            for inputs in self._sample.prepare(values)
        ]
        numbers = layout.cell_numbers(region, needed)

        def part(piece: slice) -> Draws:
            cut = [
                {name: value[piece] if _per_cell(value, len(needed)) else value for name, value in inputs.items()}
                for inputs in prepared
            ]
            return self._sample(cut, numbers[piece], (len(numbers[piece]),))

        found = join(self._cells(part, len(needed)))
        return self._by_owner(found, place.ravel(), owner, len(layout.members[region]))

    def _by_owner(self, found: Draws, cells: NDArray[np.intp], owner: NDArray[np.intp], n: int) -> Draws:
        """Values of a region's cells as those of its ``n`` spots."""
        pool = pool_of(self._model)

        def gathered(values: torch.Tensor) -> torch.Tensor:
            rows = values[torch.from_numpy(cells).to(values.device)]
            return torch.from_numpy(pool_by_owner(rows.cpu().numpy(), owner, n, pool))

        return gathered(found[0]), None if found[1] is None else gathered(found[1])

    def _chunk(self, rows: NDArray[np.intp], found: Draws, ok: NDArray[np.bool_]) -> Chunk:
        mean = found[0].cpu().numpy()
        std = None if found[1] is None else found[1].cpu().numpy()
        self._check_finite(mean if ok.all() else mean[ok])
        if not ok.all():
            mean[~ok] = np.nan
            if std is not None:
                std[~ok] = np.nan
        return Chunk("expression", rows, mean, std)

    def _check_finite(self, mean: NDArray[np.float32]) -> None:
        if np.isfinite(mean).all():
            return
        genes = np.flatnonzero(~np.isfinite(mean).all(axis=0))
        first = self._bundle.genes[int(self._columns[int(genes[0])])]
        message = f"{self._bundle.manifest.title} returned values that are not finite, for instance for {first}"
        raise ModelError(message, todo="Finished batches are kept; check the bundle's weights")


def _per_cell(value: Any, n: int) -> bool:
    return isinstance(value, torch.Tensor) and value.ndim > 0 and len(value) == n


def _core(chunk: Chunk, window: Window) -> Chunk:
    std = None if chunk.std is None else chunk.std[window.core]
    return Chunk(chunk.output, window.kept, chunk.mean[window.core], std)


def _cut(per: str, value: Any, piece: slice) -> Any:
    if per == "slide":
        return value
    return tuple(part[piece] for part in value) if isinstance(value, tuple) else value[piece]


def describe_given(given: Given) -> dict[str, Any]:
    """What identifies the user's further data in a run's manifest: JSON values."""
    found: dict[str, Any] = {}
    for name in ("measured", "cells"):
        adata = getattr(given, name)
        if adata is not None:
            digest = hashlib.sha256()
            for names in (adata.obs_names, adata.var_names):
                digest.update("\n".join(map(str, names)).encode())
            found[name] = [*adata.shape, float(adata.X.sum()), digest.hexdigest()[:16]]
    if given.nuclei is not None:
        found["nuclei"] = hashlib.sha256(np.ascontiguousarray(given.nuclei.labels).data).hexdigest()[:16]
    return found

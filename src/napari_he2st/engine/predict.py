"""Predict expression on a slide: one generator for window, command line and notebook."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from napari_he2st.core.errors import GeneError, ModelError
from napari_he2st.core.geometry import inside_polygon
from napari_he2st.core.noise import Noise
from napari_he2st.core.progress import Control
from napari_he2st.core.types import Chunk, Grid, Region
from napari_he2st.data.slides.grid import square_grid
from napari_he2st.data.slides.stain import normalised
from napari_he2st.data.slides.tissue import tissue_mask
from napari_he2st.engine.device import Halving, auto_batch_size, choose_device
from napari_he2st.engine.features import Scene
from napari_he2st.engine.inputs import Supply
from napari_he2st.engine.results import to_adata
from napari_he2st.engine.store import Store
from napari_he2st.engine.windows import Window, batches, windows
from napari_he2st.zoo.base import Slide as WholeSlide
from napari_he2st.zoo.base import Spots
from napari_he2st.zoo.catalogue import load
from napari_he2st.zoo.inputs import Positions

if TYPE_CHECKING:
    from anndata import AnnData

    from napari_he2st.data.slides import Slide
    from napari_he2st.zoo.base import Predictor
    from napari_he2st.zoo.bundle import Bundle

Order = Literal["raster", "centre"]


def predict(
    bundle: Bundle | str | Path,
    slide: Slide,
    grid: Grid,
    *,
    device: str = "auto",
    batch_size: int | Literal["auto"] = "auto",
    region: Region | None = None,
    order: Order = "raster",
    store: str | Path | None = None,
    genes: Sequence[str] | None = None,
    seed: int = 0,
    n_samples: int = 1,
    options: Mapping[str, Any] | None = None,
    stain: str | None = None,
    control: Control | None = None,
) -> Iterator[Chunk]:
    """Predict spot by spot, yielding each batch as it is ready.

    Parameters
    ----------
    bundle
        A bundle, or the name or path of one.
    slide, grid
        Where to predict.
    device
        ``"auto"``, ``"cpu"``, ``"cuda"``, ``"mps"``.
    batch_size
        Spots per batch; halved by itself when memory runs out.
    region
        Predict only spots inside.
    order
        ``"raster"``, or ``"centre"``: from the middle of the region outwards.
    store
        Folder into which results stream; a run that was stopped there goes on where it ended, and the
        batches that were finished are yielded first.
    genes
        Genes to keep, a subset of the bundle's; None keeps all.
    seed
        Seed of predictors that draw at random.
    n_samples
        Draws per member of predictors that draw at random.
    options
        The predictor's own options (keyword-only arguments of its ``predict``).
    stain
        Normalise the slide's stain first: ``"macenko"`` or ``"reinhard"``.
    control
        Progress, pause and cancel, from another thread.

    Yields
    ------
    Chunk
        Rows of ``grid`` and their expression; NaN where a tile could not be read.

    Raises
    ------
    ModelError
        Unknown device, a prediction that is not finite or of the wrong shape.
    GeneError
        A gene that the bundle does not predict.
    StoreError
        The store belongs to another run, or another process writes to it.
    """
    bundle = load(bundle) if isinstance(bundle, str | Path) else bundle
    slide = normalised(slide, stain)
    control = control or Control()
    where = choose_device(device)
    columns = gene_columns(bundle, genes)
    rows = _rows_in_order(grid, region, order)
    size = auto_batch_size(where) if batch_size == "auto" else batch_size
    with ExitStack() as stack:
        target = None
        if store is not None:
            facts = {
                "bundle": bundle.id,
                "bundle_sha256": bundle.sha256,
                "slide_fingerprint": slide.fingerprint,
                "slide_mpp": slide.mpp,
                "colours": slide.colours,
                "seed": seed,
                "n_samples": n_samples,
                "options": dict(options or {}),
                "device": where.type,
                "batch_size": size,
            }
            panel = [bundle.genes[i] for i in columns]
            target = stack.enter_context(Store.open_run(store, grid, panel, rows, facts))
            size = target.batch_size
        plan = _plan(bundle.members[0], grid, rows, size, bundle.manifest.pitch_um)
        control.start(len(rows), "Predicting")
        if target is not None:
            for chunk in target.finished([window.kept for window in plan]):
                yield chunk
                control.advance(len(chunk.index))
            plan = [window for window in plan if not target.has(window.kept)]
        runner = _Runner(bundle, slide, grid, where, columns, seed, n_samples, options or {})
        for chunk in runner.run(plan):
            if target is not None:
                target.write(chunk)
            yield chunk
            control.advance(len(chunk.index))


class _Runner:
    """The model side of one run: members × draws, halving batches when memory runs out."""

    def __init__(
        self,
        bundle: Bundle,
        slide: Slide,
        grid: Grid,
        device: torch.device,
        columns: NDArray[np.intp],
        seed: int,
        n_samples: int,
        options: Mapping[str, Any],
    ) -> None:
        self._bundle, self._columns, self._seed = bundle, torch.from_numpy(columns).to(device), seed
        self._n_samples, self._options = n_samples, options
        self._scene = Scene(slide, grid, bundle.manifest.mpp, device, bundle.manifest.pitch_um)
        self._members: list[Predictor] = [member.to(device).eval() for member in bundle.members]

    def run(self, plan: list[Window]) -> Iterator[Chunk]:
        """Chunks of every batch or window."""
        model = self._members[0]
        if isinstance(model.unit, Spots):
            supply = Supply(model.inputs, self._scene, [window.rows for window in plan])
            yield from self._batches(supply, max((len(window.rows) for window in plan), default=1))
            return
        for window in plan:
            supply = Supply(model.inputs, self._scene, [window.rows], together=True)
            for rows, values, ok in supply:
                yield _core(self._chunk(rows, [self._draws(rows, values)], ok), window)

    def _batches(self, supply: Supply, size: int) -> Iterator[Chunk]:
        halving = Halving(size)
        for rows, values, ok in supply:

            def part(
                piece: slice, rows: NDArray = rows, values: dict[str, Any] = values
            ) -> tuple[Tensor, Tensor | None]:
                cut = {name: _cut(self._members[0].inputs[name].per, value, piece) for name, value in values.items()}
                return self._draws(rows[piece], cut)

            yield self._chunk(rows, halving(part, len(rows)), ok)

    def _chunk(
        self, rows: NDArray[np.intp], pieces: list[tuple[Tensor, Tensor | None]], ok: NDArray[np.bool_]
    ) -> Chunk:
        mean = torch.cat([piece[0] for piece in pieces]).cpu().numpy()
        std = None if pieces[0][1] is None else torch.cat([p[1] for p in pieces if p[1] is not None]).cpu().numpy()
        mean[~ok] = np.nan
        if std is not None:
            std[~ok] = np.nan
        self._check_finite(mean[ok])
        return Chunk("expression", rows, mean, std)

    @torch.inference_mode()
    def _draws(self, rows: NDArray[np.intp], values: dict[str, Any]) -> tuple[Tensor, Tensor | None]:
        draws = []
        for member in self._members:
            prepared = member.prepare(**values)
            for draw in range(self._n_samples):
                noise = (
                    {}
                    if self._n_samples == 1 and not _draws_at_random(member)
                    else {"noise": Noise(self._seed, draw, rows)}
                )
                predicted = member.predict(**noise, **self._options, **prepared)
                expression = predicted["expression"] if isinstance(predicted, dict) else predicted
                if expression.shape != (len(rows), len(self._bundle.genes)):
                    wanted = f"{len(rows)} spots and {len(self._bundle.genes)} genes"
                    message = f"{self._bundle.manifest.system} returned shape {tuple(expression.shape)} for {wanted}"
                    raise ModelError(message, todo="Its code does not fit this bundle; report this to its author")
                draws.append(expression.float().index_select(1, self._columns))
        if len(draws) == 1:
            return draws[0], None
        stacked = torch.stack(draws)
        centre = stacked.median(dim=0).values if self._members[0].combine == "median" else stacked.mean(dim=0)
        return centre, stacked.std(dim=0)

    def _check_finite(self, mean: NDArray[np.float32]) -> None:
        if np.isfinite(mean).all():
            return
        genes = np.flatnonzero(~np.isfinite(mean).all(axis=0))
        first = self._bundle.genes[int(self._columns[int(genes[0])])]
        message = f"{self._bundle.manifest.title} returned values that are not finite, for instance for {first}"
        raise ModelError(message, todo="Finished batches are kept; check the bundle's weights")


def _plan(model: Predictor, grid: Grid, rows: NDArray[np.intp], size: int, pitch_um: float) -> list[Window]:
    """How the rows go through the model."""
    if isinstance(model.unit, Spots):
        return batches(rows, size)
    if not isinstance(model.unit, WholeSlide):
        unit = type(model.unit).__name__
        raise ModelError(f"{type(model).__name__} predicts in units of {unit}, which this engine cannot run")
    bins = [spec.bins for spec in model.inputs.values() if isinstance(spec, Positions) and spec.bins is not None]
    steps = None if not bins else max(1, int(min(bins) * pitch_um / grid.pitch_um))
    return windows(grid, rows, model.max_spots, steps)


def _core(chunk: Chunk, window: Window) -> Chunk:
    std = None if chunk.std is None else chunk.std[window.core]
    return Chunk(chunk.output, window.kept, chunk.mean[window.core], std)


def _cut(per: str, value: Any, piece: slice) -> Any:
    if per == "slide":
        return value
    return tuple(part[piece] for part in value) if isinstance(value, tuple) else value[piece]


def _draws_at_random(member: Predictor) -> bool:
    return bool(getattr(member, "stochastic", False))


def predict_slide(
    bundle: Bundle | str | Path,
    slide: Slide,
    *,
    grid: Grid | None = None,
    pitch_um: float | None = None,
    genes: Sequence[str] | None = None,
    seed: int = 0,
    device: str = "auto",
    region: Region | None = None,
    stain: str | None = None,
    **run: Any,
) -> AnnData:
    """Predict a whole slide (or ``region``, or the spots of ``grid``) and return it as AnnData.

    Parameters
    ----------
    bundle, slide, genes, seed, device, region, stain
        As for :func:`predict`; ``run`` are its further arguments.
    grid
        Spots to predict; by default a square lattice over the tissue.
    pitch_um
        Distance of that lattice; by default the bundle's own.

    Returns
    -------
    AnnData
        In the schema of :mod:`napari_he2st.core.schema`; spots outside the region are left out.
    """
    bundle = load(bundle) if isinstance(bundle, str | Path) else bundle
    grid = tissue_grid(bundle, slide, pitch_um) if grid is None else grid
    if region is not None:
        grid = grid.take(np.flatnonzero(inside_polygon(grid.xy, region.polygon)))
    slide = normalised(slide, stain)
    kept = [bundle.genes[i] for i in gene_columns(bundle, genes)]
    values = np.full((len(grid), len(kept)), np.nan, dtype=np.float32)
    spread = None
    for chunk in predict(bundle, slide, grid, genes=genes, seed=seed, device=device, **run):
        values[chunk.index] = chunk.mean
        if chunk.std is not None:
            spread = np.full_like(values, np.nan) if spread is None else spread
            spread[chunk.index] = chunk.std
    return to_adata(bundle, slide, grid, values, genes=kept, std=spread, seed=seed, device=str(choose_device(device)))


def tissue_grid(bundle: Bundle, slide: Slide, pitch_um: float | None = None) -> Grid:
    """The square lattice over a slide's tissue at which a bundle predicts by default."""
    return square_grid(slide, pitch_um or bundle.manifest.pitch_um, mask=tissue_mask(slide))


def gene_columns(bundle: Bundle, genes: Sequence[str] | None) -> NDArray[np.intp]:
    """Columns of the bundle's panel that ``genes`` name, in the panel's order.

    Raises
    ------
    GeneError
        None of them, or not all of them, are in the panel.
    """
    if genes is None:
        return np.arange(len(bundle.genes), dtype=np.intp)
    wanted = set(genes)
    missing = [gene for gene in genes if gene not in set(bundle.genes)]
    if missing or not wanted:
        shown = ", ".join(missing[:5]) or "an empty list"
        message = f"{bundle.manifest.title} does not predict {shown}{' …' if len(missing) > 5 else ''}"
        raise GeneError(
            message, todo=f"Choose among its {len(bundle.genes)} genes, such as {', '.join(bundle.genes[:3])}"
        )
    return np.asarray([i for i, gene in enumerate(bundle.genes) if gene in wanted], dtype=np.intp)


@dataclass(frozen=True)
class Estimate:
    """What a run will cost.

    Attributes
    ----------
    tiles
        Spots to predict.
    seconds
        Expected duration, from a timed probe.
    memory_bytes
        Memory for the results.
    disk_bytes
        Disk space of a store.
    """

    tiles: int
    seconds: float
    memory_bytes: int
    disk_bytes: int


def estimate(
    bundle: Bundle,
    slide: Slide,
    grid: Grid,
    *,
    region: Region | None = None,
    device: str = "auto",
    genes: Sequence[str] | None = None,
    probe_tiles: int = 16,
) -> Estimate:
    """Expected cost of a run, from a timed probe of a few tiles of this slide."""
    rows = _rows_in_order(grid, region, "raster")
    columns = gene_columns(bundle, genes)
    middle = rows[len(rows) // 2 :][: 2 * probe_tiles]
    plan = _plan(bundle.members[0], grid, middle, max(1, len(middle) // 2), bundle.manifest.pitch_um)
    runner = _Runner(bundle, slide, grid, choose_device(device), columns, 0, 1, {})
    list(runner.run(plan[:1]))  # warms up
    start = time.perf_counter()
    done = sum(len(chunk.index) for chunk in runner.run(plan[-1:]))
    per_tile = (time.perf_counter() - start) / done
    n_bytes = len(rows) * len(columns) * 4
    return Estimate(len(rows), per_tile * len(rows), n_bytes, n_bytes)


def _rows_in_order(grid: Grid, region: Region | None, order: Order) -> NDArray[np.intp]:
    if not len(grid):
        raise ModelError("There are no spots to predict", todo="Check the tissue mask, or choose a smaller pitch")
    rows = np.arange(len(grid), dtype=np.intp)
    if region is not None:
        rows = rows[inside_polygon(grid.xy, region.polygon)]
        if not len(rows):
            raise ModelError("No spot lies in the region", where=region.name, todo="Draw it over tissue")
    if order == "centre":
        xy = grid.xy[rows]
        middle = xy.mean(axis=0) if region is None else (region.polygon.min(axis=0) + region.polygon.max(axis=0)) / 2
        rows = rows[np.argsort(np.square(xy - middle).sum(axis=1), kind="stable")]
    return rows

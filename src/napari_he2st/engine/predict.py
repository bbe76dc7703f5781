"""Predict expression on a slide: one generator for window, command line and notebook."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from napari_he2st.core import keys
from napari_he2st.core.errors import GeneError, ModelError
from napari_he2st.core.geometry import inside_polygon
from napari_he2st.core.progress import Control
from napari_he2st.core.types import Chunk, Grid, Region
from napari_he2st.data.slides.grid import square_grid
from napari_he2st.data.slides.tissue import tissue_mask
from napari_he2st.engine.device import OPENVINO, choose_device, device_name
from napari_he2st.engine.features import NOTHING_GIVEN, Given
from napari_he2st.engine.probe import best_batch_size
from napari_he2st.engine.results import to_adata
from napari_he2st.engine.run import Runner, Settings, describe_given, in_its_stain, predicts_cells, sees_a_slide
from napari_he2st.engine.sampling import check_options, draws_of
from napari_he2st.engine.shards import Precision
from napari_he2st.engine.slide_level import predict_bag, sees_bag
from napari_he2st.engine.store import Store
from napari_he2st.zoo.catalogue import load

if TYPE_CHECKING:
    from anndata import AnnData

    from napari_he2st.data.slides import Slide
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
    rows: NDArray[np.intp] | None = None,
    store: str | Path | None = None,
    precision: Precision = "float32",
    genes: Sequence[str] | None = None,
    seed: int = 0,
    n_samples: int | None = None,
    options: Mapping[str, Any] | None = None,
    given: Given = NOTHING_GIVEN,
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
        ``"auto"``, ``"cpu"``, ``"openvino"`` (the CPU with faster encoders), ``"cuda"``, ``"mps"``.
    batch_size
        Spots per batch, by default what a probe finds best on long runs; halved by itself when memory runs out.
    region
        Predict only spots inside.
    order
        ``"raster"``, or ``"centre"``: from the middle of the region outwards.
    rows
        In place of region and order: the grid rows to predict, in their order.
    store
        Folder into which results stream; a run that was stopped there goes on where it ended, and the
        batches that were finished are yielded first.
    precision
        Of the values in the store; what is yielded is rounded as it is kept there.
    genes
        Genes to keep, a subset of the bundle's; None keeps all.
    seed
        Seed of predictors that draw at random.
    n_samples
        Draws per member of predictors that draw at random; None for as many as published.
    options
        The predictor's own options (keyword-only arguments of its ``predict``).
    given
        What some predictors need beside the slide: measured spots, single cells, nuclei.
    stain
        Normalise the slide's stain first: ``"macenko"``, ``"reinhard"`` or ``"as-stored"``; by default as the bundle
        was trained.
    control
        Progress, pause and cancel, from another thread.

    Yields
    ------
    Chunk
        Rows of ``grid`` and their expression; NaN where a tile could not be read.

    Raises
    ------
    ModelError
        Unknown device or option, a prediction that is not finite or of the wrong shape.
    GeneError
        A gene that the bundle does not predict.
    StoreError
        The store belongs to another run, or another process writes to it.
    """
    bundle = load(bundle) if isinstance(bundle, str | Path) else bundle
    if sees_bag(bundle.members[0]):
        raise ModelError("This predictor gives one result for a slide", where=bundle.id, todo="Call predict_slide")
    slide = in_its_stain(bundle, slide, stain)
    control = control or Control()
    where = choose_device(device)
    columns = gene_columns(bundle, genes)
    rows = rows_in_order(grid, region, order) if rows is None else rows
    _check_own_slide(bundle, slide)
    check_options(bundle.members[0], options or {})  # before there is a store, which would remember them
    settings = Settings(seed, n_samples, options, given, compiled=device == OPENVINO)

    def runner(rows: NDArray[np.intp], size: int, settings: Settings = settings) -> Runner:
        return Runner(bundle, slide, grid, rows, where, columns, settings, size, control.note)

    anew = partial(runner, settings=replace(settings, cached=False))
    size = best_batch_size(anew, rows, where) if batch_size == "auto" else batch_size
    with ExitStack() as stack:
        target = None
        if store is not None:
            facts: dict[str, Any] = {
                "bundle": bundle.id,
                "bundle_sha256": bundle.sha256,
                "slide_fingerprint": slide.fingerprint,
                "slide_mpp": slide.mpp,
                "colours": slide.colours,
                "seed": seed,
                "n_samples": draws_of(bundle.members[0], n_samples),
                "options": dict(options or {}),
                "given": describe_given(given),
                "device": OPENVINO if device == OPENVINO else where.type,
                "batch_size": size,
            }
            panel = [bundle.genes[i] for i in columns]
            spread = len(bundle.members) * facts["n_samples"] > 1
            opened = Store.open_run(store, grid, panel, rows, facts, spread=spread, precision=precision)
            target = stack.enter_context(opened)
            size = target.batch_size
        work = runner(rows, size)
        plan = work.plan
        control.start(len(rows), "Predicting")
        if target is not None:
            for chunk in target.finished([window.kept for window in plan]):
                yield chunk
                control.advance(len(chunk.index))
            plan = [window for window in plan if not target.has(window.kept)]
        for chunk in work.run(plan):
            if target is not None:
                chunk = target.rounded(chunk)
                target.write(chunk)
            yield chunk
            control.advance(len(chunk.index))


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
    given: Given = NOTHING_GIVEN,
    stain: str | None = None,
    **run: Any,
) -> AnnData:
    """Predict a whole slide (or ``region``, or the spots of ``grid``) and return it as AnnData.

    Parameters
    ----------
    bundle, slide, genes, seed, device, region, given, stain
        As for :func:`predict`; ``run`` are its further arguments.
    grid
        Spots to predict; by default see :func:`tissue_grid`.
    pitch_um
        Distance of that lattice; by default the bundle's own.

    Returns
    -------
    AnnData
        In the schema of :mod:`napari_he2st.core.schema`; spots outside the region are left out. How many could not
        be read is in ``uns["he2st"]["unreadable_spots"]``.
    """
    bundle = load(bundle) if isinstance(bundle, str | Path) else bundle
    if sees_bag(bundle.members[0]):
        limits = {"grid": grid, "pitch_um": pitch_um, "genes": genes, "region": region, "store": run.pop("store", None)}
        named = [name for name, value in limits.items() if value is not None]
        if named:
            message = f"This predictor gives one result for the whole slide, whatever {' and '.join(named)} say"
            raise ModelError(message, where=bundle.id, todo="Leave them out")
        wanted = {name: run[name] for name in ("n_samples", "control") if name in run}
        return predict_bag(bundle, slide, device=device, seed=seed, stain=stain, **wanted)
    grid = tissue_grid(bundle, slide, pitch_um, given) if grid is None else grid
    if region is not None:
        grid = grid.take(np.flatnonzero(inside_polygon(grid.xy, region.polygon)))
    slide, run["stain"] = in_its_stain(bundle, slide, stain), keys.AS_STORED
    kept = [bundle.genes[i] for i in gene_columns(bundle, genes)]
    values = np.full((len(grid), len(kept)), np.nan, dtype=np.float32)
    spread = None
    control = run["control"] = run.get("control") or Control()
    for chunk in predict(bundle, slide, grid, genes=genes, seed=seed, device=device, given=given, **run):
        values[chunk.index] = chunk.mean
        if chunk.std is not None:
            spread = np.full_like(values, np.nan) if spread is None else spread
            spread[chunk.index] = chunk.std
    cells = given.nuclei if given.nuclei is not None and given.nuclei.are(grid) else None
    facts: dict[str, Any] = {"seed": seed, "device": device_name(device), "notes": control.notes, "nuclei": cells}
    adata = to_adata(bundle, slide, grid, values, genes=kept, std=spread, **facts)
    adata.uns[keys.UNS]["unreadable_spots"] = int(np.isnan(values).all(axis=1).sum())
    return adata


def tissue_grid(bundle: Bundle, slide: Slide, pitch_um: float | None = None, given: Given = NOTHING_GIVEN) -> Grid:
    """Where a bundle predicts by default: a square lattice over the tissue; the nuclei; or the slide as one spot."""
    model = bundle.members[0]
    if sees_a_slide(model):
        size = np.asarray([slide.size], dtype=np.float64)
        side_um = float(size.max() * slide.mpp)
        inside, index = np.ones(1, dtype=bool), np.zeros((1, 2), dtype=np.intp)
        return Grid(size / 2, side_um, "irregular", side_um, slide.mpp, index, (1, 1), inside, (slide.name,))
    if given.nuclei is not None and predicts_cells(model):
        return given.nuclei.grid(slide.mpp)
    return square_grid(slide, pitch_um or bundle.manifest.pitch_um, mask=tissue_mask(slide))


def _check_own_slide(bundle: Bundle, slide: Slide) -> None:
    """Refuse a slide on which a predictor that learns its own slide was not trained."""
    known = [section.get("fingerprint") for section in bundle.manifest.training]
    if bundle.members[0].fitted == "slide" and slide.fingerprint not in known:
        raise ModelError(
            f"{bundle.manifest.title} predicts only the slide it was trained on, which is another one",
            where=slide.name,
            todo="Train it with spots measured on this slide",
        )


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


def rows_in_order(grid: Grid, region: Region | None, order: Order) -> NDArray[np.intp]:
    """Grid rows to predict, in the order in which they are.

    Raises
    ------
    ModelError
        There are none.
    """
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

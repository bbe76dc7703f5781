"""Predict many slides, here or on a cluster of workers.

Each slide is cut into ranges of spots; a range is a task, and has a store of its own beside the others, on a disk
that all workers see. A worker that dies frees its store, and the task goes on from there on another.
"""

from __future__ import annotations

import csv
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_he2st.core.errors import MissingExtraError, OutputError, SlideError
from napari_he2st.core.progress import Control
from napari_he2st.data.export import export
from napari_he2st.data.slides import Slide, is_address
from napari_he2st.engine.device import device_name
from napari_he2st.engine.predict import predict, tissue_grid
from napari_he2st.engine.regions import Geometry, Layout
from napari_he2st.engine.results import to_adata
from napari_he2st.engine.run import is_dense
from napari_he2st.engine.store import SHARD_ROWS, read_store
from napari_he2st.zoo.base import Spots
from napari_he2st.zoo.catalogue import load

if TYPE_CHECKING:
    from anndata import AnnData

    from napari_he2st.core.types import Grid
    from napari_he2st.zoo.bundle import Bundle

_RANGES = 16  # of a slide, where they would not be larger than a shard of the store or smaller than _SMALLEST
_SMALLEST = 64
_RETRIES = 5  # of a task, beside those whose worker died


@dataclass(frozen=True)
class Job:
    """One slide to predict.

    Attributes
    ----------
    slide
        Path or address of the slide.
    model
        Name or path of the bundle.
    output
        The h5ad file to write.
    mpp, pitch_um
        Pixel size and distance of spots, where they are not the slide's and the predictor's own.
    icc
        Whether colours are converted to sRGB by the slide's ICC profile.
    """

    slide: str
    model: str
    output: Path
    mpp: float | None = None
    pitch_um: float | None = None
    icc: bool = True

    @property
    def store(self) -> Path:
        """Where the run is kept until the output is written."""
        return self.output.with_name(f"{self.output.name}.partial")


def read_jobs(table: Path, folder: Path, *, model: str | None = None, icc: bool = True) -> list[Job]:
    """The jobs of a CSV file with a column ``slide`` and, where wanted, ``model``, ``output``, ``mpp``, ``pitch_um``.

    Parameters
    ----------
    table
        The file; paths in it start from its folder.
    folder
        Where outputs go that the table does not name: the slide's name, and the model's where it has one.
    model
        The model of rows that name none.
    icc
        Whether colours are converted to sRGB by the slides' ICC profiles.

    Raises
    ------
    OutputError
        The table cannot be read, lacks something, or two rows would write the same file.
    """
    known = ("slide", "model", "output", "mpp", "pitch_um")
    try:
        rows = list(csv.DictReader(table.read_text(encoding="utf-8-sig").splitlines()))
    except (OSError, UnicodeDecodeError) as error:
        raise OutputError(f"The list of slides cannot be read ({error})", where=table) from error
    if not rows or "slide" not in rows[0] or any(column not in known for column in rows[0]):
        raise OutputError("The list of slides has the wrong columns", where=table, todo=f"Use {', '.join(known)}")
    jobs = []
    for number, row in enumerate(rows, start=2):
        slide, named = row["slide"] or "", row.get("model") or model
        if not slide or named is None:
            raise OutputError("A row names no slide or no model", where=f"{table}, line {number}")
        own = f"-{Path(named).stem}" if row.get("model") else ""
        output = row.get("output") or f"{Path(slide).stem}{own}.h5ad"
        try:
            mpp, pitch_um = (float(row[key]) if row.get(key) else None for key in ("mpp", "pitch_um"))
        except ValueError as error:
            raise OutputError(
                f"A row has no number where one belongs ({error})", where=f"{table}, line {number}"
            ) from None
        jobs.append(
            Job(slide if is_address(slide) else str(table.parent / slide), named, folder / output, mpp, pitch_um, icc)
        )
    if len({job.output for job in jobs}) < len(jobs):
        raise OutputError("Two rows would write the same file", where=table, todo="Add a column output")
    return jobs


def run_jobs(
    jobs: Sequence[Job], *, scheduler: str | None = None, control: Control | None = None, **run: Any
) -> Iterator[tuple[Job, AnnData]]:
    """Predict all slides, write their outputs, and yield each as it is done.

    Parameters
    ----------
    jobs
        What to predict.
    scheduler
        None works here, one slide after the other; ``"local"`` starts a cluster on this machine; otherwise the
        address of a dask scheduler, whose workers see the same files.
    control
        Progress and cancel.
    run
        Further arguments of :func:`~napari_he2st.engine.predict.predict`: ``genes``, ``seed``, ``device``,
        ``batch_size``, ``n_samples``, ``options``.

    Raises
    ------
    MissingExtraError
        There is a scheduler, and dask.distributed is not installed.
    """
    control = control or Control()
    tasks = {job: _ranges(job) for job in jobs}
    control.start(sum(len(rows) for ranges in tasks.values() for rows in ranges), "Predicting")
    if scheduler is None:
        for job, ranges in tasks.items():
            for number in range(len(ranges)):
                control.advance(predict_range(job, number, run))
            yield job, _collect(job, len(ranges), run)
        return
    with _client(scheduler) as client:
        waiting = {job: len(ranges) for job, ranges in tasks.items()}
        futures = {
            client.submit(predict_range, job, number, run, retries=_RETRIES, pure=False): job
            for job, ranges in tasks.items()
            for number in range(len(ranges))
        }
        for future in _dask().as_completed(futures):
            control.advance(future.result())
            job = futures[future]
            waiting[job] -= 1
            if not waiting[job]:
                yield job, _collect(job, len(tasks[job]), run)


def predict_range(job: Job, number: int, run: dict[str, Any]) -> int:
    """Predict one of a job's ranges into its store; returns the number of spots."""
    bundle, slide, grid, ranges = _opened(job)
    for _ in predict(bundle, slide, grid, rows=ranges[number], store=_part(job, number), **run):
        pass
    return len(ranges[number])


@lru_cache(maxsize=2)
def _opened(job: Job) -> tuple[Bundle, Slide, Grid, list[NDArray[np.intp]]]:
    """What all ranges of a job share, the same in every process."""
    bundle = load(job.model)
    if not (is_address(job.slide) or Path(job.slide).exists()):
        raise SlideError("There is no such slide", where=job.slide)
    slide = Slide.open(job.slide, mpp=job.mpp, icc=job.icc)
    grid = tissue_grid(bundle, slide, job.pitch_um)
    model = bundle.members[0]
    rows = np.arange(len(grid), dtype=np.intp)
    if is_dense(model):  # so that a region is in one range
        rows = np.concatenate(Layout.of(Geometry.of(model), slide, grid, rows).members)
    elif not isinstance(model.unit, Spots):  # spots that see each other stay together
        return bundle, slide, grid, [rows]
    size = min(SHARD_ROWS, max(_SMALLEST, -(-len(rows) // _RANGES)))
    return bundle, slide, grid, [rows[i : i + size] for i in range(0, len(rows), size)]


def _ranges(job: Job) -> list[NDArray[np.intp]]:
    return _opened(job)[3]


def _part(job: Job, number: int) -> Path:
    job.store.mkdir(parents=True, exist_ok=True)
    return job.store / f"{number:05d}"


def _collect(job: Job, n_ranges: int, run: dict[str, Any]) -> AnnData:
    """All ranges of a slide as one result, written; their stores are removed."""
    bundle, slide, grid, ranges = _opened(job)
    genes = read_store(_part(job, 0))[1]
    values = np.full((len(grid), len(genes)), np.nan, dtype=np.float32)
    spread: NDArray[np.float32] | None = None
    for number in range(n_ranges):
        rows, folder = ranges[number], _part(job, number)
        for chunk in predict(bundle, slide, grid, rows=rows, store=folder, **run):  # reads what is there
            values[chunk.index] = chunk.mean
            if chunk.std is not None:
                spread = np.full_like(values, np.nan) if spread is None else spread
                spread[chunk.index] = chunk.std
    device = device_name(run.get("device", "auto"))
    adata = to_adata(bundle, slide, grid, values, genes=genes, std=spread, seed=run.get("seed", 0), device=device)
    job.output.parent.mkdir(parents=True, exist_ok=True)
    export(adata, "h5ad", job.output, force=True, slide=slide)
    shutil.rmtree(job.store)
    return adata


def _dask() -> Any:
    try:
        import distributed
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            "Running on a cluster needs dask.distributed", todo='pip install "napari-he2st[dask]"'
        ) from error
    return distributed


@contextmanager
def _client(scheduler: str) -> Iterator[Any]:
    """A client of a cluster, which is started and ended here if it is a local one."""
    dask = _dask()
    if scheduler != "local":
        with dask.Client(scheduler) as client:
            yield client
        return
    with dask.LocalCluster(threads_per_worker=1, dashboard_address=None) as cluster, dask.Client(cluster) as client:
        yield client

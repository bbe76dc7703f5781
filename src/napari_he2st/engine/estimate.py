"""What a run will cost, told before it starts."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from napari_he2st.core.types import Grid, Region
from napari_he2st.engine.device import OPENVINO, auto_batch_size, auto_workers, choose_device
from napari_he2st.engine.features import NOTHING_GIVEN, Given
from napari_he2st.engine.predict import gene_columns, rows_in_order
from napari_he2st.engine.run import Runner, Settings
from napari_he2st.engine.sampling import draws_of
from napari_he2st.engine.shards import Precision
from napari_he2st.engine.store import disk_bytes

if TYPE_CHECKING:
    from napari_he2st.data.slides import Slide
    from napari_he2st.zoo.bundle import Bundle


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

    def facts(self) -> dict[str, str]:
        """In words."""
        minutes = f"about {self.seconds / 60:.1f} min" if self.seconds >= 60 else f"about {self.seconds:.0f} s"
        sizes = {"memory": self.memory_bytes, "disk": self.disk_bytes}
        return {"tiles": f"{self.tiles:,}", "time": minutes, **{k: f"{v / 1e6:,.1f} MB" for k, v in sizes.items()}}


def estimate(
    bundle: Bundle,
    slide: Slide,
    grid: Grid,
    *,
    region: Region | None = None,
    device: str = "auto",
    genes: Sequence[str] | None = None,
    n_samples: int | None = None,
    options: Mapping[str, Any] | None = None,
    given: Given = NOTHING_GIVEN,
    precision: Precision = "float32",
    probe_tiles: int = 16,
) -> Estimate:
    """Expected cost of a run, from a timed probe of a few tiles of this slide."""
    rows = rows_in_order(grid, region, "raster")
    columns = gene_columns(bundle, genes)
    where = choose_device(device)
    size = min(probe_tiles, auto_batch_size(where))
    middle = rows[len(rows) // 2 :][: size * (1 + auto_workers(where))]
    settings = Settings(n_samples=n_samples, options=options, given=given, compiled=device == OPENVINO, cached=False)
    runner = Runner(bundle, slide, grid, middle, where, columns, settings, size)
    list(runner.run(runner.plan[:1]))  # warms up
    start = time.perf_counter()
    done = sum(len(chunk.index) for chunk in runner.run(runner.plan[1:] or runner.plan))
    per_tile = (time.perf_counter() - start) / done
    spread = len(bundle.members) * draws_of(bundle.members[0], n_samples) > 1
    memory = len(rows) * len(columns) * 4 * (2 if spread else 1)
    disk = disk_bytes(len(grid), len(columns), spread=spread, precision=precision)
    return Estimate(len(rows), per_tile * len(rows), memory, disk)

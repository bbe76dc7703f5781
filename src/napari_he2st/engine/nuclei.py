"""Nuclei of a slide, found tile by tile and remembered."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_he2st.analysis.nuclei import NUCLEI_METHODS
from napari_he2st.core.atomic import atomic_write
from napari_he2st.core.cache import trim
from napari_he2st.core.errors import ModelError, TruthError
from napari_he2st.core.geometry import bounds_of, inside_polygon
from napari_he2st.core.paths import cache_folder
from napari_he2st.core.progress import Control
from napari_he2st.core.types import Nuclei, Region
from napari_he2st.data.nuclei import read_nuclei, write_nuclei
from napari_he2st.data.slides.tissue import tissue_mask

if TYPE_CHECKING:
    from napari_he2st.data.slides import Slide

TILE_PX = 1024
OVERLAP_PX = 64
MAX_PIXELS = 1_500_000_000
"""Size of the largest label image, which takes four bytes per pixel."""

_RULES = 2
"""Raised when nuclei are found otherwise, so that what was remembered is found anew."""

_SHARED_PX = 4
"""Beyond its core up to which a tile keeps a nucleus, in case the tile there sees its centre on this side."""


def find_nuclei(
    slide: Slide,
    method: str = "haematoxylin",
    *,
    mpp: float = 0.5,
    regions: Sequence[Region] | None = None,
    options: Mapping[str, Any] | None = None,
    control: Control | None = None,
) -> Nuclei:
    """Find the nuclei of a slide's tissue; what was found before is read from the cache folder.

    Tiles overlap; a nucleus that two of them see belongs to the one whose core holds its centre, and one that lies
    mostly on a nucleus that is there already is that one: so none is counted twice or cut.

    Parameters
    ----------
    slide
        The slide.
    method
        One of :data:`napari_he2st.analysis.nuclei.NUCLEI_METHODS`.
    mpp
        Pixel size at which nuclei are found; not below the slide's own.
    regions
        Only nuclei whose centre lies in one of them; None takes all tissue.
    options
        Keyword arguments of the method.
    control
        Progress and cancel, from another thread.

    Returns
    -------
    Nuclei
        With a label image of the whole slide.

    Raises
    ------
    UnknownNameError, MissingExtraError
        There is no such method, or its package is not installed.
    ModelError
        The label image would be too large.
    SchemaError
        There is no nucleus.
    """
    control = control or Control()
    entry = NUCLEI_METHODS[method]
    mpp = max(mpp, slide.mpp)
    scale = mpp / slide.mpp
    width, height = (max(1, round(side / scale)) for side in slide.size)
    if width * height > MAX_PIXELS:
        message = f"A label image of {width:,} × {height:,} pixels is too large"
        raise ModelError(message, where=slide.name, todo="Take a larger pixel size")
    kept = _file_of(slide, method, mpp, regions, options)
    if kept.exists():
        try:
            kept.touch()
            return read_nuclei(kept, slide)
        except TruthError:  # damaged: found anew
            kept.unlink(missing_ok=True)
    labels = np.zeros((height, width), dtype=np.int32)
    core = TILE_PX - 2 * OVERLAP_PX
    starts = _tiles(slide, regions, scale, (width, height), core)
    control.start(len(starts), "Finding nuclei")
    last = 0
    for column, row in starts:
        x, y = (column - OVERLAP_PX) * scale, (row - OVERLAP_PX) * scale
        tile = slide.read(x, y, TILE_PX, TILE_PX, mpp=mpp)
        last = _keep(labels, entry.function(tile, mpp, **(options or {})), column, row, core, last)
        control.advance()
    found = _inside(Nuclei.of(labels, slide.size[0] * slide.mpp / width), slide, regions)
    with atomic_write(kept, force=True) as aside:
        write_nuclei(found, aside, slide.mpp)
    trim()
    return found


def _file_of(
    slide: Slide, method: str, mpp: float, regions: Sequence[Region] | None, options: Mapping[str, Any] | None
) -> Path:
    """Where the nuclei that these decide are remembered."""
    where = None if regions is None else [np.round(region.polygon, 2).tolist() for region in regions]
    facts = [_RULES, slide.fingerprint, slide.mpp, slide.colours, method, mpp, where, dict(options or {})]
    folder = cache_folder() / "nuclei"
    folder.mkdir(exist_ok=True)
    return folder / f"{hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()[:32]}.tif"


def _tiles(
    slide: Slide, regions: Sequence[Region] | None, scale: float, size: tuple[int, int], core: int
) -> list[tuple[int, int]]:
    """Corners (column, row) of the cores of tiles that have tissue."""
    box = (0.0, 0.0, *map(float, slide.size))
    if regions is not None:
        box = bounds_of(np.concatenate([region.polygon for region in regions]))
    left, top, wide, high = box
    mask = tissue_mask(slide)
    steps = (np.arange(16) + 0.5) * core / 16
    found = []
    for row in range(max(0, int(top / scale)), min(size[1], int(np.ceil((top + high) / scale))), core):
        for column in range(max(0, int(left / scale)), min(size[0], int(np.ceil((left + wide) / scale))), core):
            xy = np.stack(np.meshgrid(column + steps, row + steps), axis=-1).reshape(-1, 2) * scale
            if mask.contains(xy).any():
                found.append((column, row))
    return found


def _keep(labels: NDArray[np.int32], found: NDArray, column: int, row: int, core: int, last: int) -> int:
    """Write the nuclei whose centre lies in a tile's core, unless they are there; return the last number given."""
    y, x = np.nonzero(found)
    if not len(y):
        return last
    _, owner, size = np.unique(found[y, x], return_inverse=True, return_counts=True)
    owner = owner.ravel()
    centre = np.stack([np.bincount(owner, weights=c) / size for c in (x, y)], axis=1) - OVERLAP_PX
    rows, columns = y + row - OVERLAP_PX, x + column - OVERLAP_PX
    inside = (rows >= 0) & (rows < labels.shape[0]) & (columns >= 0) & (columns < labels.shape[1])
    free = inside.copy()
    free[inside] = labels[rows[inside], columns[inside]] == 0
    taken = np.bincount(owner, weights=inside & ~free, minlength=len(size))
    kept = ((centre >= -_SHARED_PX) & (centre < core + _SHARED_PX)).all(axis=1) & (2 * taken < size)
    kept &= np.bincount(owner, weights=free, minlength=len(size)) > 0
    given = np.where(kept, last + np.cumsum(kept), 0)[owner]
    write = free & (given > 0)
    labels[rows[write], columns[write]] = given[write]
    return last + int(kept.sum())


def _inside(found: Nuclei, slide: Slide, regions: Sequence[Region] | None) -> Nuclei:
    """Those whose centre lies in a region, counted through."""
    if regions is None:
        return found
    xy = found.centres_px * (found.mpp / slide.mpp)
    inside = np.any([inside_polygon(xy, region.polygon) for region in regions], axis=0)
    number = np.zeros(found.largest + 1, dtype=np.int32)
    number[found.numbers[inside]] = np.arange(1, int(inside.sum()) + 1)
    return Nuclei.of(number[found.labels], found.mpp)

"""Nuclei of a slide, found tile by tile."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_he2st.analysis.nuclei import NUCLEI_METHODS
from napari_he2st.core.errors import ModelError
from napari_he2st.core.geometry import bounds_of, inside_polygon
from napari_he2st.core.progress import Control
from napari_he2st.core.types import Nuclei, Region
from napari_he2st.data.slides.tissue import tissue_mask

if TYPE_CHECKING:
    from napari_he2st.data.slides import Slide

TILE_PX = 1024
OVERLAP_PX = 64
MAX_PIXELS = 1_500_000_000
"""Size of the largest label image, which takes four bytes per pixel."""


def find_nuclei(
    slide: Slide,
    method: str = "haematoxylin",
    *,
    mpp: float = 0.5,
    region: Region | None = None,
    options: Mapping[str, Any] | None = None,
    control: Control | None = None,
) -> Nuclei:
    """Find the nuclei of a slide's tissue.

    Tiles overlap; a nucleus that two of them see belongs to the one whose core holds its centre, so that none is
    counted twice or cut.

    Parameters
    ----------
    slide
        The slide.
    method
        One of :data:`napari_he2st.analysis.nuclei.NUCLEI_METHODS`.
    mpp
        Pixel size at which nuclei are found; not below the slide's own.
    region
        Only nuclei inside; None takes all tissue.
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
        raise ModelError(message, where=slide.name, todo="Take a larger pixel size, or a region")
    mask = tissue_mask(slide)
    left, top, wide, high = (0.0, 0.0, *slide.size) if region is None else bounds_of(region.polygon)
    core = TILE_PX - 2 * OVERLAP_PX
    starts = [
        (column, row)
        for row in range(int(top / scale), min(height, int(np.ceil((top + high) / scale))), core)
        for column in range(int(left / scale), min(width, int(np.ceil((left + wide) / scale))), core)
    ]
    labels = np.zeros((height, width), dtype=np.int32)
    control.start(len(starts), "Finding nuclei")
    last = 0
    for column, row in starts:
        if _has_tissue(mask, column, row, core, scale):
            x, y = (column - OVERLAP_PX) * scale, (row - OVERLAP_PX) * scale
            tile = slide.read(x, y, TILE_PX, TILE_PX, mpp=mpp)
            last = _keep(labels, entry.function(tile, mpp, **(options or {})), column, row, core, last)
        control.advance()
    found = Nuclei.of(labels, slide.size[0] * slide.mpp / width)
    if region is None:
        return found
    inside = inside_polygon(found.centres_px * (found.mpp / slide.mpp), region.polygon)
    kept = np.zeros(found.largest + 1, dtype=np.int32)
    kept[found.numbers[inside]] = np.arange(1, int(inside.sum()) + 1)
    return Nuclei.of(kept[labels], found.mpp)


def _has_tissue(mask: Any, column: int, row: int, core: int, scale: float) -> bool:
    steps = (np.arange(8) + 0.5) * core / 8
    xy = np.stack(np.meshgrid(column + steps, row + steps), axis=-1).reshape(-1, 2) * scale
    return bool(mask.contains(xy).any())


def _keep(labels: np.ndarray, found: np.ndarray, column: int, row: int, core: int, last: int) -> int:
    """Write the nuclei whose centre lies in a tile's core; return the last number given."""
    y, x = np.nonzero(found)
    if not len(y):
        return last
    _, owner, size = np.unique(found[y, x], return_inverse=True, return_counts=True)
    centre = np.stack([np.bincount(owner.ravel(), weights=c) / size for c in (x, y)], axis=1) - OVERLAP_PX
    kept = ((centre >= 0) & (centre < core)).all(axis=1)
    new = np.where(kept, last + np.cumsum(kept), 0)
    rows, columns = y + row - OVERLAP_PX, x + column - OVERLAP_PX
    inside = (rows >= 0) & (rows < labels.shape[0]) & (columns >= 0) & (columns < labels.shape[1])
    given = new[owner.ravel()]
    write = inside & (given > 0)
    free = labels[rows[write], columns[write]] == 0  # what a neighbour has written stays
    labels[rows[write][free], columns[write][free]] = given[write][free]
    return last + int(kept.sum())

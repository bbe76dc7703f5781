"""What the readers of single cells share: counts of cells with free positions become AnnData."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_he2st.core.errors import TruthError
from napari_he2st.core.types import Transform
from napari_he2st.data.truth.assemble import X_SOURCE, Y_SOURCE, Frame, assemble, check_unique, gene_table, join

if TYPE_CHECKING:
    from anndata import AnnData

    from napari_he2st.data.truth.tenx import FeatureMatrix

_CELL_UM = 10.0
"""Diameter that a cell is drawn with where its size is not known."""


@dataclass(frozen=True)
class Cells:
    """Where cells lie.

    Attributes
    ----------
    names
        As in the counts.
    xy_px
        Positions (x, y) in the vendor's pixels, float64, shape (cells, 2).
    area_um2
        float64, shape (cells,), or None where unknown.
    columns
        What else is known of each cell, by name; goes into ``obs``.
    """

    names: list[str]
    xy_px: NDArray[np.float64]
    area_um2: NDArray[np.float64] | None = None
    columns: dict[str, Any] | None = None


def assemble_cells(
    matrix: FeatureMatrix,
    cells: Cells,
    *,
    mpp: float,
    mpp_source: str,
    to_slide: Transform | float,
    library: str,
    layout: str,
    where: Path,
) -> tuple[AnnData, list[str]]:
    """AnnData in our schema, and what was left out.

    Parameters
    ----------
    matrix
        Checked counts.
    cells
        Their positions.
    mpp, mpp_source
        Micrometres per pixel of the slide, and where that comes from.
    to_slide
        From the vendor's pixels to level-0 pixels of the slide; a number is a scale.
    library, layout
        Names of the section and of its reader.
    where
        File of the positions, for messages.

    Raises
    ------
    TruthError
        Cells have no name of their own or no position, or counts and positions have none in common.
    """
    import pandas as pd

    check_unique(cells.names, "cells", where)
    spots = pd.DataFrame(cells.columns or {}, index=pd.Index(cells.names, dtype=object))
    spots[X_SOURCE], spots[Y_SOURCE] = cells.xy_px[:, 0], cells.xy_px[:, 1]
    if cells.area_um2 is not None:
        spots["area_um2"] = cells.area_um2
    spots, counts, notes = join(spots, matrix.counts, matrix.barcodes, where, what="cell")
    genes, gene_notes = gene_table(matrix.symbols, matrix.ids, where)
    transform = to_slide if isinstance(to_slide, Transform) else Transform.scale(to_slide)
    xy = spots[[X_SOURCE, Y_SOURCE]].to_numpy()
    pitch_um = nearest(transform(xy[np.isfinite(xy).all(axis=1)])) * mpp
    if not 0 < pitch_um < np.inf:
        raise TruthError("Cells have no distance from each other", where=where, todo="Check the positions")
    areas = spots["area_um2"].to_numpy() if "area_um2" in spots else np.zeros(0)
    known = areas[np.isfinite(areas) & (areas > 0)]
    cell_um = 2 * float(np.sqrt(np.median(known) / np.pi)) if len(known) else _CELL_UM
    frame = Frame(mpp, mpp_source, pitch_um, cell_um, "irregular", transform)
    return assemble(counts, spots, genes, frame, library=library, layout=layout), [*gene_notes, *notes]


def nearest(xy: NDArray[np.float64]) -> float:
    """Median distance of positions (n, 2) to the nearest other one; NaN for fewer than two."""
    from scipy.spatial import cKDTree

    points = xy[np.isfinite(xy).all(axis=1)]
    if len(points) < 2:
        return float("nan")
    sample = points[:: len(points) // 50_000 + 1]
    return float(np.median(cKDTree(points).query(sample, k=2)[0][:, 1]))

"""iSCALE: expression of super-pixels of a large slide from several small captures on it (Nature Methods 2025)."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from napari_he2st.analysis.graphs import radius_graph
from napari_he2st.zoo.base import Expression, Label, Recipe
from napari_he2st.zoo.blocks.hipt import CELL_PX
from napari_he2st.zoo.blocks.superpixels import SuperPixels


class IScale(SuperPixels):
    """iStar's network, trained on the spots of all captures of a slide.

    Notes
    -----
    Captures are sections that share the slide: registered to it, they are trained on together.
    """

    targets: Mapping[str, Expression | Label] = {"expression": Expression("minmax", panel="var:100")}
    recipe = Recipe("adam", lr=1e-4, epochs=1000, batch_of=lambda spots: max(1, min(128, spots // 16)))


def merge_spots(
    xy: NDArray, values: NDArray, *, distance_px: float, radius: float, shape: tuple[int, int]
) -> tuple[NDArray[np.intp], NDArray[np.floating]]:
    """One spot in place of those that lie near each other, as where captures overlap.

    Parameters
    ----------
    xy
        Positions (x, y) of all captures' spots, pixels of 0.5 µm, shape (n, 2).
    values
        Scaled counts, shape (n, genes).
    distance_px
        Spots not farther apart than this are merged, chains of them into one.
    radius
        Of a spot, in cells of 16 pixels.
    shape
        Rows and columns of cells.

    Returns
    -------
    cells
        (row, column) of the cell at each mean position, shape (m, 2). Those whose disc would leave the lattice are
        left out, in the original but for one cell at its far end.
    values
        Mean scaled counts, shape (m, genes).
    """
    from scipy.sparse.csgraph import connected_components

    _, group = connected_components(radius_graph(np.asarray(xy, dtype=np.float64), distance_px), directed=False)
    size = np.bincount(group)[:, None]
    place, mean = (np.zeros((len(size), array.shape[1])) for array in (xy, values))
    np.add.at(place, group, xy)
    np.add.at(mean, group, values)
    cells = np.round(place[:, ::-1] / size / CELL_PX).astype(np.intp)
    reach = math.ceil(radius)
    kept = ((cells >= reach) & (cells <= np.asarray(shape) - reach)).all(axis=1)
    return cells[kept], (mean / size)[kept]

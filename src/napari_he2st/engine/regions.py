"""How a slide is cut into regions whose cells form a dense lattice, and which cells make up a spot.

The lattice starts at the upper left corner of the slide. Regions overlap by a margin; what counts is the core
of each, and cores tile the lattice without gap or overlap. A spot, a nucleus or a lattice cell belongs to the
region whose core holds its centre. The value of a spot is the mean, or the sum where they share its counts,
over the cells whose centres lie in its disc
(all of them in that region, margin included); on a grid that is the lattice itself, that is its one cell.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from napari_he2st.core.errors import ModelError
from napari_he2st.core.types import Grid
from napari_he2st.zoo.base import Pixels, Predictor, Regions
from napari_he2st.zoo.inputs import RegionImage

if TYPE_CHECKING:
    from napari_he2st.data.slides import Slide

_SAME = 1e-3  # relative difference up to which two pitches are one


@dataclass(frozen=True)
class Geometry:
    """Size of a dense predictor's regions.

    Attributes
    ----------
    px, mpp
        Of the image of a region.
    bins
        Cells along each side.
    margin
        Cells along each side that belong to the neighbours' cores.
    """

    px: int
    mpp: float
    bins: int
    margin: int

    @classmethod
    def of(cls, model: Predictor) -> Geometry:
        """That of a predictor whose unit is ``Regions`` or ``Pixels``.

        Raises
        ------
        ModelError
            Its numbers do not fit together.
        """
        unit = model.unit
        if isinstance(unit, Regions):
            px, mpp, overlap, bins = unit.px, unit.mpp, unit.overlap, unit.bins
        else:
            image = next((spec for spec in model.inputs.values() if isinstance(spec, RegionImage)), None)
            if not isinstance(unit, Pixels) or image is None or image.px is None or image.mpp is None:
                raise ModelError(
                    "A predictor of pixels needs a RegionImage with px and mpp", where=type(model).__name__
                )
            px, mpp, overlap = image.px, image.mpp, image.overlap
            bins = round(px * mpp / unit.pitch_um)
            if abs(bins * unit.pitch_um - px * mpp) > _SAME * unit.pitch_um:
                message = f"A region of {px * mpp:g} µm is no whole number of cells of {unit.pitch_um:g} µm"
                raise ModelError(message, where=type(model).__name__)
        margin, rest = divmod(overlap * bins, 2 * px)
        if rest or bins <= 2 * margin:
            message = f"An overlap of {overlap} pixels is no even number of cells, or leaves no core"
            raise ModelError(message, where=type(model).__name__)
        return cls(px, mpp, bins, margin)

    @property
    def core(self) -> int:
        """Cells along each side of a core."""
        return self.bins - 2 * self.margin

    @property
    def pitch_um(self) -> float:
        """Distance of cells."""
        return self.px * self.mpp / self.bins


@dataclass(frozen=True)
class Layout:
    """The regions that cover some spots of a slide.

    Attributes
    ----------
    geometry
        Of each region.
    centres
        Grid whose spots are the regions; ``index`` is their place (row, column) among all of the slide.
    members
        Rows of the spots that belong to each region, intp.
    numbers
        Number of each region, the same whichever spots are asked for, intp.
    """

    geometry: Geometry
    centres: Grid
    members: tuple[NDArray[np.intp], ...]
    numbers: NDArray[np.intp]
    _first: NDArray[np.intp]  # lattice cell (row, column) of each region's upper left corner
    _start: NDArray[np.intp]  # where the cells of each spot start in _cells
    _cells: NDArray[np.intp]  # lattice cells (row, column)

    @classmethod
    def of(cls, geometry: Geometry, slide: Slide, grid: Grid, rows: NDArray[np.intp]) -> Layout:
        """Cover the given rows of a grid; regions come in the order in which ``rows`` first reach them."""
        pitch_px = geometry.pitch_um / slide.mpp
        place = np.floor(grid.xy[rows] / pitch_px)[:, ::-1].astype(np.intp) // geometry.core
        found, reached, owner = np.unique(place, axis=0, return_index=True, return_inverse=True)
        order = np.argsort(reached, kind="stable")
        found, rank = found[order], np.argsort(order, kind="stable")[owner.ravel()]
        by_region = np.split(rows[np.argsort(rank, kind="stable")], np.cumsum(np.bincount(rank, minlength=len(found))))
        first = found * geometry.core - geometry.margin
        centres = Grid(
            xy=np.asarray((first[:, ::-1] + geometry.bins / 2) * pitch_px, dtype=np.float64),
            pitch_um=geometry.core * geometry.pitch_um,
            lattice="square",
            spot_um=geometry.px * geometry.mpp,
            mpp=slide.mpp,
            index=found,
            shape=(int(found[:, 0].max()) + 1, int(found[:, 1].max()) + 1),
            in_tissue=np.ones(len(found), dtype=bool),
        )
        across = int(slide.size[0] / (pitch_px * geometry.core)) + 1
        start, cells = cells_of(grid, pitch_px)
        numbers = found[:, 0] * across + found[:, 1]
        return cls(geometry, centres, tuple(by_region[: len(found)]), numbers, first, start, cells)

    def __len__(self) -> int:
        return len(self.members)

    def owned(self, region: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Cells of a region that make up its spots, and for each which of ``members[region]`` it belongs to."""
        rows, bins = self.members[region], self.geometry.bins
        counts = self._start[rows + 1] - self._start[rows]
        owner = np.repeat(np.arange(len(rows)), counts)
        steps = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        local = self._cells[np.repeat(self._start[rows], counts) + steps] - self._first[region]
        inside = ((local >= 0) & (local < bins)).all(axis=1)
        return local[inside, 0] * bins + local[inside, 1], owner[inside]

    def cell_numbers(self, region: int, cells: NDArray[np.intp]) -> NDArray[np.intp]:
        """Numbers of cells of a region, the same whichever region shows them."""
        row, column = np.divmod(cells, self.geometry.bins)
        first = self._first[region] + self.geometry.margin  # so that the numbers are not negative
        return (first[0] + row) * 2**31 + first[1] + column


def pool_by_owner(
    values: NDArray[np.float32], owner: NDArray[np.intp], n: int, pool: Literal["mean", "sum"] = "mean"
) -> NDArray[np.float32]:
    """Mean or sum of the rows of each owner: float32 (n, columns); NaN for owners without any."""
    if len(values) == n and np.array_equal(owner, np.arange(n)):
        return values
    total = np.zeros((n, values.shape[1]))
    np.add.at(total, owner, values)
    counts = np.bincount(owner, minlength=n)[:, None]
    over = counts if pool == "mean" else np.minimum(counts, 1)
    return np.divide(total, over, out=np.full_like(total, np.nan), where=counts > 0).astype(np.float32)


def cells_of(grid: Grid, pitch_px: float) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Lattice cells that make up each spot of a grid.

    Returns
    -------
    start
        Where the cells of each spot start among all, intp (spots + 1,).
    cells
        Lattice (row, column) of each, intp (m, 2): those whose centre lies in the spot's disc, at least the one
        that the spot's centre lies in.
    """
    n, pitch_um = len(grid), pitch_px * grid.mpp
    own = np.floor(grid.xy / pitch_px)[:, ::-1].astype(np.intp)
    if grid.spot_um <= pitch_um * (1 + _SAME):
        return np.arange(n + 1, dtype=np.intp), own
    radius = grid.spot_um / 2 / pitch_um
    reach = int(np.ceil(radius))
    steps = np.mgrid[-reach : reach + 1, -reach : reach + 1].reshape(2, -1).T
    centre = grid.xy[:, ::-1] / pitch_px - 0.5
    inside = np.empty((n, len(steps)), dtype=bool)
    for i in range(0, n, 4096):
        offset = own[i : i + 4096, None] + steps - centre[i : i + 4096, None]
        inside[i : i + 4096] = np.square(offset).sum(axis=-1) <= radius**2
    inside |= (steps == 0).all(axis=1)
    spot, step = np.nonzero(inside)
    start = np.concatenate([[0], np.cumsum(inside.sum(axis=1))]).astype(np.intp)
    return start, own[spot] + steps[step]

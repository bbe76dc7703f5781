"""Which spots of two grids belong together: the nearest ones, or those that share an area."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_he2st.core.errors import TruthError
from napari_he2st.core.types import Grid

if TYPE_CHECKING:
    from scipy.sparse import csr_array

FINER = 0.8
"""A pitch below this share of the other one is finer: its cells are then gathered in the other's spots."""

COVERED = 0.5
"""Share of a spot's area that cells of a lattice have to cover for the spot to count as matched."""

_POINTS = 8  # across a spot, by which areas are measured: their error is about 1 %
_BLOCK = 2**22  # values that are gathered at once

Floats = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Matching:
    """Spots that two grids have in common.

    Attributes
    ----------
    grid
        The common spots: those of the second grid, or of the first where that is the coarser one.
    index
        Rows of the first and of the second grid, intp, shape (common spots,) each; of the finer grid, the cell that
        shares most with the spot.
    shares
        For the finer grid, how much of a common spot each of its cells makes up, shape (common spots, cells), rows
        sum to 1; None for a grid whose spots are taken as they are.
    size
        How many spots both grids have.
    used
        How many of them take part.
    """

    grid: Grid
    index: tuple[NDArray[np.intp], NDArray[np.intp]]
    shares: tuple[csr_array | None, csr_array | None]
    size: tuple[int, int]
    used: tuple[int, int]

    @property
    def by_area(self) -> int | None:
        """Which grid, 0 or 1, was gathered in the spots of the other; None where spots are paired one to one."""
        return next((side for side, shares in enumerate(self.shares) if shares is not None), None)

    def values(
        self,
        side: int,
        X: Any,
        columns: NDArray[np.intp],
        *,
        linear: Callable[[Floats], Floats] | None = None,
        back: Callable[[Floats], Floats] | None = None,
    ) -> Floats:
        """Values at the common spots, float32 (common spots, columns).

        Parameters
        ----------
        side
            0 for the first grid, 1 for the second.
        X
            Its values, spots × genes, dense or sparse; NaN is unknown, and means are taken over what is known.
        columns
            Genes to take.
        linear, back
            From the scale of ``X`` to one in which values may be averaged by area, and back.
        """
        shares = self.shares[side]
        if shares is None:
            return _dense(X[self.index[side]][:, columns])
        found = np.empty((len(self.grid), len(columns)), dtype=np.float32)
        step = max(1, _BLOCK // max(X.shape[0], 1))
        for start in range(0, len(columns), step):
            part = _dense(X[:, columns[start : start + step]])
            known = np.isfinite(part)
            part = part if linear is None else linear(part)
            if known.all():
                mean = shares @ part
            else:
                weight = shares @ known.astype(np.float32)
                with np.errstate(invalid="ignore", divide="ignore"):
                    mean = np.where(weight > 0, (shares @ np.where(known, part, 0)) / weight, np.nan)
            found[:, start : start + step] = mean if back is None else back(mean.astype(np.float32))
        return found

    def members(self, side: int, spots: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Which spots or cells of a grid make up some of the common spots, bool (size,)."""
        inside = np.zeros(self.size[side], dtype=bool)
        shares = self.shares[side]
        inside[self.index[side][spots] if shares is None else shares[np.flatnonzero(spots)].indices] = True
        return inside

    def labels(self, side: int, labels: Any) -> NDArray[np.object_]:
        """Label at each common spot: its own, or the one that covers most of it."""
        given = np.asarray(labels, dtype=object)
        shares = self.shares[side]
        if shares is None:
            return given[self.index[side]]
        names, code = np.unique(given.astype(str), return_inverse=True)
        each = np.zeros((len(given), len(names)), dtype=np.float32)
        each[np.arange(len(given)), code] = 1
        first = {name: given[row] for row, name in reversed(list(enumerate(given.astype(str))))}
        return np.array([first[names[i]] for i in (shares @ each).argmax(axis=1)], dtype=object)


def match(first: Grid, second: Grid) -> Matching:
    """Find the common spots of two grids on one slide.

    Grids of about one pitch are paired: each spot of the second with the nearest of the first, at most half a pitch
    (of the coarser) away on either axis. Where one grid is finer (:data:`FINER`), its cells are gathered in the
    spots of the other, each by the area that it shares with the spot; spots of which less than :data:`COVERED` is
    covered by cells of a lattice are left out.

    Raises
    ------
    TruthError
        They have no spot in common.
    """
    fine, coarse = (first, second) if first.pitch_um <= second.pitch_um else (second, first)
    if fine.pitch_um < FINER * coarse.pitch_um:
        return _by_area(first, second, 0 if fine is first else 1)
    return _nearest(first, second)


def _nearest(first: Grid, second: Grid) -> Matching:
    from scipy.spatial import cKDTree

    reach_px = 0.5 * max(first.pitch_um, second.pitch_um) / second.mpp
    distance, nearest = cKDTree(first.xy).query(second.xy, p=np.inf, distance_upper_bound=reach_px * (1 + 1e-6))
    rows = np.flatnonzero(np.isfinite(distance))
    if not len(rows):
        raise _apart(f"No spots of the two lie within {reach_px:.0f} px of each other")
    partner = nearest[rows].astype(np.intp)
    used = len(np.unique(partner)), len(rows)
    return Matching(second.take(rows), (partner, rows), (None, None), (len(first), len(second)), used)


def _by_area(first: Grid, second: Grid, side: int) -> Matching:
    fine, coarse = (first, second) if side == 0 else (second, first)
    area = _shared_area(fine, coarse)
    spot_um2 = coarse.pitch_um**2 if _is_bin(coarse) else np.pi * (coarse.spot_um / 2) ** 2
    least_px2 = 0.0 if fine.lattice == "irregular" else COVERED * spot_um2 / coarse.mpp**2
    total = np.asarray(area.sum(axis=1)).ravel()
    rows = np.flatnonzero(total > least_px2)
    if not len(rows):
        raise _apart("No spot of the one is covered by cells of the other")
    shares = area[rows]
    shares.data /= np.repeat(total[rows], np.diff(shares.indptr)).astype(np.float32)
    ends = zip(shares.indptr[:-1], shares.indptr[1:], strict=True)
    best = np.array([shares.indices[a + shares.data[a:b].argmax()] for a, b in ends], dtype=np.intp)
    n_fine = len(np.unique(shares.indices))
    if side == 0:
        return Matching(coarse.take(rows), (best, rows), (shares, None), (len(fine), len(coarse)), (n_fine, len(rows)))
    return Matching(coarse.take(rows), (rows, best), (None, shares), (len(coarse), len(fine)), (len(rows), n_fine))


def _shared_area(fine: Grid, coarse: Grid) -> csr_array:
    """Area that spots (rows) share with cells (columns), px²: counted on a lattice of points in each cell."""
    from scipy.sparse import csr_array
    from scipy.spatial import cKDTree

    cell_um = fine.spot_um if fine.cell_um2 is None else fine.cell_um2**0.5
    side_px = cell_um / fine.mpp
    bins = _is_bin(coarse)
    width_um = coarse.pitch_um if bins else coarse.spot_um
    n = int(np.clip(np.ceil(_POINTS * cell_um / width_um), 1, _POINTS))
    steps = ((np.arange(n) + 0.5) / n - 0.5) * side_px
    tree = cKDTree(coarse.xy)
    norm, reach_px = (np.inf if bins else 2), width_um / coarse.mpp / 2
    spots, cells = [], []
    for shift in np.stack(np.meshgrid(steps, steps), axis=-1).reshape(-1, 2):
        distance, spot = tree.query(fine.xy + shift, p=norm, distance_upper_bound=reach_px)
        inside = np.flatnonzero(np.isfinite(distance))
        spots.append(spot[inside])
        cells.append(inside)
    rows, columns = np.concatenate(spots), np.concatenate(cells)
    areas = np.full(len(rows), (side_px / n) ** 2, dtype=np.float32)
    return csr_array((areas, (rows, columns)), shape=(len(coarse), len(fine)))  # what is named twice is added


def _is_bin(grid: Grid) -> bool:
    """Whether its spots are squares that touch, as those of a dense prediction and of Visium HD."""
    return grid.lattice == "square" and grid.spot_um >= 0.99 * grid.pitch_um


def _apart(message: str) -> TruthError:
    return TruthError(message, todo="Check that both belong to the same slide and are in register")


def _dense(part: Any) -> Floats:
    return np.asarray(part.toarray() if hasattr(part, "toarray") else part, dtype=np.float32)

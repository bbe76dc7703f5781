"""Matching spots: the nearest one, or by shared area where pitches differ."""

from __future__ import annotations

import numpy as np
import pytest

from napari_he2st.analysis.matching import match
from napari_he2st.core.errors import TruthError
from napari_he2st.core.types import Grid


def lattice(rows: int, columns: int, pitch_um: float, spot_um: float, *, start: float = 0.0) -> Grid:
    """A square lattice, 0.5 µm per pixel, whose first spot is at ``start`` µm."""
    index = np.indices((rows, columns)).reshape(2, -1).T.astype(np.intp)
    xy = (start + index[:, ::-1] * pitch_um) / 0.5
    return Grid(xy, pitch_um, "square", spot_um, 0.5, index, (rows, columns), np.ones(len(index), bool))


def test_equal_pitches_are_paired_one_to_one() -> None:
    spots = lattice(5, 4, 100, 55)
    order = np.random.default_rng(0).permutation(20)[:15]
    found = match(spots.take(order), spots)
    assert found.by_area is None
    assert found.size == (15, 20)
    assert found.used == (15, 15)
    np.testing.assert_array_equal(order[found.index[0]], found.index[1])


def test_spots_beyond_half_a_pitch_have_no_partner() -> None:
    spots = lattice(5, 4, 100, 55)
    moved = lattice(5, 4, 100, 55, start=49)
    assert len(match(moved, spots).grid) == 20
    with pytest.raises(TruthError, match="in register"):
        match(lattice(5, 4, 100, 55, start=5000), spots)


@pytest.mark.parametrize("swap", [False, True])
def test_a_dense_result_is_gathered_by_area(swap: bool) -> None:
    dense, spots = lattice(50, 50, 20, 20), lattice(5, 5, 200, 100, start=100)
    pair = (spots, dense) if swap else (dense, spots)
    found = match(*pair)
    side = found.by_area
    assert side == int(swap)
    assert len(found.grid) == 25
    shares = found.shares[side]
    np.testing.assert_allclose(shares.sum(axis=1), 1, rtol=1e-5)
    # A map that rises evenly has its value at the middle of the spot as mean over the spot.
    values = (dense.xy * 0.5).astype(np.float32)
    gathered = found.values(side, values, np.arange(2))
    np.testing.assert_allclose(gathered, found.grid.xy * 0.5, atol=1.0)


def test_the_shares_are_areas() -> None:
    dense, spots = lattice(40, 40, 25, 25), lattice(3, 3, 250, 150, start=240)
    area = match(dense, spots).shares[0]
    cells = np.diff(area.indptr)  # a disc of 150 µm has the area of 28 cells
    covered = 1 / area.max(axis=1).toarray().ravel()  # the fullest cell lies wholly inside
    np.testing.assert_allclose(covered, np.pi * 75**2 / 25**2, rtol=0.03)
    assert (cells > covered).all()


def test_spots_that_are_hardly_covered_are_left_out() -> None:
    dense, spots = lattice(20, 20, 20, 20), lattice(5, 5, 200, 100, start=195)
    found = match(dense, spots)
    assert len(found.grid) == 1  # cells end at 390 µm, and cover less than half of the spots at 395
    assert found.size == (400, 25)
    assert found.used[1] == 1
    assert found.used[0] < 40


def test_unknown_cells_do_not_count() -> None:
    dense, spots = lattice(50, 50, 20, 20), lattice(5, 5, 200, 100, start=100)
    values = np.full((2500, 2), 3.0, dtype=np.float32)
    values[::2, 0] = np.nan
    values[:, 1] = np.nan
    gathered = match(dense, spots).values(0, values, np.arange(2))
    np.testing.assert_allclose(gathered[:, 0], 3.0, rtol=1e-6)
    assert np.isnan(gathered[:, 1]).all()


def test_logarithms_are_averaged_as_what_was_counted() -> None:
    dense, spots = lattice(4, 4, 50, 50), lattice(1, 1, 200, 200, start=75)
    counts = np.random.default_rng(0).poisson(3, (16, 1)).astype(np.float32)
    found = match(dense, spots)
    gathered = found.values(0, np.log1p(counts), np.arange(1), linear=np.expm1, back=np.log1p)
    assert gathered[0, 0] == pytest.approx(np.log1p(counts.mean()), rel=1e-5)


def test_the_label_is_that_of_most_of_the_area() -> None:
    dense, spots = lattice(50, 50, 20, 20), lattice(5, 5, 200, 100, start=100)
    labels = np.where(dense.xy[:, 0] * 0.5 < 485, "tumour", "stroma").astype(object)
    found = match(dense, spots)
    expected = np.where(found.grid.xy[:, 0] * 0.5 < 485, "tumour", "stroma")
    np.testing.assert_array_equal(found.labels(0, labels), expected)
    np.testing.assert_array_equal(found.labels(1, np.arange(25)), found.index[1])

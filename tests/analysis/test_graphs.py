from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial import KDTree

from napari_he2st.analysis.graphs import knn_graph, lattice_graph, nearest, radius_graph, row_normalised
from napari_he2st.core.errors import SchemaError


def by_distance(grid, reach):
    return {tuple(sorted(p)) for p in KDTree(grid.xy).query_pairs(reach)}


def edges(graph):
    rows, cols = graph.nonzero()
    return {tuple(sorted(p)) for p in zip(rows.tolist(), cols.tolist(), strict=True)}


@pytest.mark.parametrize(("neighbours", "reach"), [(None, 210), (4, 210), (8, 290)])
def test_square_lattice_joins_what_touches(lattices, neighbours, reach):
    keep = np.random.default_rng(0).random(12 * 9) > 0.3
    grid = lattices.square(12, 9, keep=keep)
    graph = lattice_graph(grid, neighbours)
    assert edges(graph) == by_distance(grid, reach)
    assert (graph != graph.T).nnz == 0


def test_hexagonal_lattice_joins_six(lattices):
    grid = lattices.hexagonal(9, 10)
    graph = lattice_graph(grid)
    assert edges(graph) == by_distance(grid, 210)
    assert graph.sum(axis=1).max() == 6


def test_lattice_refuses_neighbours_it_does_not_have(lattices):
    with pytest.raises(SchemaError, match="hexagonal lattice does not have 4"):
        lattice_graph(lattices.hexagonal(3, 3), 4)


def test_rows_sum_to_one_and_lone_spots_stay_empty(lattices):
    keep = np.zeros(25, bool)
    keep[[0, 1, 24]] = True
    rows = np.asarray(row_normalised(lattice_graph(lattices.square(5, 5, keep=keep))).sum(axis=1)).ravel()
    np.testing.assert_array_equal(rows, [1, 1, 0])


@pytest.mark.parametrize("dimensions", [2, 12])
def test_nearest_equals_brute_force(dimensions):
    points = np.random.default_rng(1).normal(size=(200, dimensions))
    distances = np.linalg.norm(points[:, None] - points[None], axis=2)
    np.fill_diagonal(distances, np.inf)
    np.testing.assert_array_equal(nearest(points, 5), np.argsort(distances, axis=1)[:, :5])


def test_points_at_one_place_are_each_others_neighbours():
    points = np.zeros((30, 2))
    index = nearest(points, 4)
    assert index.shape == (30, 4)
    assert (index != np.arange(30)[:, None]).all()


@pytest.fixture
def by_cells(monkeypatch):
    monkeypatch.setattr("napari_he2st.analysis.graphs.EXACT", 50)
    monkeypatch.setattr("napari_he2st.analysis.graphs._DISTANCES", 5_000)  # several blocks a cell


def test_many_points_are_searched_in_cells(by_cells):
    rng = np.random.default_rng(0)
    points = rng.normal(size=(2000, 3)) @ rng.normal(size=(3, 10)) + 0.1 * rng.normal(size=(2000, 10))
    distances = np.linalg.norm(points[:, None] - points[None], axis=2)
    np.fill_diagonal(distances, np.inf)
    exact = np.argsort(distances, axis=1)[:, :8]
    found = nearest(points, 8)
    assert np.mean([len(np.intersect1d(a, b)) / 8 for a, b in zip(found, exact, strict=True)]) > 0.97
    assert (np.diff(np.take_along_axis(distances, found, axis=1), axis=1) > -1e-4).all()
    np.testing.assert_array_equal(found, nearest(points, 8))


def test_cells_hold_for_points_at_one_place_and_for_many_neighbours(by_cells):
    points = np.zeros((200, 5))
    points[:20] = np.random.default_rng(0).normal(size=(20, 5)) + 5
    for k in (3, 150):
        index = nearest(points, k)
        assert index.shape == (200, k)
        assert (index != np.arange(200)[:, None]).all()
        assert all(len(set(row)) == k for row in index.tolist())


def test_few_points():
    assert nearest(np.zeros((1, 2)), 6).shape == (1, 0)
    assert knn_graph(np.arange(3.0)[:, None], 6).nnz == 6


def test_radius_graph_equals_distances(lattices):
    grid = lattices.hexagonal(6, 6)
    assert edges(radius_graph(grid.xy, 210.0)) == by_distance(grid, 210)

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp

from napari_he2st.analysis.graphs import lattice_graph
from napari_he2st.analysis.spatial_genes import gearys_c, spatial_genes
from napari_he2st.core.types import Grid


@pytest.fixture
def grid() -> Grid:
    index = np.indices((12, 11)).reshape(2, -1).T
    n = len(index)
    return Grid(index[:, ::-1] * 100.0, 100.0, "square", 55.0, 1.0, index, (12, 11), np.ones(n, bool))


@pytest.fixture
def values(grid) -> np.ndarray:
    """A gradient, a checkerboard, noise, a constant."""
    rng = np.random.default_rng(0)
    row, column = grid.index.T
    return np.column_stack([column, (row + column) % 2, rng.random(len(grid)), np.ones(len(grid))]).astype(np.float32)


def test_geary_is_its_definition_and_squidpys(grid, values):
    weights = lattice_graph(grid).toarray()
    weights /= weights.sum(1, keepdims=True)
    x = values[:, :3].astype(float)
    apart = (weights[:, :, None] * (x[:, None] - x) ** 2).sum((0, 1))
    expected = (len(x) - 1) * apart / (2 * weights.sum() * ((x - x.mean(0)) ** 2).sum(0))
    found = gearys_c(values, lattice_graph(grid))
    np.testing.assert_allclose(found[:3], expected, rtol=1e-6)
    assert np.isnan(found[3])
    np.testing.assert_allclose(gearys_c(sp.csr_matrix(values), lattice_graph(grid)), found)
    from scanpy.metrics import gearys_c as theirs

    np.testing.assert_allclose(found[:3], theirs(sp.csr_matrix(weights), x.T), rtol=1e-4)


def test_genes_are_ranked_by_structure(grid, values):
    table = spatial_genes(values, grid, ["gradient", "checkers", "noise", "constant"])
    assert table["gene"].tolist() == ["gradient", "noise", "checkers", "constant"]
    assert table["p_adjusted"].iloc[0] < 1e-10
    assert table["p_adjusted"].iloc[1] > 0.01
    assert table["geary"].iloc[0] < 0.1
    assert table["geary"].iloc[2] > 1.5
    assert table["moran"].isna().tolist() == [False, False, False, True]


def test_probabilities_of_noise_are_even(grid):
    noise = np.random.default_rng(1).normal(size=(len(grid), 400)).astype(np.float32)
    from scipy.stats import norm

    from napari_he2st.analysis.graphs import row_normalised
    from napari_he2st.analysis.metrics.moran import morans_i
    from napari_he2st.analysis.spatial_genes import _spread

    graph = lattice_graph(grid)
    z = (morans_i(noise, graph) + 1 / (len(grid) - 1)) / _spread(row_normalised(graph), len(grid))
    assert abs(z.mean()) < 0.15
    assert 0.9 < z.std() < 1.1
    assert 0.02 < (norm.sf(z) < 0.05).mean() < 0.09


def test_a_gene_that_is_not_known_everywhere_has_no_geary(grid, values):
    values[3, 0] = np.nan
    assert np.isnan(gearys_c(values, lattice_graph(grid))[0])

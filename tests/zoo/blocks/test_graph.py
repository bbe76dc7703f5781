from __future__ import annotations

import pytest
import torch

from napari_he2st.zoo.blocks.graph import (
    GCNConv,
    GraphAttention,
    HypergraphConv,
    at_offsets,
    edges_of,
    lattice_offsets,
    mean_of_neighbours,
    nearest_graph,
    scatter_mean,
    scatter_softmax,
)


def _square(columns: int, rows: int) -> torch.Tensor:
    return torch.stack([torch.arange(columns * rows) % columns, torch.arange(columns * rows) // columns], dim=1)


def test_nearest_on_a_square_lattice_are_those_that_touch() -> None:
    positions = _square(5, 5)
    graph = nearest_graph(positions, 4, within=1.0)
    touching = (positions[:, None] - positions).abs().sum(-1) == 1
    assert torch.equal(graph == 1, touching)
    assert nearest_graph(positions, 4).sum(1).eq(4).all()


def test_of_equally_near_points_the_first_counts() -> None:
    line = torch.tensor([[0.0], [1.0], [2.0]])
    assert nearest_graph(line, 1)[1].tolist() == [1, 0, 0]


@pytest.mark.parametrize("n", [1, 2, 3])
def test_few_points_have_all_others_as_neighbours(n: int) -> None:
    graph = nearest_graph(torch.rand(n, 2), 5)
    assert torch.equal(graph, 1 - torch.eye(n))
    assert nearest_graph(torch.rand(n, 2), 5, within="std").isfinite().all()


def test_points_at_one_place_are_neighbours() -> None:
    assert nearest_graph(torch.zeros(2, 2), 1).tolist() == [[0, 1], [1, 0]]


def test_who_has_no_neighbours_counts_as_zero_unless_faithful() -> None:
    graph, nodes = torch.tensor([[0.0, 1.0], [0.0, 0.0]]), torch.tensor([[1.0], [3.0]])
    assert mean_of_neighbours(graph, nodes).tolist() == [[3.0], [0.0]]
    assert mean_of_neighbours(graph, nodes, faithful=True).isnan().tolist() == [[False], [True]]


def test_edges_go_from_the_heard_to_the_hearing() -> None:
    assert edges_of(torch.tensor([[0.0, 1.0], [0.0, 0.0]])).tolist() == [[1, 0]]


def test_scatter_mean_and_softmax_go_by_group() -> None:
    values, index = torch.tensor([[1.0], [3.0], [5.0]]), torch.tensor([0, 0, 2])
    assert scatter_mean(values, index, 3).tolist() == [[2.0], [0.0], [5.0]]
    weight = scatter_softmax(100 * values, index, 3)
    torch.testing.assert_close(weight, torch.tensor([[0.0], [1.0], [1.0]]))


def test_a_graph_without_edges_leaves_each_node_its_own() -> None:
    torch.manual_seed(0)
    nodes, layer = torch.randn(4, 3), GCNConv(3, 2)
    torch.testing.assert_close(layer(nodes, torch.zeros(4, 4)), layer.lin(nodes) + layer.bias)


def test_attention_weights_sum_to_one() -> None:
    torch.manual_seed(0)
    layer, graph = GraphAttention(3, 3), nearest_graph(torch.rand(6, 2), 2)
    alike = torch.ones(6, 3)
    torch.testing.assert_close(layer(alike, graph), alike @ layer.W)


def test_a_node_in_no_hyperedge_gets_the_bias() -> None:
    torch.manual_seed(0)
    layer = HypergraphConv(2, 2)
    torch.nn.init.normal_(layer.bias)
    out = layer(torch.randn(3, 2), torch.tensor([[0, 0], [1, 0]]), torch.ones(3))
    torch.testing.assert_close(out[2], layer.bias)
    torch.testing.assert_close(out[0], out[1])


def test_lattices_are_told_apart() -> None:
    hexagonal = torch.tensor([[0, 0], [2, 0], [1, 1], [3, 1]])
    assert len(lattice_offsets(hexagonal)) == 6
    assert len(lattice_offsets(_square(3, 3))) == 8


def test_offsets_find_their_spots() -> None:
    assert at_offsets(_square(2, 1), torch.tensor([[1, 0], [-1, 0], [0, 1]])).tolist() == [[1, -1, -1], [-1, 0, -1]]

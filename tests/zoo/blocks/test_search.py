"""Searching a bank in blocks finds what comparing all pairs finds."""

from __future__ import annotations

import pytest
import torch

from napari_he2st.core.errors import MissingExtraError
from napari_he2st.zoo.blocks import search
from napari_he2st.zoo.blocks.search import Search, inverse_square, similarity_mean, squared_exponential, weighted_mean


@pytest.mark.parametrize("metric", ["cosine", "dot", "euclidean"])
@pytest.mark.parametrize("block", [7, 64, 2**22])
def test_blocks_do_not_change_what_is_found(monkeypatch, metric: str, block: int) -> None:
    monkeypatch.setattr(search, "_BLOCK", block)
    generator = torch.Generator().manual_seed(0)
    query, keys = torch.randn(5, 4, generator=generator), torch.randn(30, 4, generator=generator)
    if metric == "euclidean":
        every = -torch.cdist(query, keys)
    elif metric == "dot":
        every = query @ keys.T
    else:
        every = torch.nn.functional.cosine_similarity(query[:, None], keys[None], dim=-1)
    wanted, rows = every.sort(dim=1, descending=True)
    similarity, found = Search(keys, metric).top(query, 6)
    assert found.tolist() == rows[:, :6].tolist()
    torch.testing.assert_close(similarity, wanted[:, :6])


def test_more_neighbours_than_there_are_gives_them_all() -> None:
    similarity, rows = Search(torch.eye(3)).top(torch.eye(3)[:1], 50)
    assert rows.shape == similarity.shape == (1, 3)


def test_no_query_finds_nothing() -> None:
    assert Search(torch.eye(3)).top(torch.zeros(0, 3), 2)[1].shape[0] == 0


@pytest.mark.parametrize("metric", ["cosine", "dot", "euclidean"])
def test_faiss_finds_the_same(monkeypatch, metric: str) -> None:
    pytest.importorskip("faiss", reason="needs the extra 'search'")
    generator = torch.Generator().manual_seed(0)
    query, keys = torch.randn(5, 4, generator=generator), torch.randn(30, 4, generator=generator)
    similarity, rows = Search(keys, metric).top(query, 6)
    monkeypatch.setattr(search, "EXACT", 10)
    other, found = Search(keys, metric).top(query, 6)
    assert found.tolist() == rows.tolist()
    torch.testing.assert_close(other, similarity, rtol=1e-4, atol=1e-4)


def test_a_large_bank_names_the_extra_it_needs(monkeypatch) -> None:
    monkeypatch.setattr(search, "EXACT", 2)
    monkeypatch.setitem(__import__("sys").modules, "faiss", None)
    with pytest.raises(MissingExtraError, match="search"):
        Search(torch.eye(3))


def test_a_weighted_mean_leaves_out_what_is_not_a_number() -> None:
    values = torch.tensor([[[1.0, torch.nan], [3.0, 5.0]]])
    assert weighted_mean(values).tolist() == [[2.0, 5.0]]
    assert weighted_mean(values, torch.tensor([[3.0, 1.0]])).tolist() == [[1.5, 5.0]]
    assert similarity_mean(torch.tensor([[3.0, 1.0]]), values[0]).tolist() == [[1.5, 5.0]]


def test_a_spot_at_distance_0_takes_all_the_weight() -> None:
    assert inverse_square(torch.tensor([[0.0, 1.0, 2.0]])).tolist() == [[1.0, 0.0, 0.0]]
    torch.testing.assert_close(inverse_square(torch.tensor([[1.0, 2.0]])), torch.tensor([[0.8, 0.2]]))


def test_far_spots_do_not_underflow() -> None:
    weights = squared_exponential(torch.tensor([[100.0, 101.0]]))
    assert weights.sum() == 1
    assert weights[0, 0] > 0.99

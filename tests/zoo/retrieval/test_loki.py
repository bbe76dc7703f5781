"""Loki: its sentences, its tokeniser without a vocabulary, its weights, and how it aligns."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pytest
import torch

from napari_he2st.core.errors import WeightsError
from napari_he2st.zoo.blocks.bpe import Tokeniser, bytes_tokeniser
from napari_he2st.zoo.blocks.point_drift import drift, rigid_fit
from napari_he2st.zoo.catalogue import cards
from napari_he2st.zoo.retrieval.loki import Loki, sentence_genes


def tiny(n_genes: int = 3) -> Loki:
    torch.manual_seed(0)
    model = Loki(n_genes, **cards()["loki"].variants["tiny"])
    model.genes = ["ERBB2", "MT-CO1", "FASN"][:n_genes]
    return model.eval()


def test_a_sentence_names_the_most_expressed_genes_and_no_mitochondrial_ones() -> None:
    expression = torch.tensor([[1.0, 9.0, 2.0], [2.0, 0.0, 2.0]])
    assert sentence_genes(expression, ["ERBB2", "MT-CO1", "FASN"]).tolist() == [[2, 0], [0, 2]]
    assert sentence_genes(expression, ["ERBB2", "MT-CO1", "FASN"], {"FASN"}).tolist() == [[0], [0]]


def test_bytes_need_no_vocabulary() -> None:
    tokeniser = bytes_tokeniser()
    (row,) = tokeniser(["Ab 1"], 8).tolist()
    assert row[0] == tokeniser.start
    assert row[4:6] == [tokeniser.end, 0]
    assert tokeniser.words("AB") == tokeniser.words("ab")
    assert len(tokeniser) == 514


def test_frequent_pairs_are_joined_first() -> None:
    tokeniser = Tokeniser([("b", "c</w>"), ("a", "b")])
    assert len(tokeniser.words("abc")) == 2
    assert tokeniser.words("abc")[1] == 512


def test_long_sentences_keep_their_end() -> None:
    tokeniser = bytes_tokeniser()
    (row,) = tokeniser(["abcdefgh"], 5).tolist()
    assert row[-1] == tokeniser.end
    assert 0 not in row


def test_tokens_are_those_of_the_genes_in_order() -> None:
    model = tiny()
    tokens = model.tokens(torch.tensor([[1.0, 9.0, 2.0]]))
    assert tokens.tolist() == bytes_tokeniser()(["FASN ERBB2"], 76).tolist()


def test_published_weights_say_where_they_are(monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("HE2ST_WEIGHTS", str(tmp_path / "none.toml"))
    arguments = {**cards()["loki"].variants["tiny"], "pretrained": True}
    model = Loki(3, **arguments)
    assert model.recipe.epochs == 0
    with pytest.raises(WeightsError, match="huggingface.co/WangGuangyuLab/Loki"):
        list(model.fit([], model.recipe))


def test_the_user_s_own_file_is_loaded(monkeypatch, tmp_path) -> None:
    published = tiny()
    torch.save({"state_dict": {f"module.{k}": v for k, v in published.state_dict().items()}}, tmp_path / "loki.pt")
    (tmp_path / "weights.toml").write_text('loki = "loki.pt"\n')
    monkeypatch.setenv("HE2ST_WEIGHTS", str(tmp_path / "weights.toml"))
    torch.manual_seed(1)
    model = Loki(3, **{**cards()["loki"].variants["tiny"], "pretrained": True})
    model.genes = published.genes
    rows = {"slide": torch.zeros(4, dtype=torch.int64), "row": torch.arange(4)}
    tiles = torch.randint(0, 255, (4, 3, 64, 64), dtype=torch.uint8)
    batches = [({"expression": torch.rand(4, 3), **rows}, model.prepare(tiles=tiles))]
    assert list(model.fit(batches, model.recipe)) == []
    model.finish(batches)
    with torch.inference_mode():
        for sharpen in (False, True):
            assert model.eval().predict(**model.prepare(tiles=tiles), sharpen=sharpen).shape == (4, 3)
        torch.testing.assert_close(model.embed_images(**batches[0][1]), published.embed_images(**batches[0][1]))


def turned(degrees: float, shift: tuple[float, float]) -> np.ndarray:
    angle = np.deg2rad(degrees)
    cos, sin = np.cos(angle), np.sin(angle)
    return np.array([[cos, -sin, shift[0]], [sin, cos, shift[1]], [0, 0, 1]])


def test_a_rigid_motion_is_found_again() -> None:
    matrix = turned(25, (3, -2))
    points = np.random.default_rng(0).random((9, 2))
    np.testing.assert_allclose(rigid_fit(points, points @ matrix[:2, :2].T + matrix[:2, 2]), matrix, atol=1e-12)


def test_few_eigenvectors_move_points_as_the_whole_kernel_does() -> None:
    rng = np.random.default_rng(0)
    target = rng.random((40, 2))
    source = target @ turned(4, (0.02, 0.01))[:2, :2].T
    whole, _ = drift(target, source, max_iterations=30)
    reduced, _ = drift(target, source, max_iterations=30, rank=30)
    np.testing.assert_allclose(reduced, whole, atol=1e-3)
    assert np.abs(whole - target).mean() < 0.3 * np.abs(source - target).mean()


def test_features_stay_where_they_are() -> None:
    rng = np.random.default_rng(0)
    target, source = rng.random((20, 4)), rng.random((15, 4))
    moved, _ = drift(target, source, max_iterations=5)
    np.testing.assert_array_equal(moved[:, 2:], source[:, 2:])


def test_sections_that_look_alike_come_into_register() -> None:
    columns, rows = np.meshgrid(np.arange(9), np.arange(7))
    place = np.stack([columns.ravel(), rows.ravel()], 1) * 100.0
    shade = place[:, 0] / 800
    tint = place[:, 1] / 600
    colours = np.stack([60 + 180 * shade, 60 + 180 * tint, np.full(len(place), 120)], 1).astype(np.uint8)
    tiles = torch.from_numpy(colours)[:, :, None, None].expand(-1, -1, 64, 64)
    matrix = turned(12, (150, -60))
    other = place @ matrix[:2, :2].T + matrix[:2, 2]
    sections = [ad.AnnData(np.zeros((len(xy), 1)), obsm={"spatial": xy}) for xy in (place, other)]
    first, second = tiny().align(sections, tiles=[tiles, tiles])
    np.testing.assert_array_equal(first.matrix, np.eye(3))
    np.testing.assert_allclose(second.matrix[:2, :2] @ second.matrix[:2, :2].T, np.eye(2), atol=1e-9)
    error = np.linalg.norm(second(other) - place, axis=1).mean()
    assert error < 0.25 * np.linalg.norm(other - place, axis=1).mean()
    assert second.info["moved"].shape == place.shape

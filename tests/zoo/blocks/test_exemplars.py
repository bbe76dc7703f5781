from __future__ import annotations

import numpy as np
import torch

from napari_he2st.zoo.blocks.exemplars import exemplar_loss, fill_bank, nearest_exemplars


def _bank(slides: list[int]) -> dict[str, np.ndarray]:
    features = np.arange(len(slides), dtype=np.float32)[:, None]
    return {"features": features, "expression": features, "slide": np.array(slides)}


def test_exemplars_come_from_other_slides_in_training() -> None:
    bank = _bank([0, 0, 1, 1])
    query, slide = torch.tensor([[0.2], [3.0]]), torch.tensor([0, 1])
    _, rows = nearest_exemplars(query, bank, 2, 2, slide)
    assert rows.tolist() == [[2, 3], [1, 0]]
    assert nearest_exemplars(query, bank, 2, 2)[1].tolist() == [[0, 1], [3, 2]]


def test_with_one_slide_a_spot_is_not_its_own_exemplar() -> None:
    distance, rows = nearest_exemplars(torch.tensor([[1.0]]), _bank([0, 0, 0]), 1, 2, torch.tensor([0]))
    assert distance.tolist() == [[1.0]]
    assert rows.item() != 1


def test_a_small_bank_gives_what_it_has() -> None:
    assert nearest_exemplars(torch.zeros(3, 1), _bank([0]), 6, 1)[1].shape == (3, 1)


def test_a_bank_holds_an_epoch() -> None:
    targets = {"expression": torch.tensor([[1.0, torch.nan]]), "slide": torch.tensor([4])}
    bank = fill_bank([(targets, {"x": torch.ones(1, 2)})] * 2, "x")
    assert bank["features"].shape == (2, 2)
    assert bank["expression"].tolist() == [[1.0, 0.0]] * 2
    assert bank["slide"].tolist() == [4, 4]


def test_the_loss_is_zero_for_the_truth_alone() -> None:
    truth = torch.rand(8, 3, generator=torch.Generator().manual_seed(0))
    assert float(exemplar_loss(truth, truth)) < 1e-4
    assert float(exemplar_loss(truth.flip(0), truth)) > 0.1

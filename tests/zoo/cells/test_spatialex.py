"""What parity does not prove of SpatialEx."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from napari_he2st.zoo.base import Batches
from napari_he2st.zoo.cells.spatialex import SpatialEx
from napari_he2st.zoo.recipe import Recipe

N_CELLS, N_GENES, DIM = 60, 4, 16


class OneSlide(list[tuple[dict[str, Tensor], dict[str, Any]]]):
    n_slides = 1


def _slide(model: SpatialEx) -> Batches:
    """Cells whose features, like those of crops, spread little about a mean far from 0."""
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(N_CELLS, DIM, generator=generator)
    features, expression = 2 + 0.05 * hidden, 5 + 0.5 * hidden[:, :N_GENES]
    positions = 100 * torch.rand(N_CELLS, 2, generator=generator)
    return OneSlide([({"expression": expression}, model.prepare(features=features, positions=positions))])


def _errors(*, plus: bool, faithful: bool) -> tuple[float, float]:
    """Squared error of the training cells as the trained model sees them in training, and in prediction."""
    torch.manual_seed(0)
    model = SpatialEx(N_GENES, feature_dim=DIM, encoder="colour-texture", dim=16, plus=plus, dropout=0.0)
    model.faithful = faithful
    batches = _slide(model)
    model.train()
    for _ in model.fit(batches, Recipe("adam", lr=3e-3, epochs=40, batch_size=1)):
        pass
    model.finish(batches)
    ((targets, prepared),) = batches
    with torch.no_grad():
        predicted = model.eval().predict(**prepared)
        learnt = model.train().predict(**prepared)
    seen, used = ((values - targets["expression"]).square().mean().item() for values in (learnt, predicted))
    return seen, used


@pytest.mark.parametrize("plus", [False, True])
def test_cells_are_predicted_at_the_level_they_were_learnt_at(plus: bool) -> None:
    seen, used = _errors(plus=plus, faithful=False)
    assert seen < 0.25  # the variance of the targets
    assert used == pytest.approx(seen, rel=0.05)


def test_faithful_keeps_the_running_averages_which_miss_the_level() -> None:
    seen, used = _errors(plus=False, faithful=True)
    assert abs(used - seen) > 0.05 * seen

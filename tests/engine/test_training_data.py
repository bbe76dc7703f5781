"""Training batches: every spot once an epoch, and never of two sections where a batch brings its section along."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from napari_he2st.engine.training_batches import TrainingBatches
from napari_he2st.engine.training_data import Resolved
from napari_he2st.zoo.base import Slide, Spots
from napari_he2st.zoo.inputs import Features, Index
from napari_he2st.zoo.recipe import Recipe

N_SPOTS = (10, 7)


@pytest.fixture
def batches_of() -> Callable[..., TrainingBatches]:
    def make(unit, *, whole: bool, size: int = 4) -> TrainingBatches:
        inputs = {"index": Index(), **({"all": Features(per="slide")} if whole else {})}
        model = SimpleNamespace(unit=unit, inputs=inputs, prepare=lambda **values: values)
        resolved, targets = [], []
        for number, n in enumerate(N_SPOTS):
            ok = np.ones(n, dtype=bool)
            ok[0] = number == 1  # the first spot of the first section cannot be read
            values = {"index": torch.arange(n), "all": torch.full((n, 2), float(number))}
            resolved.append(Resolved({name: values[name] for name in inputs}, ok))
            targets.append({"expression": torch.arange(n).float()[:, None] + 100 * number})
        return TrainingBatches(model, resolved, targets, Recipe(batch_size=size), seed=0, device=torch.device("cpu"))

    return make


@pytest.mark.parametrize(("unit", "whole"), [(Spots(), False), (Spots(), True), (Slide(), False), (Slide(), True)])
def test_every_readable_spot_comes_once(batches_of, unit, whole: bool) -> None:
    batches = batches_of(unit, whole=whole)
    epochs = [list(batches), list(batches)]
    for found in epochs:
        assert len(found) == len(batches)
        values = torch.cat([targets["expression"][:, 0] for targets, _ in found])
        assert sorted(values.tolist()) == [*range(1, 10), *range(100, 107)]
        for targets, prepared in found:
            np.testing.assert_array_equal(targets["expression"][:, 0], 100 * targets["slide"] + prepared["index"])
    if isinstance(unit, Spots):
        first, second = ([t["expression"][:, 0].tolist() for t, _ in found] for found in epochs)
        assert first != second, "each epoch has its own order"


def test_a_batch_that_brings_its_section_along_is_of_one_section(batches_of) -> None:
    for targets, prepared in batches_of(Spots(), whole=True):
        assert len(targets["slide"].unique()) == 1
        assert float(prepared["all"][0, 0]) == float(targets["slide"][0])
        assert len(targets["slide"]) <= 4
    assert [len(t["slide"]) for t, _ in batches_of(Slide(), whole=False)] != [16]

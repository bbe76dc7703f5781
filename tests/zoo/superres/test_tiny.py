"""The tiny variant of every super-resolution system takes what the engine gives and can learn."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from tests.zoo.superres.generated import DenseBatches, rows_of

from napari_he2st.zoo.base import Predictor
from napari_he2st.zoo.catalogue import cards, system

N_GENES = 3
CASES = [
    (card.slug, variant)
    for card in cards().values()
    if card.tasks[0] == "superres"
    for variant in card.variants
    if variant.startswith("tiny")
]


def _trained(slug: str, variant: str, epochs: int) -> tuple[Predictor, DenseBatches, list[dict[str, float]]]:
    torch.manual_seed(0)
    model = system(slug)(n_genes=N_GENES, **cards()[slug].variants[variant])
    model.extras["scale"] = {"low": np.zeros(N_GENES), "span": np.ones(N_GENES)}
    batches = DenseBatches(model, N_GENES)
    recipe = replace(model.recipe, optimizer="adam", lr=3e-3, epochs=epochs, schedule=None)
    records = list(model.fit(batches, recipe))
    model.finish(batches)
    return model.eval(), batches, records


@pytest.mark.parametrize(("slug", "variant"), CASES)
def test_it_learns_and_predicts_every_row(slug: str, variant: str) -> None:
    model, batches, records = _trained(slug, variant, epochs=30)
    with torch.inference_mode():
        predicted = model.predict(**batches.prepared)
    assert predicted.shape == (*rows_of(model, batches.prepared), N_GENES)
    assert predicted.dtype == torch.float32
    assert bool(predicted.isfinite().all())
    losses = [record["loss"] for record in records if "loss" in record]
    if losses:  # nothing is trained where spots are only kept
        assert losses[-1] < 0.9 * losses[0]


@pytest.mark.parametrize("slug", sorted({slug for slug, _ in CASES}))
def test_the_card_says_whether_it_is_fitted_to_a_slide(slug: str) -> None:
    assert system(slug).fitted == cards()[slug].fitted

"""The tiny variant of every published regressor takes what the engine gives and can learn."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from tests.zoo.regression.generated import OneSlide, engine_inputs, expression

from napari_he2st.zoo.catalogue import cards, system

N_SPOTS, N_GENES = 12, 5
EPOCHS = {"hist2st": 80}  # it has a likelihood and views to fit beside the expression, from the mean on
SLUGS = [card.slug for card in cards().values() if card.tasks[0] == "regression" and card.status != "baseline"]


def _tiny(slug: str):
    torch.manual_seed(0)
    return system(slug)(n_genes=N_GENES, **cards()[slug].variants["tiny"])


@pytest.mark.parametrize("slug", SLUGS)
def test_it_predicts_every_spot(slug: str) -> None:
    model = _tiny(slug).eval()
    with torch.inference_mode():
        prepared = model.prepare(**engine_inputs(model, N_SPOTS))
        predicted = model.predict(**prepared)
    assert predicted.shape == (N_SPOTS, N_GENES)
    assert predicted.dtype == torch.float32
    assert predicted.isfinite().all()


@pytest.mark.parametrize("slug", SLUGS)
def test_one_spot_is_enough(slug: str) -> None:
    model = _tiny(slug).eval()
    with torch.inference_mode():
        assert model.predict(**model.prepare(**engine_inputs(model, 1))).isfinite().all()


def _fit(model, target: torch.Tensor, epochs: int) -> list[dict]:
    recipe = replace(model.recipe, optimizer="adam", lr=1e-3, epochs=epochs, schedule=None)
    counts = (target.exp() * 3).round()
    others = {name: counts for name in ("counts", "niche") if name in model.targets}
    batches = OneSlide(model, engine_inputs(model, len(target)), expression=target, **others)
    records = list(model.fit(batches, recipe))
    model.finish(batches)
    return records


@pytest.mark.parametrize("slug", SLUGS)
def test_it_learns(slug: str) -> None:
    model, target = _tiny(slug), expression(N_SPOTS, N_GENES)
    losses = [record["loss"] for record in _fit(model, target, epochs=EPOCHS.get(slug, 30)) if "loss" in record]
    if len(losses) > 1:
        assert sum(losses[-5:]) < 0.7 * sum(losses[:5])
    else:  # solved, not descended
        assert losses[0] < 0.7 * target.var(0, correction=0).mean()


@pytest.mark.parametrize("slug", SLUGS)
def test_unmeasured_genes_leave_it_finite(slug: str) -> None:
    model, target = _tiny(slug), expression(N_SPOTS, N_GENES)
    target[::2, 0] = torch.nan
    assert all(torch.tensor(list(record.values())).isfinite().all() for record in _fit(model, target, epochs=1))
    assert all(value.isfinite().all() for value in model.state_dict().values())


@pytest.mark.parametrize("slug", SLUGS)
def test_a_copy_is_independent(slug: str) -> None:
    model = _tiny(slug)
    _fit(model, expression(N_SPOTS, N_GENES), epochs=1)
    model.eval()
    inputs = engine_inputs(model, 4)
    with torch.inference_mode():
        before = model.predict(**model.prepare(**inputs))
        other = copy.deepcopy(model)
        for value in other.state_dict().values():
            value.zero_()
        after = model.predict(**model.prepare(**inputs))
        zeroed = other.predict(**other.prepare(**inputs))
    torch.testing.assert_close(before, after)
    assert not torch.allclose(before, zeroed)

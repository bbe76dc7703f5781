"""The tiny variant of every generative system takes what the engine gives, draws by its noise, and can learn."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from tests.zoo.regression.generated import OneSlide, engine_inputs, expression

from napari_he2st.core.noise import Noise
from napari_he2st.zoo import inputs as kinds
from napari_he2st.zoo.base import Expression, Predictor, Spots
from napari_he2st.zoo.catalogue import cards, system

N_SPOTS, N_GENES = 12, 6
SLUGS = [card.slug for card in cards().values() if card.tasks[0] == "generation"]
FAST = {"stem": {"steps": 4}, "stdiff": {"steps": 4}, "pathgen": {"steps": 4}, "hadm-st": {"steps": 4}}


def tiny(slug: str, **departures: Any) -> Predictor:
    torch.manual_seed(0)
    return system(slug)(n_genes=N_GENES, **{**cards()[slug].variants["tiny"], **departures})


def target_of(model: Predictor) -> torch.Tensor:
    spec, values = model.targets["expression"], expression(N_SPOTS, N_GENES)
    assert isinstance(spec, Expression)
    return (10 * values.exp()).round() if spec.scale == "counts" else values.sigmoid()


def inputs_of(model: Predictor, n: int, measured: torch.Tensor | None = None) -> dict[str, Any]:
    """What the engine would give; what is measured is NaN unless given."""
    given = {name: spec for name, spec in model.inputs.items() if isinstance(spec, kinds.Expression)}
    others = {name: spec for name, spec in model.inputs.items() if name not in given}
    known = torch.full((n, N_GENES), torch.nan) if measured is None else measured[:n]
    return {**engine_inputs(SimpleNamespace(inputs=others), n), **dict.fromkeys(given, known)}


def draw(model: Predictor, n: int, seed: int = 0, measured: torch.Tensor | None = None, **options: Any) -> torch.Tensor:
    with torch.inference_mode():
        prepared = model.eval().prepare(**inputs_of(model, n, measured))
        return model.predict(noise=Noise(seed, 0, np.arange(n)), **options, **prepared)


def fit(model: Predictor, target: torch.Tensor, epochs: int) -> list[dict[str, float]]:
    lr = 2e-4 if isinstance(model, system("stdiff")) else 2e-3
    recipe = replace(model.recipe, optimizer="adam", lr=lr, epochs=epochs, schedule=None)
    batches = OneSlide(model, inputs_of(model, len(target), target), expression=target)
    records = list(model.fit(batches, recipe))
    model.finish(batches)
    return records


@pytest.mark.parametrize("slug", SLUGS)
@pytest.mark.parametrize("n", [1, N_SPOTS])
def test_it_predicts_every_spot(slug: str, n: int) -> None:
    predicted = draw(tiny(slug), n, **FAST.get(slug, {}))
    assert predicted.shape == (n, N_GENES)
    assert predicted.dtype == torch.float32
    assert predicted.isfinite().all()


@pytest.mark.parametrize("slug", SLUGS)
def test_it_learns(slug: str) -> None:
    model = tiny(slug)
    losses = [record["loss"] for record in fit(model, target_of(model), epochs=80) if "loss" in record]
    assert np.mean(losses[-20:]) < 0.8 * np.mean(losses[:5])


@pytest.mark.parametrize("slug", SLUGS)
def test_unmeasured_genes_leave_it_finite(slug: str) -> None:
    model = tiny(slug)
    target = target_of(model)
    target[::2, 0] = torch.nan
    assert all(np.isfinite(list(record.values())).all() for record in fit(model, target, epochs=2))
    assert all(value.isfinite().all() for value in model.state_dict().values())


def _drawing(slug: str) -> tuple[Predictor, dict[str, Any]]:
    model = tiny(slug)
    fit(model, target_of(model), epochs=2)
    return model, FAST.get(slug, {})


@pytest.mark.parametrize("slug", [slug for slug in SLUGS if system(slug).draws])
def test_the_seed_decides_the_draw(slug: str) -> None:
    model, options = _drawing(slug)
    first, same, other = (draw(model, N_SPOTS, seed, **options) for seed in (0, 0, 1))
    assert torch.equal(first, same)
    assert not torch.allclose(first, other)


@pytest.mark.parametrize("slug", [slug for slug in SLUGS if isinstance(system(slug).unit, Spots)])
def test_a_spot_does_not_depend_on_its_batch(slug: str) -> None:
    model, options = _drawing(slug)
    with torch.inference_mode():
        prepared = model.eval().prepare(**inputs_of(model, N_SPOTS))
        rows = np.arange(N_SPOTS)
        whole = model.predict(noise=Noise(0, 0, rows), **options, **prepared)
        inputs = inputs_of(model, N_SPOTS)
        part = {name: value if model.inputs[name].per == "slide" else _last(value) for name, value in inputs.items()}
        alone = model.predict(noise=Noise(0, 0, rows[-3:]), **options, **model.prepare(**part))
    torch.testing.assert_close(whole[-3:], alone, atol=1e-4, rtol=1e-4)


def _last(value: Any) -> Any:
    return tuple(part[-3:] for part in value) if isinstance(value, tuple) else value[-3:]

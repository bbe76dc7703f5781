"""The tiny variant of every published regressor takes what the engine gives and can learn."""

from __future__ import annotations

import copy

import pytest
import torch
from tests.zoo.regression.generated import engine_inputs, expression

from napari_he2st.zoo.catalogue import cards, system

N_SPOTS, N_GENES = 12, 5
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


@pytest.mark.parametrize("slug", SLUGS)
def test_it_learns(slug: str) -> None:
    model, target = _tiny(slug).train(), expression(N_SPOTS, N_GENES)
    inputs = engine_inputs(model, N_SPOTS)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.Adam(trained, lr=1e-3)
    losses = []
    for _ in range(25):
        loss = model.loss({"expression": target}, **model.prepare(**inputs))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert sum(losses[-5:]) < 0.7 * sum(losses[:5])


@pytest.mark.parametrize("slug", SLUGS)
def test_unmeasured_genes_leave_the_loss_finite(slug: str) -> None:
    model, target = _tiny(slug).train(), expression(N_SPOTS, N_GENES)
    target[::2, 0] = torch.nan
    loss = model.loss({"expression": target}, **model.prepare(**engine_inputs(model, N_SPOTS)))
    assert loss.isfinite()


@pytest.mark.parametrize("slug", SLUGS)
def test_a_copy_is_independent(slug: str) -> None:
    model = _tiny(slug).eval()
    inputs = engine_inputs(model, 4)
    with torch.inference_mode():
        before = model.predict(**model.prepare(**inputs))
        other = copy.deepcopy(model)
        for parameter in other.parameters():
            parameter.zero_()
        after = model.predict(**model.prepare(**inputs))
        zeroed = other.predict(**other.prepare(**inputs))
    torch.testing.assert_close(before, after)
    assert not torch.allclose(before, zeroed)

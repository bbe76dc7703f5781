"""The tiny variant of every retrieval system takes what the engine gives, learns, and finds its own spots."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from tests.zoo.regression.generated import OneSlide, engine_inputs, expression

from napari_he2st.core.errors import ModelError
from napari_he2st.zoo.blocks.retrieval import gather
from napari_he2st.zoo.catalogue import cards, system

N_SPOTS, N_GENES = 24, 6
GENES = ["ERBB2", "GAPDH", "FASN", "MT-CO1", "KRT19", "CD3E"]
SLUGS = [card.slug for card in cards().values() if card.tasks[0] == "retrieval"]


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def tiny(slug: str):
    torch.manual_seed(0)
    model = system(slug)(n_genes=N_GENES, **cards()[slug].variants["tiny"])
    model.genes = list(GENES)
    return model


def fit(model, target: torch.Tensor, epochs: int) -> list[dict]:
    recipe = replace(model.recipe, optimizer="adam", lr=2e-3, epochs=epochs, schedule=None)
    batches = OneSlide(model, engine_inputs(model, len(target)), expression=target)
    records = list(model.fit(batches, recipe))
    model.finish(batches)
    return records


@pytest.mark.parametrize("slug", SLUGS)
def test_it_learns_and_predicts_every_spot(slug: str) -> None:
    model, target = tiny(slug), expression(N_SPOTS, N_GENES)
    losses = [record["loss"] for record in fit(model, target, epochs=15) if "loss" in record]
    assert np.mean(losses[-3:]) < np.mean(losses[:3])
    model.eval()
    with torch.inference_mode():
        prepared = model.prepare(**engine_inputs(model, N_SPOTS))
        predicted = model.predict(n_neighbours=3, **prepared)
        default = model.predict(**prepared)
    assert predicted.shape == default.shape == (N_SPOTS, N_GENES)
    assert predicted.dtype == torch.float32
    assert predicted.isfinite().all()
    # A mean of reference spots lies among them.
    assert (predicted <= target.max(0).values + 1e-5).all()
    assert (predicted >= target.min(0).values - 1e-5).all()


@pytest.mark.parametrize("slug", SLUGS)
def test_untrained_it_says_that_it_has_no_reference(slug: str) -> None:
    model = tiny(slug).eval()
    with pytest.raises(ModelError, match="no reference"):
        model.predict(**model.prepare(**engine_inputs(model, 4)))


@pytest.mark.parametrize("slug", SLUGS)
def test_unmeasured_genes_stay_out_of_the_mean(slug: str) -> None:
    model, target = tiny(slug), expression(N_SPOTS, N_GENES)
    target[::2, 0] = torch.nan
    fit(model, target, epochs=1)
    model.eval()
    with torch.inference_mode():
        predicted = model.predict(n_neighbours=N_SPOTS, **model.prepare(**engine_inputs(model, N_SPOTS)))
    assert predicted.isfinite().all()
    assert (predicted[:, 0] >= np.nanmin(target[:, 0]) - 1e-5).all()


@pytest.mark.parametrize("slug", SLUGS)
def test_one_spot_is_enough(slug: str) -> None:
    model = tiny(slug)
    fit(model, expression(N_SPOTS, N_GENES), epochs=1)
    model.eval()
    with torch.inference_mode():
        assert model.predict(**model.prepare(**engine_inputs(model, 1))).isfinite().all()


@pytest.mark.parametrize("slug", SLUGS)
def test_a_copy_keeps_its_own_reference(slug: str) -> None:
    model = tiny(slug)
    fit(model, expression(N_SPOTS, N_GENES), epochs=1)
    model.eval()
    inputs = engine_inputs(model, 4)
    with torch.inference_mode():
        before = model.predict(**model.prepare(**inputs))
        other = copy.deepcopy(model)
        other.extras["reference"] = {**other.extras["reference"], "expression": np.zeros((N_SPOTS, N_GENES), "float32")}
        assert (other.predict(**other.prepare(**inputs)) == 0).all()
        torch.testing.assert_close(model.predict(**model.prepare(**inputs)), before)


def test_the_reference_lies_in_the_order_of_the_sections() -> None:
    def batch(slides, rows):
        values = {"slide": torch.tensor(slides), "row": torch.tensor(rows)}
        return {"expression": torch.tensor(rows)[:, None].float(), **values}, {"place": torch.tensor(rows) * 10}

    bank = gather([batch([1, 0], [0, 2]), batch([0, 1], [1, 5])], ("place",))
    assert bank["slide"].tolist() == [0, 0, 1, 1]
    assert bank["row"].tolist() == [1, 2, 0, 5]
    assert bank["place"].tolist() == [10, 20, 0, 50]

"""Draws, seed and options of a predictor."""

from __future__ import annotations

import pytest

from napari_he2st.core.errors import He2stError
from napari_he2st.gui.widgets.sampling_form import SamplingForm
from napari_he2st.zoo.catalogue import cards, system


def model_of(slug: str):
    return system(slug)(n_genes=3, **cards()[slug].variants["tiny"])


@pytest.fixture
def form(qtbot) -> SamplingForm:
    form = SamplingForm()
    qtbot.addWidget(form)
    return form


def test_a_predictor_that_draws_is_asked_for_draws_and_steps(form, qtbot) -> None:
    form.show_model(model_of("stem"))
    assert not form.isHidden()
    assert form.values() == {"n_samples": 20, "seed": 0, "options": {"steps": 25, "sampler": "ancestral"}}
    with qtbot.waitSignal(form.changed):
        form.draws.setValue(4)
    with qtbot.waitSignal(form.changed):
        form.options.set_values(steps=10)
    assert form.values() == {"n_samples": 4, "seed": 0, "options": {"steps": 10, "sampler": "ancestral"}}


def test_one_that_looks_up_is_asked_for_neighbours_alone(form) -> None:
    form.show_model(model_of("bleep"))
    assert form.draws.isHidden()
    assert form.values()["options"] == {"n_neighbours": None, "rule": "average"}
    form.options.set_values(n_neighbours="many")
    with pytest.raises(He2stError, match="many"):
        form.values()


def test_one_without_either_shows_nothing(form) -> None:
    for model in (model_of("hist2st"), None):
        form.show_model(model)
        assert form.isHidden()
        assert form.values() == {"n_samples": 1, "seed": 0, "options": {}}

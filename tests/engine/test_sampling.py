"""Options of predictors, and what is refused."""

from __future__ import annotations

from typing import Literal, get_origin

import pytest

from napari_he2st.core.errors import ModelError
from napari_he2st.engine.sampling import check_options, options_of
from napari_he2st.zoo.base import Predictor
from napari_he2st.zoo.catalogue import cards, system

PREDICTORS = [
    slug
    for slug, card in cards().items()
    if card.status != "unavailable" and card.tasks[0] not in ("domains", "alignment")
]


@pytest.mark.parametrize("slug", PREDICTORS)
def test_options_are_numbers_texts_and_choices(slug: str) -> None:
    cls = system(slug)
    assert issubclass(cls, Predictor)
    for option in options_of(cls).values():
        assert get_origin(option.annotation) is Literal or "Tensor" not in str(option.annotation)
        assert option.name != "noise"


def test_an_option_that_does_not_exist_is_refused() -> None:
    stem = system("stem")
    check_options(stem, {"steps": 10, "sampler": "ddim"})
    with pytest.raises(ModelError, match="no option stride.*It has steps, sampler"):
        check_options(stem, {"stride": 2})
    with pytest.raises(ModelError, match="sampler of Stem cannot be 'euler'"):
        check_options(stem, {"sampler": "euler"})
    with pytest.raises(ModelError, match="It has none"):
        check_options(system("hist2st"), {"steps": 3})

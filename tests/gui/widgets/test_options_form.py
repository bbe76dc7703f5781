"""Forms made of keyword options."""

from __future__ import annotations

from typing import Literal

import pytest

from napari_he2st.core.errors import He2stError
from napari_he2st.core.registry import Entry
from napari_he2st.gui.widgets.options_form import OptionsForm

pytestmark = pytest.mark.gui


def work(
    data,
    *,
    needed: int,
    share: float = 0.25,
    n: int | None = None,
    genes: str | list[str] | None = None,
    form: Literal["round", "square"] = "round",
    fast: bool = True,
) -> None:
    """Do it.

    Parameters
    ----------
    share, n
        How much of it.
    """


@pytest.fixture
def form(qtbot) -> OptionsForm:
    form = OptionsForm()
    qtbot.addWidget(form)
    form.show_options(Entry("work", work, "").options, work.__doc__)
    return form


def test_untouched_fields_give_the_defaults(form):
    assert form.values() == {"share": 0.25, "n": None, "genes": None, "form": "round", "fast": True}


def test_fields_give_values_of_their_type(form):
    form.set_values(share="1e-4", n="12", genes="A,B", form="square", fast=False)
    assert form.values() == {"share": 1e-4, "n": 12, "genes": "A,B", "form": "square", "fast": False}


def test_a_word_where_a_number_belongs_is_named(form):
    form.set_values(n="many")
    with pytest.raises(He2stError, match=r"many.*n\."):
        form.values()


def test_options_can_be_replaced(form):
    form.show_options({})
    assert form.values() == {}


def test_tooltips_come_from_the_docstring(form):
    assert form.tooltip("n") == "How much of it."
    assert form.tooltip("fast") == ""

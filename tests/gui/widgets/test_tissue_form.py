"""The form of tissue detection."""

from __future__ import annotations

import numpy as np

from napari_he2st.data.slides.tissue import TissueMask
from napari_he2st.gui.widgets.tissue_form import DEFAULTS, TissueForm


def test_the_form_says_what_the_function_takes(qtbot) -> None:
    import inspect

    from napari_he2st.data.slides.tissue import tissue_mask

    form = TissueForm()
    qtbot.addWidget(form)
    assert form.params == DEFAULTS
    parameters = inspect.signature(tissue_mask).parameters
    assert {name: parameters[name].default for name in DEFAULTS} == DEFAULTS


def test_changes_are_told_once_and_can_be_taken_back(qtbot) -> None:
    form = TissueForm()
    qtbot.addWidget(form)
    with qtbot.waitSignal(form.changed) as told:
        form.threshold.setValue(7)
        form.drop_pen.setChecked(True)
        form.min_area.setValue(0.2)
    assert told.args[0] == {**DEFAULTS, "threshold": 7, "drop_pen": True, "min_area_um2": 200_000}
    with qtbot.waitSignal(form.changed) as told:
        form.reset.click()
    assert told.args[0] == DEFAULTS


def test_figures_are_shown(qtbot) -> None:
    form = TissueForm()
    qtbot.addWidget(form)
    form.show_mask(TissueMask(np.ones((2, 2), bool), 1, 0.25, "texture", {"threshold": 4.2, "pen_fraction": 0.031}))
    assert form.figures.text() == "Found by texture: 25.0% of the slide, threshold 4.2, 3.1% pen."
    form.show_mask(None)
    assert form.figures.text() == ""

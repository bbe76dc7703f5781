"""How a predictor is asked: number of draws, seed, and its own options."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QSignalBlocker, Signal
from qtpy.QtWidgets import QFormLayout, QSpinBox, QWidget

from napari_he2st.gui.widgets.options_form import OptionsForm, has_field

if TYPE_CHECKING:
    from napari_he2st.zoo.base import Predictor

_MAX_DRAWS = 1000


class SamplingForm(QWidget):
    """Fields for what applies to a predictor; the others are hidden.

    Attributes
    ----------
    changed
        Signal: draws or options are others, and with them what a run costs.
    """

    changed = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.draws = QSpinBox()
        self.draws.setRange(1, _MAX_DRAWS)
        self.draws.setToolTip("Random draws that are averaged; from two on, their spread can be shown as a second map")
        self.seed = QSpinBox()
        self.seed.setMaximum(2**31 - 1)
        self.seed.setToolTip("The same seed gives the same draws")
        self.options = OptionsForm()
        self.draws.valueChanged.connect(lambda _: self.changed.emit())
        self.options.changed.connect(self.changed)
        self._form = QFormLayout(self)
        self._form.setContentsMargins(0, 0, 0, 0)
        self._form.addRow("Draws", self.draws)
        self._form.addRow("Seed", self.seed)
        self._form.addRow(self.options)
        self.show_model(None)

    def show_model(self, model: Predictor | None) -> None:
        """Offer what a predictor can be asked; None is no predictor."""
        own: dict[str, inspect.Parameter] = {}
        if model is not None:
            from napari_he2st.engine.sampling import options_of  # it imports torch, as the model has

            own = {name: option for name, option in options_of(model).items() if has_field(option)}
        self.options.show_options(own, None if model is None else inspect.getdoc(model.predict))
        with QSignalBlocker(self.draws):
            self.draws.setValue(max(1, 0 if model is None else model.draws))
        for row in range(2):
            self._form.setRowVisible(row, model is not None and model.draws > 0)
        self.setVisible(model is not None and (model.draws > 0 or bool(own)))

    def values(self) -> dict[str, Any]:
        """Arguments of :func:`~napari_he2st.engine.predict.predict`.

        Raises
        ------
        He2stError
            An option is not a number.
        """
        return {"n_samples": self.draws.value(), "seed": self.seed.value(), "options": self.options.values()}

"""How the stain is normalised before a prediction, and a preview of it."""

from __future__ import annotations

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QCheckBox, QVBoxLayout, QWidget

from napari_he2st.gui.widgets.combo import Combo

_CHOICES = (
    ("As stored", None, "The colours of the file, in sRGB where it has a colour profile"),
    ("Macenko", "macenko", "Densities of both stains, shown with the usual reference's (Macenko et al., 2009)"),
    ("Reinhard", "reinhard", "Mean and spread of the colours of a breast section (Reinhard et al., 2001)"),
)


class StainChoice(QWidget):
    """A method, and whether the slide is drawn so.

    Signals
    -------
    changed()
        The method or the preview was changed.
    """

    changed = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.method = Combo("Colours that the predictor gets; those it was trained on suit it best")
        for title, name, tip in _CHOICES:
            self.method.add(title, data=name, tip=tip)
        self.preview = QCheckBox("Preview on the slide")
        self.preview.setToolTip("Draw the slide as the predictor gets it")
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.method)
        layout.addWidget(self.preview)
        self.method.currentIndexChanged.connect(lambda _: self.changed.emit())
        self.preview.toggled.connect(lambda _: self.changed.emit())

    def choose(self, method: str | None) -> None:
        """Choose a method by its name, or none."""
        self.method.setCurrentIndex(self.method.findData(method))

    @property
    def chosen(self) -> str | None:
        """Name of the method, or None."""
        name: str | None = self.method.currentData()
        return name

    @property
    def shown(self) -> str | None:
        """Name of the method that the slide is to be drawn with, or None."""
        return self.chosen if self.preview.isChecked() else None

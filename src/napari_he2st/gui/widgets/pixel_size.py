"""The question for a slide's pixel size: by objective, by number, or from a known distance."""

from __future__ import annotations

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QDoubleSpinBox, QFormLayout, QGroupBox, QLabel, QPushButton, QWidget

from napari_he2st.gui.widgets.combo import Combo

PRESETS = (("40× objective", 0.25), ("20× objective", 0.5), ("10× objective", 1.0))
"""Usual pixel sizes, micrometres; scanners differ by some percent, so a number or a distance is better."""


class PixelSizeForm(QGroupBox):
    """Asks for micrometres per pixel.

    Signals
    -------
    chosen(float)
        The user has decided.
    """

    chosen = Signal(float)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__("Pixel size", parent)
        self.question = QLabel()
        self.question.setWordWrap(True)
        self.preset = Combo("What is known of the scan; objectives give a usual value, not a measured one")
        for name, mpp in PRESETS:
            self.preset.addItem(f"{name} (about {mpp:g} µm)", mpp)
        self.preset.addItem("Known distance", "distance")
        self.preset.addItem("Number", "number")
        self.mpp = number_box(0.01, 100, 4, " µm/px", "Micrometres per pixel of the full-resolution image")
        self.distance_um = number_box(0.1, 1e6, 1, " µm", "A distance you know, such as that between two spots")
        self.distance_px = number_box(1, 1e6, 1, " px", "The same distance in pixels of the full-resolution image")
        self.button = QPushButton("Use this pixel size")
        self.button.setToolTip("Open the slide with this pixel size; every length depends on it")
        form = QFormLayout(self)
        form.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
        form.addRow(self.question)
        form.addRow("Known from", self.preset)
        form.addRow("Distance", self.distance_um)
        form.addRow("is in pixels", self.distance_px)
        form.addRow("Pixel size", self.mpp)
        form.addRow(self.button)
        self._form = form
        self.distance_um.setValue(100)
        self.distance_px.setValue(200)
        self.preset.currentIndexChanged.connect(self._by_preset)
        self.distance_um.valueChanged.connect(self._by_distance)
        self.distance_px.valueChanged.connect(self._by_distance)
        self.button.clicked.connect(lambda *_: self.chosen.emit(self.mpp.value()))
        self.preset.setCurrentIndex(1)

    def ask(self, question: str, mpp: float | None = None) -> None:
        """Show the form with its question, starting from a pixel size if one is known."""
        self.question.setText(question)
        if mpp is not None:
            self.preset.setCurrentIndex(self.preset.findData("number"))
            self.mpp.setValue(mpp)
        self.show()
        self.preset.setFocus()

    def _by_preset(self) -> None:
        choice = self.preset.currentData()
        for box in (self.distance_um, self.distance_px):
            self._form.setRowVisible(box, choice == "distance")
        self.mpp.setEnabled(choice == "number")
        if choice == "distance":
            self._by_distance()
        elif choice != "number":
            self.mpp.setValue(choice)

    def _by_distance(self) -> None:
        self.mpp.setValue(self.distance_um.value() / self.distance_px.value())


def number_box(low: float, high: float, decimals: int, suffix: str, tip: str) -> QDoubleSpinBox:
    box = QDoubleSpinBox()
    box.setRange(low, high)
    box.setDecimals(decimals)
    box.setSuffix(suffix)
    box.setToolTip(tip)
    return box

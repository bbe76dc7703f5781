"""The question for a slide's pixel size: by objective, by number, from a known distance, or as something suggests."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QCheckBox, QFormLayout, QGroupBox, QHBoxLayout, QLabel, QPushButton, QWidget

from napari_he2st.gui.widgets.combo import Combo
from napari_he2st.gui.widgets.number import number_box

if TYPE_CHECKING:
    from napari_he2st.data.slides.proposals import Proposal

PRESETS = (("40× objective", 0.25), ("20× objective", 0.5), ("10× objective", 1.0))
"""Usual pixel sizes, micrometres; scanners differ by some percent, so a number or a distance is better."""


class PixelSizeForm(QGroupBox):
    """Asks for micrometres per pixel.

    Signals
    -------
    chosen(float)
        The user has decided; :attr:`source` says on what grounds, :attr:`remember` whether for good.
    measure()
        The user wants to click two points of known distance.
    """

    chosen = Signal(float)
    measure = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__("Pixel size", parent)
        self._size = (0, 0)
        self._proposals: list[Proposal] = []
        self.question, self.doubts = QLabel(), QLabel()
        self.question.setWordWrap(True)
        self.doubts.setWordWrap(True)
        self.preset = Combo("What is known of the scan; objectives give a usual value, not a measured one")
        for name, mpp in PRESETS:
            self.preset.addItem(f"{name} (about {mpp:g} µm)", mpp)
        self.preset.addItem("Known distance", "distance")
        self.preset.addItem("Number", "number")
        self._n_fixed = self.preset.count()
        self.mpp = number_box(0.01, 100, 4, " µm/px", "Micrometres per pixel of the full-resolution image")
        self.distance_um = number_box(0.1, 1e6, 1, " µm", "A distance you know, such as that between two spots")
        self.distance_px = number_box(1, 1e6, 1, " px", "The same distance in pixels of the full-resolution image")
        self.measure_button = QPushButton("Click…")
        self.measure_button.setToolTip("Click the two ends of the distance on the slide")
        self.measure_button.clicked.connect(lambda *_: self.measure.emit())
        self.length = QWidget()
        row = QHBoxLayout(self.length)
        row.setContentsMargins(0, 0, 0, 0)
        row.addWidget(self.distance_px, 1)
        row.addWidget(self.measure_button)
        self.remember_box = QCheckBox("Remember for this slide")
        self.remember_box.setToolTip("Take this pixel size whenever this slide is opened, wherever it lies")
        self.remember_box.setChecked(True)
        self.button = QPushButton("Use this pixel size")
        self.button.setToolTip("Open the slide with this pixel size; every length depends on it")
        form = QFormLayout(self)
        form.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
        form.addRow(self.question)
        form.addRow("Known from", self.preset)
        form.addRow("Distance", self.distance_um)
        form.addRow("is in pixels", self.length)
        form.addRow("Pixel size", self.mpp)
        form.addRow(self.doubts)
        form.addRow(self.remember_box)
        form.addRow(self.button)
        self._form = form
        self.distance_um.setValue(100)
        self.distance_px.setValue(200)
        self.preset.currentIndexChanged.connect(self._by_preset)
        self.distance_um.valueChanged.connect(self._by_distance)
        self.distance_px.valueChanged.connect(self._by_distance)
        self.mpp.valueChanged.connect(lambda *_: self._show_doubts())
        self.button.clicked.connect(lambda *_: self.chosen.emit(self.mpp.value()))
        self.preset.setCurrentIndex(1)

    def ask(self, question: str, mpp: float | None = None, size: tuple[int, int] | None = None) -> None:
        """Show the form with its question, from a pixel size if one is known.

        Only what is asked of a slide, of ``size`` pixels, can be remembered: of a measured section the size is None.
        """
        self.question.setText(question)
        self._form.setRowVisible(self.remember_box, size is not None)
        self._size = size or (0, 0)
        self.propose([])
        if mpp is not None:
            self.preset.setCurrentIndex(self.preset.findData("number"))
            self.mpp.setValue(mpp)
        self.show()
        self.preset.setFocus()

    def propose(self, found: Sequence[Proposal]) -> None:
        """Offer what the slide and its spots suggest, and judge the pixel size by it."""
        while self.preset.count() > self._n_fixed:
            self.preset.removeItem(self._n_fixed)
        self._proposals = list(found)
        for proposal in found:
            share = f"within {proposal.tolerance:.0%}"
            text = f"{proposal.source[0].upper()}{proposal.source[1:]}: {proposal.mpp:.4g} µm"
            self.preset.add(text, data=proposal.mpp, tip=f"{text}, {share}")
        self._show_doubts()

    def set_length(self, length_px: float) -> None:
        """Take a distance that was clicked, level-0 pixels."""
        self.preset.setCurrentIndex(self.preset.findData("distance"))
        self.distance_px.setValue(length_px)

    @property
    def source(self) -> str:
        """On what grounds the pixel size was chosen."""
        if self.preset.currentData() == "distance":
            return f"a distance of {self.distance_um.value():g} µm over {self.distance_px.value():.1f} pixels"
        return self.preset.currentText().split(" (about")[0].split(":")[0].lower()

    @property
    def remember(self) -> bool:
        """Whether the choice is to be remembered."""
        return self.remember_box.isChecked()

    def _by_preset(self) -> None:
        choice = self.preset.currentData()
        for box in (self.distance_um, self.length):
            self._form.setRowVisible(box, choice == "distance")
        self.mpp.setEnabled(choice == "number")
        if choice == "distance":
            self._by_distance()
        elif choice not in {"number", None}:
            self.mpp.setValue(choice)

    def _by_distance(self) -> None:
        self.mpp.setValue(self.distance_um.value() / self.distance_px.value())

    def _show_doubts(self) -> None:
        from napari_he2st.data.slides.proposals import doubts

        found = doubts(self.mpp.value(), self._size, self._proposals) if max(self._size) else []
        self.doubts.setText("⚠ " + " ".join(found) if found else "")
        self.doubts.setVisible(bool(found))

"""The part of the Predict dock that fits a system to the current slide, from spots measured on it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from qtpy.QtWidgets import QFormLayout, QGroupBox, QLabel, QPushButton, QSpinBox

from napari_he2st.core.progress import Control
from napari_he2st.gui import prediction
from napari_he2st.gui.widgets.combo import Combo

if TYPE_CHECKING:
    from napari_he2st.engine.session_items import Result, SlideItem
    from napari_he2st.gui.docks.base import Dock
    from napari_he2st.gui.worker import Task
    from napari_he2st.zoo.bundle import Bundle

_PUBLISHED = 0
_GENES = 100


class FitBox(QGroupBox):
    """Options and a button; shown while a system is chosen that learns the slide it predicts.

    Parameters
    ----------
    dock
        The Predict dock; its work is run through it.
    measured
        The slide and what is measured on it; None while one of them is missing.
    loaded
        Takes the fitted predictor and its row.
    stain
        How the stain is to be normalised.
    """

    def __init__(
        self,
        dock: Dock,
        measured: Callable[[], tuple[SlideItem, Result] | None],
        loaded: Callable[[Bundle, dict[str, Any]], None],
        stain: Callable[[], str | None],
    ) -> None:
        super().__init__("Fit to this slide")
        self._dock, self._measured, self._loaded, self._stain = dock, measured, loaded, stain
        self._row: dict[str, Any] | None = None
        self._task: Task | None = None
        self.variant = Combo("Form of the system; those named for an encoder need no weight files of yours")
        self.genes = QSpinBox()
        self.genes.setRange(1, 20_000)
        self.genes.setValue(_GENES)
        self.genes.setToolTip("How many genes to learn, chosen by the system's own rule")
        self.epochs = QSpinBox()
        self.epochs.setRange(_PUBLISHED, 100_000)
        self.epochs.setSpecialValueText("as published")
        self.epochs.setToolTip("How often training goes through the spots")
        self.state = QLabel()
        self.state.setWordWrap(True)
        self.button = QPushButton("Fit")
        self.button.setToolTip("Learn from the spots measured on this slide; then predict it at any place")
        self.button.clicked.connect(lambda *_: self.start())
        form = QFormLayout(self)
        form.addRow("Variant", self.variant)
        form.addRow("Genes", self.genes)
        form.addRow("Epochs", self.epochs)
        form.addRow(self.state)
        form.addRow(self.button)
        self.hide()

    def show_system(self, row: dict[str, Any]) -> None:
        """Offer the variants of a system, if it is one that learns its own slide."""
        self._row = row if row["kind"] == "system" and row["fitted"] == "slide" else None
        self.setVisible(self._row is not None)
        if self._row is not None:
            self.variant.clear()
            self.variant.addItems(row["variants"])
            self.show_ready()

    def show_ready(self) -> None:
        """Let the button be used once spots are there to learn from."""
        found, running = self._measured(), self._task is not None and self._task.running
        ready = found is not None and found[1].adata is not None
        self.button.setEnabled(ready and not running)
        missing = "Load expression measured on this slide first, in the Slide dock."
        self.state.setText("" if found is None or not ready else f"From {len(found[1].grid):,} spots.")
        if not ready:
            self.state.setText(missing)

    def start(self) -> None:
        """Fit the chosen system to the current slide."""
        found = self._measured()
        if self._row is None or found is None or found[1].adata is None:
            return
        item, result = found
        fit = prediction.Fit(self.genes.value(), self.epochs.value() or None, stain=self._stain())
        self._task = self._dock.run(
            prediction.fit_to_slide,
            self._row["slug"],
            self.variant.currentText(),
            result.adata,
            item.slide,
            fit,
            control=Control(),
            name=f"Fitting {self._row['title']} to {item.name}",
            can_pause=True,
            on_done=lambda loaded: self._loaded(*loaded),
            on_end=self.show_ready,
        )
        self.show_ready()

"""Can I trust it here? What a predictor was trained on, and how far this slide is from it."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from qtpy.QtWidgets import QLabel, QPushButton, QVBoxLayout, QWidget

from napari_he2st.analysis.novelty import DISTANCE, outside
from napari_he2st.core.progress import Control
from napari_he2st.engine.session_items import Derived, Result

if TYPE_CHECKING:
    from napari_he2st.core.types import Grid
    from napari_he2st.data.slides import Slide
    from napari_he2st.gui.docks.base import Dock
    from napari_he2st.zoo.bundle import Bundle

_DOUBTFUL = 0.25
"""Share of tiles outside of training from which the whole prediction is doubted: of training tiles it is 0.01."""


class TrustBox(QWidget):
    """Tells what the predictor of the current result knows, and maps the distance of tiles to those it was trained on.

    Parameters
    ----------
    dock
        Whose session is meant; it runs the work.
    """

    def __init__(self, dock: Dock) -> None:
        super().__init__()
        self._dock, self._session = dock, dock.session
        self.about = QLabel(wordWrap=True)
        self.measure = QPushButton("Ma&p distance to training tiles")
        self.measure.setToolTip(
            "Compare the features of each tile with those of the training tiles, and show the distance as a map: "
            "above 1 a tile is outside of what the predictor has seen (Alt+P)"
        )
        self.measure.clicked.connect(lambda _: self.run())
        self.verdict = QLabel(wordWrap=True)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        for widget in (self.about, self.measure, self.verdict):
            layout.addWidget(widget)
        self.follow()

    def follow(self) -> None:
        """Tell of the current result."""
        result = self._session.current_result
        about, possible = _about(result)
        self.about.setText(about)
        self.measure.setEnabled(possible)
        self.verdict.setText(_verdict(result))
        self.verdict.setVisible(bool(self.verdict.text()))

    def run(self) -> None:
        """Map the distance in a thread."""
        result = self._session.current_result
        if result is None or result.bundle is None:
            return
        self.measure.setEnabled(False)
        self._dock.run(
            _distance,
            result.bundle,
            self._session.slides[result.slide].slide,
            result.grid,
            control=Control(),
            name="Comparing with training tiles",
            on_done=partial(self._measured, result),
            on_end=self.follow,
        )

    def _measured(self, result: Result, distance: NDArray[np.float32]) -> None:
        if self._session.results.get(result.name) is not result:
            return
        made_of = "Distance of each tile's features to the training tiles; 99 % of these lie within 1, their edge"
        self._session.add_derived(result.name, DISTANCE, Derived(distance, "× edge", made_of))
        self.follow()
        verdict = _verdict(result)
        self._dock.say(verdict)
        if verdict.startswith("⚠") and verdict not in result.warnings:
            result.warnings.append(verdict)


def _about(result: Result | None) -> tuple[str, bool]:
    """What is known of a result's predictor, and whether the distance can be measured."""
    if result is None:
        return "There is no prediction.", False
    if result.kind != "predicted":
        return "This was measured, not predicted.", False
    if result.bundle is None:
        return "The predictor of this result is not open: predict here to compare its training tiles.", False
    from napari_he2st.engine.trust import knows_its_training

    facts = result.bundle.manifest
    origin = ", ".join([*facts.organs, *facts.species]) or "organ and species not stated"
    patients = len({section.get("patient") for section in facts.training})
    n = len(facts.training)
    about = f"{facts.title}: trained on {n} section{'s' if n != 1 else ''} of {patients} patient"
    about += f"{'s' if patients != 1 else ''} ({origin})."
    if knows_its_training(result.bundle):
        return about, True
    return f"{about} It keeps no summary of its training tiles, so how far this slide is from them is not known.", False


def _verdict(result: Result | None) -> str:
    """What the distance says of a slide; empty where it was not measured."""
    if result is None or DISTANCE not in result.derived:
        return ""
    share = outside(result.derived[DISTANCE].values)
    if not np.isfinite(share):
        return "No tile could be compared."
    if share >= _DOUBTFUL:
        return f"⚠ Outside training: {share:.0%} of the tiles are unlike any the predictor has seen."
    return f"{share:.0%} of the tiles lie outside of the training tiles (1 % of these do)."


def _distance(bundle: Bundle, slide: Slide, grid: Grid, control: Control) -> NDArray[np.float32]:
    """Imported in the thread, for it brings torch."""
    from napari_he2st.engine.trust import distance_to_training

    return distance_to_training(bundle, slide, grid, control=control)

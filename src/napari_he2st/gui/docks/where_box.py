"""The part of the Predict dock that says where: an area, the tiles or cells in it, and what they will cost."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import Signal
from qtpy.QtWidgets import (
    QCheckBox,
    QDoubleSpinBox,
    QFormLayout,
    QGroupBox,
    QHBoxLayout,
    QLabel,
    QPushButton,
    QWidget,
)
from superqt.utils import qdebounced

from napari_he2st.core.types import Grid, Region
from napari_he2st.gui import prediction
from napari_he2st.gui.widgets.combo import Combo

if TYPE_CHECKING:
    from napari_he2st.data.slides.tissue import TissueMask
    from napari_he2st.engine.session_items import Result, SlideItem
    from napari_he2st.gui.docks.base import Dock

WHOLE, VIEW, REGIONS, SPOTS = "Whole slide", "Current view", "Drawn regions", "Measured spots"


class WhereBox(QGroupBox):
    """Where a predictor of some kind is to predict.

    Parameters
    ----------
    dock
        The Predict dock; its work is run through it.
    measured
        The slide and what is measured on it; None while one of them is missing.

    Attributes
    ----------
    grid
        What would be predicted; None until it is laid out.
    busy
        While True nothing is laid out anew.
    changed
        Emitted when ``grid`` is gone: something else was chosen.
    planned
        Emitted when there is a new one.
    """

    changed = Signal()
    planned = Signal()

    def __init__(self, dock: Dock, measured: Callable[[], tuple[SlideItem, Result] | None]) -> None:
        super().__init__("Where")
        self._dock, self._session, self._measured = dock, dock.session, measured
        self._kind: prediction.Kind | None = None
        self._had_outline = False  # before the preview showed it
        self._planned = 0  # number of the last plan; answers to earlier ones are dropped
        self.grid: Grid | None = None
        self.busy = False
        self.area = Combo("What to predict")
        self.area.addItems([WHOLE, VIEW, REGIONS, SPOTS])
        self.area.currentTextChanged.connect(self.plan)
        self.draw_button = QPushButton("Draw")
        self.draw_button.setToolTip("Draw regions on the slide: click corners, double-click to close")
        self.draw_button.clicked.connect(lambda *_: self._draw())
        self.update_button = QPushButton("Update")
        self.update_button.setToolTip("Take the part of the slide that is on screen now")
        self.update_button.clicked.connect(self.plan)
        self.pitch = QDoubleSpinBox()
        self.pitch.setRange(1, 2000)
        self.pitch.setDecimals(1)
        self.pitch.setSuffix(" µm")
        self.pitch.setKeyboardTracking(False)
        self.pitch.setToolTip("Distance between neighbouring predictions; the predictor's own is the one to trust")
        self.pitch.setValue(100)
        self.pitch.valueChanged.connect(self.plan)
        self.preview = QCheckBox("Show tiles")
        self.preview.setToolTip("Preview which tiles will be predicted, and the outline of the tissue")
        self.preview.toggled.connect(self._preview)
        self.cost = QLabel()
        self.cost.setWordWrap(True)
        self._areas = QWidget()
        row = QHBoxLayout(self._areas)
        row.setContentsMargins(0, 0, 0, 0)
        row.addWidget(self.area, 1)
        row.addWidget(self.draw_button)
        row.addWidget(self.update_button)
        self._form = QFormLayout(self)
        self._form.addRow("Area", self._areas)
        self._form.addRow("Every", self.pitch)
        self._form.addRow(self.preview)
        self._form.addRow(self.cost)

    @property
    def whole(self) -> bool:
        """Whether all of the slide is asked for."""
        return self._kind == "slide" or self.area.currentText() == WHOLE

    def show_kind(self, kind: prediction.Kind | None, pitch_um: float | None = None) -> None:
        """Offer what applies to predictors of a kind, and start from the distance of predictions of this one."""
        self._kind = kind
        for field, applies in ((self._areas, kind != "slide"), (self.pitch, kind in (None, "spots"))):
            field.setVisible(applies)
            self._form.labelForField(field).setVisible(applies)
        self.preview.setVisible(kind in (None, "spots"))
        if kind == "slide":
            self.preview.setChecked(False)
        if pitch_um is not None:
            self.pitch.setValue(pitch_um)
        self.plan()

    def plan(self, *_: Any) -> None:
        """Forget the plan; a moment later, unless a run goes on, there is a new one."""
        if self.busy:
            return
        self._planned += 1
        self.grid = None
        self.draw_button.setVisible(self.area.currentText() == REGIONS)
        self.update_button.setVisible(self.area.currentText() == VIEW)
        self.pitch.setEnabled(self.area.currentText() != SPOTS)
        self.changed.emit()
        self._plan_soon()

    def missing(self) -> str:
        """What the user has to do before there can be a plan; empty if nothing."""
        item = self._session.current_slide
        if item is None:
            return "Open a slide first, in the Slide dock."
        if self._kind is None:
            return "Choose a trained predictor."
        if self._kind == "cells" and item.nuclei is None and self.area.currentText() != SPOTS:
            return "This predictor needs nuclei: find them first, in the Slide dock."
        if self.regions(item.name) == []:
            return "Draw a region over tissue."
        if self.area.currentText() == SPOTS and not self.whole and self._measured() is None:
            return "Load measured expression first, in the Slide dock."
        return ""

    def regions(self, slide: str) -> list[Region] | None:
        """Regions of a slide that are asked for; None is everywhere."""
        if self.whole:
            return None
        if self.area.currentText() == VIEW:
            return [self._dock.layers.current_view(slide)]
        return self._session.regions[slide] if self.area.currentText() == REGIONS else None

    def told(self, slide: str) -> dict[str, Any]:
        """Where is predicted, as :class:`~napari_he2st.engine.session_items.Made` has it."""
        found = self._measured() if self.area.currentText() == SPOTS and not self.whole else None
        regions = self.regions(slide)
        return {
            "pitch_um": self.pitch.value(),
            "spots_of": None if found is None else found[1].name,
            "regions": None if regions is None else [region.polygon for region in regions],
        }

    def _draw(self) -> None:
        if self._session.slide is not None:
            self.area.setCurrentText(REGIONS)
            self._dock.layers.draw_regions(self._session.slide)

    @qdebounced(timeout=150)
    def _plan_soon(self) -> None:
        item, found = self._session.current_slide, self._measured()
        if item is None or self.busy or self.missing():
            return
        if self.area.currentText() == SPOTS and not self.whole and found is not None:
            self._ready(self._planned, found[1].grid)
        elif self._kind == "cells":
            self._lay_out(prediction.plan_cells, item.nuclei, item.slide.mpp, self.regions(item.name))
        else:
            self._dock.with_mask(item, self._plan_tiles)

    def _plan_tiles(self, mask: TissueMask) -> None:
        item = self._session.current_slide
        if item is not None:
            self._lay_out(prediction.plan, item.slide, mask, self.pitch.value(), self.regions(item.name))

    def _lay_out(self, plan: Callable[..., Grid], *args: Any) -> None:
        number = self._planned
        self._dock.run(plan, *args, name="Laying out tiles", quiet=True, on_done=lambda grid: self._ready(number, grid))

    def _ready(self, number: int, grid: Grid) -> None:
        if number == self._planned:
            self.grid = grid
            self._show_tiles()
            self.planned.emit()

    def _preview(self, on: bool) -> None:
        slide, layers = self._session.slide, self._dock.layers
        if slide is not None:
            self._had_outline = layers.mask_shown(slide) if on else self._had_outline
            layers.show_mask(slide, on or self._had_outline)
        self._show_tiles()

    def _show_tiles(self) -> None:
        self._dock.layers.show_tiles(self.grid if self.preview.isChecked() else None)

"""The tissue behind a gene: the H&E where it is highest and lowest."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QDialog, QLabel, QVBoxLayout, QWidget

from napari_he2st.analysis.summary import extreme_rows
from napari_he2st.core import keys
from napari_he2st.core.geometry import world_from_level0
from napari_he2st.data.slides.pictures import pictures
from napari_he2st.gui.widgets.pictures import PICTURE_PX, PictureGrid
from napari_he2st.gui.worker import Task, run

if TYPE_CHECKING:
    from napari_he2st.data.slides import Slide
    from napari_he2st.engine.session_items import Result
    from napari_he2st.gui.layers import SlideLayers

EACH, COLUMNS = 10, 5
_WIDTH_UM = 110.0
_POWER = 10.0


class ExtremesDialog(QDialog):
    """Two rows of tiles of the current gene and result; a click goes there on the slide.

    Parameters
    ----------
    layers
        Of the viewer whose view moves.
    parent
        The widget it belongs to.

    Attributes
    ----------
    rows
        Spots that are shown, the highest and the lowest; empty until known.
    """

    def __init__(self, layers: SlideLayers, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        self.setWindowTitle("Tissue behind a gene")
        self.layers, self.session = layers, layers.session
        self._task: Task | None = None
        self._result: Result | None = None
        self.rows: tuple[NDArray[np.intp], ...] = ()
        self.note = QLabel(wordWrap=True)
        self.grids = (PictureGrid(EACH, COLUMNS), PictureGrid(EACH, COLUMNS))
        layout = QVBoxLayout(self)
        layout.addWidget(self.note)
        for number, (title, grid) in enumerate(zip(("Highest", "Lowest"), self.grids, strict=True)):
            grid.chosen.connect(lambda place, number=number: self.go_to(number, place))
            for picture in grid.pictures:
                picture.setToolTip("Click, or press Return, to go there")
                picture.setFocusPolicy(Qt.FocusPolicy.TabFocus)
                picture.setCursor(Qt.CursorShape.PointingHandCursor)
            layout.addWidget(QLabel(f"<b>{title}</b>"))
            layout.addWidget(grid)
        self.session.selection_changed.connect(self._refresh)
        self.finished.connect(self._stop)
        self._refresh()

    def _refresh(self) -> None:
        """Find and read the tiles in a thread."""
        result, gene = self.session.current_result, self.session.gene
        if self._task is not None:
            self._task.cancel()
        self.rows, self._result = (), result
        for grid in self.grids:
            grid.show_pictures(None, 0)
        if result is None or gene is None or not result.shows(gene):
            self.note.setText("Choose a result and one of its genes.")
            return
        told = f"<b>{gene}</b>, {result.title}, {result.unit(gene)}. Click a tile to go there."
        self.note.setText(f"{told} {keys.RESEARCH_USE}" if result.kind == "predicted" else told)
        slide = self.session.slides[result.slide].slide
        self._task = run(_read, slide, result, gene, name="Reading tiles", owner=self, on_done=self._show)

    def _show(self, found: tuple[tuple[NDArray[np.intp], NDArray[np.float32], NDArray[np.uint8]], ...]) -> None:
        self.rows = tuple(rows for rows, _, _ in found)
        for grid, (rows, values, pixels) in zip(self.grids, found, strict=True):
            grid.show_pictures(list(pixels), len(rows))
            for caption, value in zip(grid.captions, values, strict=False):
                caption.setText(f"{value:.2f}")

    def go_to(self, number: int, place: int) -> None:
        """Show a tile of the highest (0) or lowest (1) on the slide."""
        if self._result is None or not self.rows:
            return
        y_um, x_um = world_from_level0(self._result.grid.xy[self.rows[number][place]], self._result.grid.mpp)
        self.layers.navigator.magnify(_POWER)
        self.layers.navigator.go_to(float(y_um), float(x_um))

    def _stop(self, *_: Any) -> None:
        self.session.selection_changed.disconnect(self._refresh, missing_ok=True)


def _read(slide: Slide, result: Result, gene: str) -> tuple[Any, ...]:
    """Rows, values and pictures of the highest and of the lowest spots."""
    values, width_um = result.column(gene), max(_WIDTH_UM, result.grid.spot_um)
    return tuple(
        (rows, values[rows], pictures(slide, result.grid.xy[rows], width_um, px=PICTURE_PX))
        for rows in extreme_rows(values, EACH)
    )

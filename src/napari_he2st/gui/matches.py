"""For a clicked spot, the training spots that a retrieval system made its prediction of."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QDialog, QLabel, QScrollArea, QVBoxLayout, QWidget

from napari_he2st.core import keys
from napari_he2st.core.expression import unit_of
from napari_he2st.gui.picking import SpotPicker
from napari_he2st.gui.widgets.pictures import Picture, PictureGrid
from napari_he2st.gui.worker import Task, run

if TYPE_CHECKING:
    from napari.viewer import Viewer

    from napari_he2st.engine.reference import Matches
    from napari_he2st.engine.session import Session
    from napari_he2st.engine.session_items import Result

COLUMNS, SHOWN = 4, 12
"""Tiles beside each other, and tiles in all."""

_ASK = "Click a spot on the picture to see the reference spots that look most like it."


class MatchesDialog(QDialog):
    """The clicked spot's tile, and below it its reference spots with their similarity and their gene.

    Parameters
    ----------
    viewer, session
        Where spots are clicked; the current gene is read off the reference spots too.
    result
        A prediction whose ``bundle`` looks spots up.
    parent
        The widget it belongs to.
    """

    def __init__(self, viewer: Viewer, session: Session, result: Result, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setWindowTitle(f"Reference spots of {result.title}")
        self.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        self.session, self.result = session, result
        self.found: Matches | None = None
        self.row: int | None = None
        self._task: Task | None = None
        self.note = QLabel(_ASK, wordWrap=True)
        self.query = Picture()
        self.grid = PictureGrid(SHOWN, COLUMNS)
        scroll = QScrollArea(widgetResizable=True)
        scroll.setWidget(self.grid)
        layout = QVBoxLayout(self)
        layout.addWidget(self.note)
        layout.addWidget(self.query, alignment=Qt.AlignmentFlag.AlignHCenter)
        layout.addWidget(scroll, 1)
        layout.addWidget(QLabel(keys.RESEARCH_USE, wordWrap=True))
        self.resize(480, 660)
        self.picker = SpotPicker(viewer, result.grid, self.look_up)
        session.selection_changed.connect(self._selection_changed)
        session.result_removed.connect(self._result_removed)
        self.finished.connect(self._stop)

    def look_up(self, row: int) -> None:
        """Search the reference for a spot of the result's grid, off the GUI thread."""
        from napari_he2st.engine.reference import matches

        if self._task is not None:
            self._task.cancel()
        self.row = row
        self.note.setText("Searching the reference …")
        slide = self.session.slides[self.result.slide].slide
        self._task = run(
            matches,
            self.result.bundle,
            slide,
            self.result.grid,
            row,
            n=SHOWN,
            name="Looking up reference spots",
            owner=self,
            on_done=self._show,
            on_error=lambda _: self.note.setText(_ASK),
        )

    def _show(self, found: Matches) -> None:
        self.found = found
        self.query.show_pixels(found.query)
        n = len(found.similarity)
        self.grid.show_pictures(None if found.pictures is None else list(found.pictures), n)
        for number, picture in enumerate(self.grid.pictures[:n]):
            x, y = found.xy[number]
            where = "" if not np.isfinite(x) else f" at level-0 pixel ({x:.0f}, {y:.0f})"
            picture.setToolTip(f"Reference spot of section {found.sections[number]}{where}")
        self._caption()

    def _caption(self) -> None:
        """Similarity, section and the current gene of each reference spot; the same of the spot itself."""
        if self.found is None or self.row is None or self.result.bundle is None:
            return
        gene, genes = self.session.gene or "", self.result.bundle.genes
        column = genes.index(gene) if gene in genes else None
        for number, caption in enumerate(self.grid.captions[: len(self.found.similarity)]):
            lines = [f"{self.found.similarity[number]:.3f}  {self.found.sections[number]}"]
            if column is not None:
                lines.append(f"{gene} {self.found.expression[number, column]:.2f}")
            caption.setText("\n".join(lines))
        value = f" Predicted {gene}: {self.result.column(gene)[self.row]:.2f}." if column is not None else ""
        unit = f" Expression is {unit_of(self.result.scale)}." if column is not None else ""
        self.note.setText(f"Spot {self.row}.{value} Reference spots by {self.found.measure}, best first.{unit}")

    def _selection_changed(self) -> None:
        self._caption()

    def _result_removed(self, name: str) -> None:
        if name == self.result.name:
            self.close()

    def _stop(self, *_: Any) -> None:
        self.picker.close()
        self.session.selection_changed.disconnect(self._selection_changed, missing_ok=True)
        self.session.result_removed.disconnect(self._result_removed, missing_ok=True)

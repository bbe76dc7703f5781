"""Registration by hand in the Slide dock: landmarks on spots and slide, their residuals, and a way back."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from qtpy.QtWidgets import (
    QCheckBox,
    QFileDialog,
    QGridLayout,
    QHeaderView,
    QLabel,
    QPushButton,
    QTableWidget,
    QTableWidgetItem,
    QVBoxLayout,
    QWidget,
)

from napari_he2st.analysis.alignment.landmarks import KINDS, LEAST, LandmarkFit, fit_landmarks, match_landmarks
from napari_he2st.core.errors import He2stError
from napari_he2st.core.schema import facts_of
from napari_he2st.core.types import Transform
from napari_he2st.gui.landmark_layers import SIDES, LandmarkLayers, Side
from napari_he2st.gui.widgets.combo import Combo
from napari_he2st.gui.widgets.save_dialog import ask_where

if TYPE_CHECKING:
    from napari_he2st.engine.session_items import Result
    from napari_he2st.gui.docks.base import Dock

_HINT = (
    "Mark the same points of the tissue on the measured spots and on the slide. The spots are moved so that they meet."
)
_TABLE_PX = 130


class RegistrationSection(QWidget):
    """Mark landmarks, see their residuals, move the spots of the current measured result.

    Parameters
    ----------
    dock
        The dock it is part of.
    """

    def __init__(self, dock: Dock) -> None:
        super().__init__()
        self._dock, self._session = dock, dock.session
        self._marks: LandmarkLayers | None = None
        self._fit: LandmarkFit | None = None
        self._order: NDArray[np.intp] = np.zeros(0, dtype=np.intp)
        self._before: list[tuple[str, NDArray[np.float64]]] = []
        hint = QLabel(_HINT)
        hint.setWordWrap(True)
        self.kind = Combo("How the spots may be moved: shift, turn and scale; also shear; also bend")
        self.kind.addItems(KINDS)
        self.kind.currentTextChanged.connect(lambda *_: self.update_fit())
        self.any_order = QCheckBox("Pair them in any order")
        self.any_order.setToolTip("Find out which landmarks belong together, also where one side is a mirror image")
        self.any_order.toggled.connect(lambda *_: self.update_fit())
        self.table = QTableWidget(0, 3)
        self.table.setHorizontalHeaderLabels(["On spots", "On slide", "Residual, µm"])
        self.table.verticalHeader().hide()
        self.table.horizontalHeader().setSectionResizeMode(QHeaderView.ResizeMode.Stretch)
        self.table.setEditTriggers(QTableWidget.EditTrigger.NoEditTriggers)
        self.table.setFixedHeight(_TABLE_PX)
        self.table.setToolTip("How far each landmark misses its partner. The worst is the first to look at again")
        self.note = QLabel()
        self.note.setWordWrap(True)
        self._buttons()
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(hint)
        layout.addLayout(self._grid)
        for widget in (self.table, self.note):
            layout.addWidget(widget)
        layout.addLayout(self._below)
        dock.listen(self._session.landmarks_restored, self.show_landmarks)
        self.update_fit()

    def _buttons(self) -> None:
        def button(text: str, tip: str, slot: object) -> QPushButton:
            made = QPushButton(text)
            made.setToolTip(tip)
            made.clicked.connect(lambda *_: slot())  # type: ignore[operator]
            return made

        self.on_spots = button("Mark on spots", "Click points on the map of measured spots", lambda: self.mark("spots"))
        self.on_slide = button("Mark on slide", "Click the same points on the slide", lambda: self.mark("slide"))
        self.apply_button = button("Move the spots", "Move the spots of the current measured result", self.apply)
        self.undo_button = button("Undo", "Take back the last move of the spots", self.undo)
        self.clear_button = button("Clear", "Remove all landmarks", self.clear)
        self.read_button = button(
            "Read alignment…",
            "A matrix or keypoints, of Xenium Explorer or saved here",
            self._pick,
        )
        self.save_button = button("Save matrix…", "Write the map from the vendor's pixels to the slide", self._save)
        self.save_marks_button = button("Save landmarks…", "Write the pairs with their residuals", self._save_marks)
        self._grid, self._below = QGridLayout(), QGridLayout()
        for column, widget in enumerate((self.on_spots, self.on_slide)):
            self._grid.addWidget(widget, 0, column)
        self._grid.addWidget(self.kind, 1, 0, 1, 2)
        self._grid.addWidget(self.any_order, 2, 0, 1, 2)
        below = (
            (self.apply_button, self.undo_button),
            (self.clear_button, self.read_button),
            (self.save_button, self.save_marks_button),
        )
        for row, widgets in enumerate(below):
            for column, widget in enumerate(widgets):
                self._below.addWidget(widget, row, column)

    # --- landmarks

    @property
    def result(self) -> Result | None:
        """The current result, if it is measured."""
        result = self._session.current_result
        return result if result is not None and result.kind == "measured" else None

    def marks(self) -> LandmarkLayers | None:
        """The landmark layers of the slide of the current measured result; made on first use."""
        result = self.result
        if result is None:
            return None
        if self._marks is None or self._marks.slide != result.slide:
            self.clear()
            mpp = self._session.slides[result.slide].slide.mpp
            self._marks = LandmarkLayers(self._dock.viewer, result.slide, mpp)
            saved = self._session.landmarks.get(result.slide, {})
            for side in SIDES:
                if len(saved.get(side, ())):
                    self._marks.put(side, saved[side])
            self._marks.changed.connect(self.update_fit)
            self.update_fit()
        return self._marks

    def mark(self, side: Side) -> None:
        """Let the user click landmarks on one side."""
        marks = self.marks()
        if marks is None:
            self._dock.warn("Load a measured section first.")
            return
        marks.mark(side)

    def show_landmarks(self, slide: str) -> None:
        """Put landmarks where a session that was opened had them."""
        if self.result is None or self.result.slide != slide:
            return  # they come when its measured section is chosen and marked
        if self._marks is not None:
            self._marks.remove()
        self._marks = None
        self.marks()

    def clear(self) -> None:
        """Remove all landmarks."""
        if self._marks is not None:
            self._session.set_landmarks(self._marks.slide, {})
            self._marks.remove()
        self._marks, self._before = None, []
        self.update_fit()

    def update_fit(self) -> None:
        """Fit again, and show residuals or what is missing."""
        moving, fixed = (
            np.zeros((0, 2)) if self._marks is None else self._marks.positions(side) for side in ("spots", "slide")
        )
        kind = next(kind for kind in KINDS if kind == self.kind.currentText())
        self._fit, self._order = None, np.arange(len(fixed))
        said = f"{len(moving)} on the spots, {len(fixed)} on the slide; a {kind} needs {LEAST[kind]} of each."
        if len(moving) == len(fixed) >= LEAST[kind]:
            try:
                if self.any_order.isChecked() and len(moving) >= 3:
                    self._order = match_landmarks(moving, fixed)
                self._fit = fit_landmarks(moving, fixed[self._order], kind)
                said = self._verdict(moving, fixed, self._fit)
            except He2stError as error:
                said = str(error)
        self.note.setText(said)
        if self._marks is not None:
            self._session.set_landmarks(self._marks.slide, {"spots": moving, "slide": fixed})
        self._show_table(len(moving), len(fixed))
        result = self.result
        self.apply_button.setEnabled(self._fit is not None)
        self.save_marks_button.setEnabled(self._fit is not None)
        self.undo_button.setEnabled(result is not None and self._session.n_moves(result.name) > 0)
        for widget in (self.read_button, self.save_button):
            widget.setEnabled(result is not None)

    def _verdict(self, moving: NDArray[np.float64], fixed: NDArray[np.float64], fit: LandmarkFit) -> str:
        how = " (each predicted from the others)" if fit.kind == "thin-plate spline" else ""
        said = f"Mean residual {fit.rms_px * self._mpp:.1f} µm{how}."
        if fit.mirrored:
            said += " One side is a mirror image of the other: check that the section was turned over."
        if not self.any_order.isChecked() and 3 <= len(moving) <= 20:
            other = fit_landmarks(moving, fixed[match_landmarks(moving, fixed)], fit.kind)
            if other.rms_px < 0.5 * fit.rms_px:
                said += (
                    f" In another order it would be {other.rms_px * self._mpp:.1f} µm: tick 'Pair them in any order'."
                )
        return said

    @property
    def _mpp(self) -> float:
        result = self.result
        return 1.0 if result is None else result.grid.mpp

    def _show_table(self, n_moving: int, n_fixed: int) -> None:
        self.table.setRowCount(max(n_moving, n_fixed))
        for row in range(self.table.rowCount()):
            partner = self._order[row] if row < len(self._order) else None
            known = self._fit is not None and row < len(self._fit.residuals_px)
            residual = f"{self._fit.residuals_px[row] * self._mpp:.1f}" if self._fit is not None and known else ""
            texts = (str(row + 1) if row < n_moving else "", "" if partner is None else str(partner + 1), residual)
            for column, text in enumerate(texts):
                self.table.setItem(row, column, QTableWidgetItem(text))

    # --- moving

    def apply(self) -> None:
        """Move the spots of the current measured result by the fitted map; their landmarks go along."""
        result, fit, marks = self.result, self._fit, self._marks
        if result is None or fit is None or marks is None:
            return
        moving = marks.positions("spots")
        said = f"{fit.kind} of {len(moving)} landmarks, mean residual {fit.rms_px * self._mpp:.1f} µm"
        self._before.append((result.name, moving))
        self._session.move_spots(result.name, fit.transform, said)
        marks.put("spots", np.asarray(fit.transform(moving)))
        self.update_fit()

    def undo(self) -> None:
        """Take back the last move, and put its landmarks back."""
        result = self.result
        if result is None or not self._session.undo_move(result.name):
            return
        if self._before and self._before[-1][0] == result.name and self._marks is not None:
            self._marks.put("spots", self._before.pop()[1])
        self.update_fit()

    # --- files

    def _pick(self) -> None:
        path, _ = QFileDialog.getOpenFileName(self, "Read an alignment", "", "Matrix (*.csv *.txt *.tsv)")
        if path:
            self.read(Path(path))

    def read(self, path: Path) -> None:
        """Move the spots by a matrix on disk, or put landmarks where a table of keypoints says.

        The alignment csv of Xenium Explorer leads from the H&E image to the morphology image, in whose pixels the
        spots lie; files named so are turned around.
        """
        from napari_he2st.data.truth.alignment import (
            holds_keypoints,
            leads_to_morphology,
            read_keypoints_csv,
            read_matrix_csv,
        )

        result, marks = self.result, self.marks()
        if result is None or marks is None:
            return
        try:
            if holds_keypoints(path):
                spots, slide = read_keypoints_csv(path)
                marks.put("spots", spots)
                marks.put("slide", slide)
                return
            matrix = read_matrix_csv(path)
        except He2stError as error:
            self._dock.warn(str(error))
            return
        forwards = matrix.inverse() if leads_to_morphology(path) else matrix
        self._session.move_spots(result.name, forwards, f"alignment {path.name}")
        self.update_fit()

    def _save(self) -> None:
        from napari_he2st.data.truth.alignment import write_matrix_csv

        result = self.result
        facts = {} if result is None or result.adata is None else facts_of(result.adata)
        if "transform" not in facts or result is None:
            self._dock.warn("A bent section has no matrix; save the landmarks instead.")
            return
        where = ask_where(self, "Save matrix", name=f"{result.name}_alignment", suffix=".csv", kind="Matrix")
        if where is not None:
            write_matrix_csv(Transform(np.asarray(facts["transform"])), where.path, force=where.force)

    def _save_marks(self) -> None:
        result = self.result
        if result is None or self._fit is None:
            return
        where = ask_where(self, "Save landmarks", name=f"{result.name}_landmarks", suffix=".csv", kind="Table")
        if where is not None:
            self.write_landmarks(where.path, force=where.force)

    def write_landmarks(self, path: Path, *, force: bool = False) -> None:
        """Write the pairs, level-0 pixels, with their residuals in micrometres."""
        from napari_he2st.core.atomic import atomic_write

        if self._fit is None or self._marks is None:
            return
        moving, fixed = self._marks.positions("spots"), self._marks.positions("slide")[self._order]
        columns = np.column_stack([moving, fixed, self._fit.residuals_px * self._mpp])
        with atomic_write(path, force=force) as aside:
            header = "spots_x,spots_y,slide_x,slide_y,residual_um"
            np.savetxt(aside, columns, delimiter=",", header=header, comments="", fmt="%.3f")

"""The part of the Compare dock that brings a second slide, such as an IHC, into the same linked views."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import Signal
from qtpy.QtWidgets import QFileDialog, QFormLayout, QHBoxLayout, QLabel, QPushButton, QWidget

from napari_he2st.analysis.alignment import ALIGNMENT_METHODS
from napari_he2st.core.errors import He2stError
from napari_he2st.core.progress import Control
from napari_he2st.core.types import Transform
from napari_he2st.engine.align import align_slides
from napari_he2st.gui.side_by_side import Second
from napari_he2st.gui.widgets.combo import Combo
from napari_he2st.gui.widgets.save_dialog import ask_where
from napari_he2st.gui.worker import tell

if TYPE_CHECKING:
    from napari_he2st.gui.docks.base import Dock

_NONE = "no second slide"
_HOW = "how"


class SecondSlideBox(QWidget):
    """Which other slide lies beside the maps, and how it is brought onto the first.

    ``changed()`` when there is another one to show, or it lies elsewhere.

    Parameters
    ----------
    dock
        The Compare dock; its work is run through it.
    """

    changed = Signal()

    def __init__(self, dock: Dock) -> None:
        super().__init__()
        self._dock, self._session = dock, dock.session
        self._fixed: str | None = None
        self.slide = Combo("Another open slide of the same tissue, such as its IHC: a panel of its own (Alt+I)")
        self.slide.activated.connect(lambda _: self._chosen())
        self.method = Combo("How its picture is registered onto the first slide (Alt+U)")
        for entry in ALIGNMENT_METHODS:
            self.method.add(entry.name, tip=entry.description)
        self.method.setCurrentText("phase")
        self.text = QLabel(wordWrap=True)
        self.register = _button("Re&gister", "Turn and shift the second slide onto the first (Alt+G)", self._register)
        tip = "A 3 × 3 matrix from level-0 pixels of the second slide to those of the first"
        self.read = _button("Matri&x…", f"{tip} (Alt+X)", self._ask_matrix)
        self.save = _button("Save…", f"Keep how they lie on each other. {tip}", self._save_matrix)
        form = QFormLayout(self)
        form.setContentsMargins(0, 0, 0, 0)
        for text, combo in (("Sl&ide", self.slide), ("Register b&y", self.method)):
            label = QLabel(text)
            label.setBuddy(combo)
            form.addRow(label, combo)
        row = QHBoxLayout()
        for button in (self.register, self.read, self.save):
            row.addWidget(button)
        form.addRow(row)
        form.addRow(self.text)
        dock.listen(self._session.slide_added, self._slides_changed)
        dock.listen(self._session.slide_removed, self._slides_changed)
        dock.listen(self._session.slide_registered, self._registered)
        self.show_slide(None)

    @property
    def second(self) -> Second | None:
        """The second slide, once one is chosen and in register."""
        name, fixed = self.slide.currentData(), self._fixed
        if name is None or fixed is None:
            return None
        layer, transform = self._dock.layers.slide_layer(name), self._session.registrations.get((name, fixed))
        return None if layer is None or transform is None else Second(name, layer, transform)

    def show_slide(self, fixed: str | None) -> None:
        """Offer the slides that can lie beside one that results are compared on."""
        self._fixed = fixed
        chosen = self.slide.currentData()
        self.slide.clear()
        self.slide.add(_NONE, tip="")
        for name in self._session.slides:
            if name != fixed:
                self.slide.add(name, data=name)
        self.slide.setCurrentIndex(max(self.slide.findData(chosen), 0) if chosen is not None else 0)
        self._say()

    def choose(self, name: str) -> None:
        """Choose the second slide."""
        self.slide.setCurrentIndex(max(self.slide.findData(name), 0))
        self._chosen()

    def _chosen(self) -> None:
        self._say()
        self.changed.emit()

    def _slides_changed(self, *_: Any) -> None:
        self.show_slide(self._fixed)

    def _registered(self, moving: str, fixed: str) -> None:
        if {moving, fixed} == {self.slide.currentData(), self._fixed}:
            self._chosen()

    def _say(self) -> None:
        name, fixed = self.slide.currentData(), self._fixed
        chosen = name is not None and fixed is not None
        self.register.setEnabled(chosen)
        self.read.setEnabled(chosen)
        self.save.setEnabled(self.second is not None)
        if not chosen:
            self.text.setText("Open a second slide of the same tissue to see it beside the maps, moving with them.")
            return
        transform = self._session.registrations.get((name, str(fixed)))
        if transform is None:
            self.text.setText(f"{name} is not in register with {fixed} yet.")
            return
        how = transform.info.get(_HOW, "a matrix")
        self.text.setText(f"{name} lies on {fixed}, by {how}: {_described(transform)}.")

    def _register(self) -> None:
        name, fixed, method = self.slide.currentData(), self._fixed, self.method.currentText()
        if name is None or fixed is None:
            return
        self.register.setEnabled(False)

        def done(found: list[Transform]) -> None:
            if name in self._session.slides and fixed in self._session.slides:
                info = {**found[1].info, _HOW: method}
                self._session.register_slide(name, fixed, Transform(found[1].matrix, info))

        slides = [self._session.slides[which].slide for which in (fixed, name)]
        self._dock.run(
            _align,
            slides,
            method,
            control=Control(),
            name="Registering the slide",
            on_done=done,
            on_end=self._say,
        )

    def _ask_matrix(self) -> None:
        path, _ = QFileDialog.getOpenFileName(self, "Read a matrix", "", "Matrix (*.csv *.txt *.tsv)")
        if path:
            self.read_matrix(Path(path))

    def read_matrix(self, path: Path) -> None:
        """Take the transform from a file; it leads from level-0 pixels of the second slide to those of the first."""
        from napari_he2st.data.truth.alignment import read_matrix_csv

        name, fixed = self.slide.currentData(), self._fixed
        if name is None or fixed is None:
            return
        try:
            pixels = read_matrix_csv(path)
        except He2stError as error:
            tell(error, "Reading a matrix")
            return
        moving_mpp, fixed_mpp = self._mpp(name), self._mpp(fixed)
        matrix = np.diag([fixed_mpp, fixed_mpp, 1.0]) @ pixels.matrix @ np.diag([1 / moving_mpp, 1 / moving_mpp, 1.0])
        self._session.register_slide(name, fixed, Transform(matrix, {_HOW: path.name}))

    def _save_matrix(self) -> None:
        from napari_he2st.data.truth.alignment import write_matrix_csv

        second, fixed = self.second, self._fixed
        if second is None or fixed is None:
            return
        target = ask_where(self, "Save matrix", name=f"{second.name} onto {fixed}", suffix=".csv", kind="Matrix")
        if target is not None:
            mpp = self._mpp(fixed)
            matrix = np.diag([1 / mpp, 1 / mpp, 1.0]) @ second.transform.matrix
            matrix = matrix @ np.diag([self._mpp(second.name)] * 2 + [1.0])
            write_matrix_csv(Transform(matrix), target.path, force=target.force)

    def _mpp(self, slide: str) -> float:
        return float(self._session.slides[slide].slide.mpp)


def _align(slides: list[Any], method: str, *, control: Control) -> list[Transform]:
    return align_slides(slides, method, progress=control)


def _described(transform: Transform) -> str:
    """Turn, scale and shift of a transform, in words."""
    linear = transform.matrix[:2, :2]
    scale = abs(float(np.linalg.det(linear))) ** 0.5
    angle = float(np.degrees(np.arctan2(linear[1, 0], linear[0, 0])))
    mirrored = ", mirrored" if np.linalg.det(linear) < 0 else ""
    dx, dy = transform.matrix[:2, 2]
    return f"turned by {angle:.1f}°, scaled by {scale:.3f}, shifted by ({dx:.0f}, {dy:.0f}) µm{mirrored}"


def _button(text: str, tip: str, slot: Any) -> QPushButton:
    made = QPushButton(text)
    made.setToolTip(tip)
    made.clicked.connect(lambda *_: slot())
    return made

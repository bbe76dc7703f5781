"""How tissue is told from glass, as a form; every change is previewed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QSignalBlocker, Signal
from qtpy.QtWidgets import QCheckBox, QFormLayout, QLabel, QPushButton, QWidget
from superqt.utils import qdebounced

from napari_he2st.gui.widgets.number import number_box

if TYPE_CHECKING:
    from napari_he2st.data.slides.tissue import TissueMask

DEFAULTS: dict[str, Any] = {
    "threshold": None,
    "close_um": 60.0,
    "min_area_um2": 50_000.0,
    "drop_pen": False,
    "drop_blur": False,
}


class TissueForm(QWidget):
    """Parameters of :func:`~napari_he2st.data.slides.tissue.tissue_mask`.

    Signals
    -------
    changed(dict)
        The user has changed a parameter, a moment ago: all of them, by name.
    """

    changed = Signal(dict)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.threshold = number_box(0, 50, 1, "", "Texture above which it is tissue, grey levels; 0 finds it by itself")
        self.threshold.setSpecialValueText("automatic")
        self.close_um = number_box(0, 1000, 0, " µm", "Gaps up to about this width are closed")
        self.min_area = number_box(0, 100, 3, " mm²", "Smaller pieces are dropped and smaller holes filled")
        self.drop_pen = QCheckBox("Leave out pen marks")
        self.drop_pen.setToolTip("Green, blue, red and black ink; pools of blood can look like red ink")
        self.drop_blur = QCheckBox("Leave out what is out of focus")
        self.drop_blur.setToolTip(
            "Parts that are much less sharp than the rest; takes longer, since all tissue is read"
        )
        self.reset = QPushButton("Back to defaults")
        self.reset.setToolTip("Find tissue as it is found without asking")
        self.figures = QLabel()
        self.figures.setWordWrap(True)
        form = QFormLayout(self)
        form.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
        form.addRow("Threshold", self.threshold)
        form.addRow("Close gaps", self.close_um)
        form.addRow("Smallest piece", self.min_area)
        form.addRow(self.drop_pen)
        form.addRow(self.drop_blur)
        form.addRow(self.figures)
        form.addRow(self.reset)
        self.show_params(DEFAULTS)
        for box in (self.threshold, self.close_um, self.min_area):
            box.valueChanged.connect(lambda *_: self._tell())
        for check in (self.drop_pen, self.drop_blur):
            check.toggled.connect(lambda *_: self._tell())
        self.reset.clicked.connect(lambda *_: self._reset())

    @property
    def params(self) -> dict[str, Any]:
        """What the form says."""
        return {
            "threshold": self.threshold.value() or None,
            "close_um": self.close_um.value(),
            "min_area_um2": self.min_area.value() * 1e6,
            "drop_pen": self.drop_pen.isChecked(),
            "drop_blur": self.drop_blur.isChecked(),
        }

    def show_params(self, params: dict[str, Any]) -> None:
        """Set the form without telling."""
        fields = (self.threshold, self.close_um, self.min_area, self.drop_pen, self.drop_blur)
        blockers = [QSignalBlocker(field) for field in fields]
        self.threshold.setValue(params["threshold"] or 0)
        self.close_um.setValue(params["close_um"])
        self.min_area.setValue(params["min_area_um2"] / 1e6)
        self.drop_pen.setChecked(params["drop_pen"])
        self.drop_blur.setChecked(params["drop_blur"])
        del blockers

    def show_mask(self, mask: TissueMask | None) -> None:
        """Say what was found, and how."""
        if mask is None:
            self.figures.setText("")
            return
        parts = [f"{mask.fraction:.1%} of the slide", f"threshold {mask.params.get('threshold', 0):.1f}"]
        for name, what in (("pen_fraction", "pen"), ("blur_fraction", "out of focus")):
            if name in mask.params:
                parts.append(f"{mask.params[name]:.1%} {what}")
        self.figures.setText(f"Found by {mask.method}: {', '.join(parts)}.")

    @qdebounced(timeout=300)
    def _tell(self) -> None:
        self.changed.emit(self.params)

    def _reset(self) -> None:
        self.show_params(DEFAULTS)
        self.changed.emit(self.params)

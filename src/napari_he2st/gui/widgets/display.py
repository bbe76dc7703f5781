"""How a result's map is drawn: limits under its histogram, colour map, opacity."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from qtpy.QtCore import QSignalBlocker, Qt
from qtpy.QtWidgets import QCheckBox, QDoubleSpinBox, QGridLayout, QLabel, QSizePolicy, QSlider, QWidget
from superqt.utils import qdebounced

from napari_he2st.engine.session_items import Result
from napari_he2st.gui.colours import MAPS
from napari_he2st.gui.gene_map import ROBUST, GeneMap
from napari_he2st.gui.layers import SlideLayers
from napari_he2st.gui.widgets.combo import Combo
from napari_he2st.gui.widgets.histogram import RangeHistogram


class MapDisplay(QWidget):
    """Shows and changes the display of one result's :class:`GeneMap`; keeps nothing of its own."""

    def __init__(self, layers: SlideLayers, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._layers = layers
        self._map: GeneMap | None = None
        self.histogram = RangeHistogram()
        self.histogram.limits_dragged.connect(lambda low, high: self._lock(low, high))
        self.unit = QLabel()
        self.unit.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Preferred)
        self.low, self.high = (
            _number(-1e9, 1e9, 3, f"Value at the {end} end of the colour map; typing it locks the limits")
            for end in ("lower", "upper")
        )
        self.low_percent, self.high_percent = (
            _number(0, 100, 1, f"Percentile of each gene at the {end} end of the colour map")
            for end in ("lower", "upper")
        )
        self.low_percent.setValue(ROBUST[0])
        self.high_percent.setValue(ROBUST[1])
        self.lock = QCheckBox("Loc&k across genes")
        self.lock.setToolTip("Keep these limits when the gene changes, so that colours of genes compare (Alt+K)")
        self.maps = Combo("Colour map; those that read best on H&E and for colour-blind readers come first (Alt+C)")
        for name, advice in MAPS:
            self.maps.add(name, tip=advice)
        self.opacity = QSlider(Qt.Orientation.Horizontal, minimum=0, maximum=100)
        self.opacity.setToolTip("How much the map covers the slide (Alt+Y)")
        self.hide_low = QCheckBox("&Hide below")
        self.hide_low.setToolTip("Draw only spots with at least this value (Alt+H); the others become transparent")
        self.threshold = _number(-1e9, 1e9, 3, "Value from which spots are drawn")
        self.threshold.setEnabled(False)
        self.smooth = QCheckBox("S&mooth")
        self.smooth.setToolTip("A smooth map between the spots, or every spot by itself (Alt+M)")
        self._arrange()
        for box in (self.low, self.high):
            box.valueChanged.connect(lambda _: self._lock(self.low.value(), self.high.value()))
        for box in (self.low_percent, self.high_percent):
            box.valueChanged.connect(lambda _: self._by_percentile())
        self.lock.toggled.connect(self._toggle_lock)
        self.maps.activated.connect(lambda _: self._set_colours(self.maps.currentText()))
        self.hide_low.toggled.connect(self._toggle_threshold)
        self.threshold.valueChanged.connect(lambda _: self._set_threshold())
        self.smooth.toggled.connect(self._set_smooth)
        self.opacity.valueChanged.connect(lambda percent: self._set_opacity(percent / 100))

    def _arrange(self) -> None:
        grid = QGridLayout(self)
        grid.setContentsMargins(0, 0, 0, 0)
        grid.addWidget(self.histogram, 0, 0, 1, 4)
        for row, (label, low, high) in enumerate(
            (("Limits", self.low, self.high), ("Percentiles", self.low_percent, self.high_percent)), start=1
        ):
            grid.addWidget(QLabel(label), row, 0)
            grid.addWidget(low, row, 1)
            grid.addWidget(high, row, 2)
        grid.addWidget(self.unit, 1, 3)
        grid.addWidget(self.lock, 3, 1, 1, 2)
        grid.addWidget(self.smooth, 3, 3)
        grid.addWidget(self.hide_low, 4, 0, 1, 2)
        grid.addWidget(self.threshold, 4, 2)
        for row, (label, widget) in enumerate((("&Colours", self.maps), ("Opacit&y", self.opacity)), start=5):
            named = QLabel(label)
            named.setBuddy(widget)
            grid.addWidget(named, row, 0)
            grid.addWidget(widget, row, 1, 1, 3)
        grid.setColumnStretch(1, 1)
        grid.setColumnStretch(2, 1)
        grid.setColumnStretch(3, 1)

    def show_result(self, result: Result | None) -> None:
        """Show how a result is drawn; the histogram follows a moment later, so that flipping stays fast."""
        self._map = None if result is None else self._layers.gene_map(result.name)
        self.setEnabled(self._map is not None)
        if self._map is None or result is None:
            return
        self.unit.setText(result.unit(self._map.label))
        self._show_limits()
        quietly(self.lock, self.lock.setChecked, self._map.mode == "locked")
        for box, percent in zip((self.low_percent, self.high_percent), self._map.percentiles, strict=True):
            quietly(box, box.setValue, percent)
        self.maps.setCurrentText(self._map.colormap.name)
        threshold = self._map.threshold
        quietly(self.hide_low, self.hide_low.setChecked, threshold is not None)
        self.threshold.setEnabled(threshold is not None)
        if threshold is not None:
            quietly(self.threshold, self.threshold.setValue, threshold)
        quietly(self.smooth, self.smooth.setChecked, self._map.smooth)
        quietly(self.opacity, self.opacity.setValue, round(100 * self._map.layer.opacity))
        self.histogram.set_colours(self._map.colormap.colors)
        self._count()

    @qdebounced(timeout=60)
    def _count(self) -> None:
        if self._map is not None:
            self.histogram.set_values(self._map.values)

    def _show_limits(self) -> None:
        if self._map is None:
            return
        low, high = self._map.limits
        for box, value in ((self.low, low), (self.high, high)):
            box.setSingleStep(max((high - low) / 20, 1e-3))
            quietly(box, box.setValue, value)
        self.histogram.set_limits(low, high)

    def _lock(self, low: float, high: float) -> None:
        if self._map is not None and low < high:
            self._map.set_limits("locked", low, high)
            quietly(self.lock, self.lock.setChecked, True)
            self._show_limits()

    def _toggle_lock(self, on: bool) -> None:
        if self._map is not None and on:
            self._lock(*self._map.limits)
        else:
            self._by_percentile()

    def _by_percentile(self) -> None:
        low, high = self.low_percent.value(), self.high_percent.value()
        if self._map is not None and low < high:
            self._map.set_limits("robust", low, high)
            quietly(self.lock, self.lock.setChecked, False)
            self._show_limits()

    def _toggle_threshold(self, on: bool) -> None:
        self.threshold.setEnabled(on)
        if self._map is not None and on and self._map.threshold is None:
            low, high = self._map.limits
            quietly(self.threshold, self.threshold.setValue, (low + high) / 2)
        self._set_threshold()

    def _set_threshold(self) -> None:
        if self._map is not None:
            self._map.set_threshold(self.threshold.value() if self.hide_low.isChecked() else None)

    def _set_smooth(self, on: bool) -> None:
        if self._map is not None:
            name = self._map.result.name
            self._layers.set_smooth(name, on)
            self._map = self._layers.gene_map(name)

    def _set_colours(self, name: str) -> None:
        if self._map is not None:
            self._map.set_colormap(name)
            self.histogram.set_colours(self._map.colormap.colors)

    def _set_opacity(self, opacity: float) -> None:
        if self._map is not None:
            self._map.layer.opacity = opacity


def quietly(widget: QWidget, setter: Callable[[Any], Any], value: Any) -> None:
    """Set a widget's value without its signals."""
    with QSignalBlocker(widget):
        setter(value)


def _number(low: float, high: float, decimals: int, tip: str) -> QDoubleSpinBox:
    box = QDoubleSpinBox(minimum=low, maximum=high, decimals=decimals)
    box.setKeyboardTracking(False)
    box.setButtonSymbols(QDoubleSpinBox.ButtonSymbols.NoButtons)
    box.setStyleSheet("min-width: 56px")  # napari's own 90 px do not fit twice into a narrow dock
    box.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)  # hint: the longest number of all
    box.setToolTip(tip)
    return box

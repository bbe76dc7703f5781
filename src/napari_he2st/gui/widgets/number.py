"""A number with its unit."""

from __future__ import annotations

from qtpy.QtWidgets import QDoubleSpinBox


def number_box(low: float, high: float, decimals: int, suffix: str, tip: str) -> QDoubleSpinBox:
    """A spin box that tells its value when the user has finished typing."""
    box = QDoubleSpinBox()
    box.setRange(low, high)
    box.setDecimals(decimals)
    box.setSuffix(suffix)
    box.setKeyboardTracking(False)
    box.setToolTip(tip)
    return box

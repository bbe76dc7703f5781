"""Generic ways to bring two images into register: one file with one decorated function each.

A method is ``f(moving, fixed, *, mpp, …) -> Transform``: two RGB images of the same pixel size, float (height,
width, 3) in 0 … 1. The transform takes positions (x, y) in pixels of ``moving`` to those of ``fixed``. Other keyword
arguments have defaults: they are the user's options.
"""

from __future__ import annotations

from typing import Any

from napari_he2st.core.registry import Registry

ALIGNMENT_METHODS: Registry[Any] = Registry(
    "alignment method", "napari_he2st.analysis.alignment", "napari_he2st.alignment"
)

alignment_method = ALIGNMENT_METHODS.register

"""Methods that find nuclei: one file with one decorated function each.

A method is ``f(image, mpp, …) -> labels``: uint8 RGB of shape (height, width, 3) and its pixel size in µm; int32
(height, width), 0 outside of nuclei. Its keyword-only arguments are the user's options.
"""

from __future__ import annotations

from typing import Any

from napari_he2st.core.registry import Registry

NUCLEI_METHODS: Registry[Any] = Registry("nuclei method", "napari_he2st.analysis.nuclei", "napari_he2st.nuclei")

nuclei_method = NUCLEI_METHODS.register

"""Expression written for other programs: one file per format."""

from __future__ import annotations

from napari_he2st.data.export.image import attach_image
from napari_he2st.data.export.registry import EXPORTERS, exporter
from napari_he2st.data.export.write import export

__all__ = ["EXPORTERS", "attach_image", "export", "exporter"]

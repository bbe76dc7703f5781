"""What the npe2 manifest names: readers, sample data and the workspace command."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import napari

from napari_he2st.core.errors import MissingMppError
from napari_he2st.gui.layers import slide_layer_data
from napari_he2st.gui.workspace import dock_of, layers_of, open_docks

LayerData = tuple[Any, dict[str, Any], str] | tuple[None]
Reader = Callable[[Any], list[LayerData]]

_NO_LAYER: list[LayerData] = [(None,)]
"""Napari's word for "read, but there is no layer to add": the session adds its own."""


def slide_reader(path: str | list[str]) -> Reader | None:
    """Read a whole-slide image into a pyramid in micrometres."""
    from napari_he2st.data.slides import is_slide_folder

    if isinstance(path, list) or (Path(path).is_dir() and not is_slide_folder(Path(path))):
        return None
    return _read_slide


def _read_slide(path: str) -> list[LayerData]:
    from napari_he2st.data.slides import Slide

    viewer = napari.current_viewer()
    try:
        slide = Slide.open(path)
    except MissingMppError:
        if viewer is None:
            raise
        dock_of(viewer, "Slide").open(path)  # asks for the pixel size
        return _NO_LAYER
    if viewer is not None:
        layers_of(viewer)  # so that the layer is adopted as soon as it is there
    return [slide_layer_data(slide)]


def measured_reader(path: str | list[str]) -> Reader | None:
    """Read a folder or h5ad file of measured expression, if it is one."""
    from napari_he2st.core.errors import TruthError
    from napari_he2st.data.truth import detect

    if isinstance(path, list) or napari.current_viewer() is None:
        return None
    try:
        detect(path)
    except TruthError:
        return None
    return _read_measured


def _read_measured(path: str) -> list[LayerData]:
    dock_of(napari.current_viewer(), "Slide").open(path)
    return _NO_LAYER


def session_reader(path: str | list[str]) -> Reader | None:
    """Open the folder of a saved session."""
    from napari_he2st.engine.saved_session import FILE

    if isinstance(path, list) or napari.current_viewer() is None or not (Path(path) / FILE).is_file():
        return None
    return _read_session


def _read_session(path: str) -> list[LayerData]:
    dock_of(napari.current_viewer(), "Export").saved.open(Path(path))
    return _NO_LAYER


def open_sample() -> list[LayerData]:
    """Open the section that ships with the package: its slide now, its measured expression a moment later.

    Napari wants a layer from a sample, so the section is read here, within a second.
    """
    from napari_he2st.data.samples import sample_section
    from napari_he2st.gui.docks.measured import slide_of

    section = sample_section()
    slide = slide_of(section)
    viewer = napari.current_viewer()
    if viewer is not None:
        dock_of(viewer, "Slide").add_section(section, slide)
    return [slide_layer_data(slide)]


def open_workspace() -> None:
    """Open all docks, tabbed in working order."""
    open_docks(napari.current_viewer())

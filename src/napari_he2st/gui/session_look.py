"""How a window looks: its layers, camera and docks, as JSON, so that a restored session looks as it was left."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from inspect import unwrap
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import QByteArray
from qtpy.QtWidgets import QMainWindow, QWidget

from napari_he2st.gui.gene_map import METADATA
from napari_he2st.gui.workspace import DOCKS, PLUGIN, dock_of, layers_of

if TYPE_CHECKING:
    from napari.layers import Layer
    from napari.viewer import Viewer

_PLAIN = ("visible", "opacity", "gamma", "size")
_RANGES = ("contrast_limits", "face_contrast_limits")
_MAPS = ("colormap", "face_colormap")


def look_of(viewer: Viewer, window: QWidget) -> dict[str, Any]:
    """What :func:`show_look` needs.

    Parameters
    ----------
    viewer
        The viewer.
    window
        Its main window, or any widget in it.
    """
    camera = unwrap(viewer).scene.camera
    main = _main(window)
    return {
        "camera": {"center": [float(v) for v in camera.center], "zoom": float(camera.zoom)},
        "layers": {_name(layer): dict(_look(layer)) for layer in viewer.layers},
        "maps": dict(_maps(viewer)),
        "order": [_name(layer) for layer in viewer.layers],
        "docks": [name for name in DOCKS if f"{name} ({PLUGIN})" in unwrap(viewer).window.dock_widgets],
        "window": "" if main is None else bytes(main.saveState().toBase64().data()).decode("ascii"),
    }


def show_look(viewer: Viewer, window: QWidget, look: Mapping[str, Any]) -> None:
    """Give a window the look that was saved; layers that are not there any more are passed over."""
    for name in look.get("docks", []):
        if name in DOCKS:
            dock_of(viewer, name)
    main = _main(window)
    if main is not None and look.get("window"):
        main.restoreState(QByteArray.fromBase64(str(look["window"]).encode("ascii")))
    for result, saved in look.get("maps", {}).items():
        _draw(viewer, result, saved)
    layers = {_name(layer): layer for layer in viewer.layers}
    for name, saved in look.get("layers", {}).items():
        if name in layers:
            _give(layers[name], saved)
    for place, name in enumerate(name for name in look.get("order", []) if name in layers):
        viewer.layers.move(viewer.layers.index(layers[name]), place)
    camera = look.get("camera")
    if camera:
        unwrap(viewer).scene.camera.center = tuple(float(v) for v in camera["center"])
        unwrap(viewer).scene.camera.zoom = float(camera["zoom"])
    layers_of(viewer).session.selection_changed.emit()  # docks show what the maps show now


def _maps(viewer: Viewer) -> Iterator[tuple[str, Any]]:
    """How each result is drawn."""
    layers = layers_of(viewer)
    for result in layers.session.results:
        gene_map, blend = layers.gene_map(result), layers.blend(result)
        if gene_map is not None:
            ends = gene_map.percentiles if gene_map.mode == "robust" else gene_map.limits
            look = {"mode": gene_map.mode, "ends": list(map(float, ends)), "smooth": bool(gene_map.smooth)}
            together = [] if blend is None else [part.label for part in blend.parts]
            yield result, {**look, "threshold": gene_map.threshold, "together": together}


def _draw(viewer: Viewer, result: str, saved: Mapping[str, Any]) -> None:
    layers = layers_of(viewer)
    if layers.gene_map(result) is None:
        return
    layers.set_smooth(result, bool(saved["smooth"]))
    layers.set_limits(result, saved["mode"], *map(float, saved["ends"]))
    gene_map = layers.gene_map(result)
    if gene_map is not None:
        gene_map.set_threshold(saved["threshold"])
    known = [label for label in saved["together"] if layers.session.results[result].shows(label)]
    if known:
        layers.show_blend(result, known)


def _name(layer: Layer) -> str:
    """What a layer is known by: a map by its result, as its own name changes with the gene."""
    result = layer.metadata.get(METADATA, {}).get("result")
    return layer.name if result is None else f"map of {result}"


def _look(layer: Layer) -> Iterator[tuple[str, Any]]:
    for name in _PLAIN:
        if np.isscalar(value := getattr(layer, name, None)):
            yield name, value if isinstance(value, bool) else float(value)  # type: ignore[arg-type]
    yield "blending", str(layer.blending)
    for name in _RANGES:
        if (limits := getattr(layer, name, None)) is not None:
            yield name, [float(v) for v in limits]
    for name in _MAPS:
        if (colours := getattr(layer, name, None)) is not None and hasattr(colours, "name"):
            yield name, str(colours.name)


def _give(layer: Layer, saved: Mapping[str, Any]) -> None:
    known = dict(_look(layer))
    for name, value in saved.items():
        if name in known and known[name] != value:
            try:
                setattr(layer, name, value)
            except (KeyError, ValueError):  # a colour map of another installation: the layer keeps its own
                continue


def _main(widget: QWidget) -> QMainWindow | None:
    window = widget.window()
    return window if isinstance(window, QMainWindow) else None

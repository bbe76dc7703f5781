"""What belongs to one viewer: its session, its layers, and the docks opened around it."""

from __future__ import annotations

from inspect import unwrap
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from napari_he2st.engine.session import Session
from napari_he2st.gui.layers import SlideLayers

if TYPE_CHECKING:
    from napari.viewer import Viewer

PLUGIN = "napari-he2st"
DOCKS = ("Slide", "Predict", "Genes", "Domains", "Compare", "Export")
"""Names of the widgets in the manifest, in working order."""

DOCK_WIDTH_PX = 400

_layers: WeakKeyDictionary[Viewer, SlideLayers] = WeakKeyDictionary()


def layers_of(viewer: Viewer) -> SlideLayers:
    """The layers that mirror a viewer's session; made on first use."""
    viewer = unwrap(viewer)  # plugins are handed a proxy
    if viewer not in _layers:
        _layers[viewer] = SlideLayers(viewer, Session())
    return _layers[viewer]


def session_of(viewer: Viewer) -> Session:
    """The session of a viewer; made on first use."""
    return layers_of(viewer).session

"""What belongs to one viewer: its session, its layers, and the docks opened around it."""

from __future__ import annotations

from inspect import unwrap
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from qtpy.QtCore import QEventLoop, Qt
from qtpy.QtWidgets import QApplication, QTabBar, QWidget

from napari_he2st.engine.session import Session
from napari_he2st.gui.autosave import Autosave
from napari_he2st.gui.layers import SlideLayers

if TYPE_CHECKING:
    from napari.viewer import Viewer

PLUGIN = "napari-he2st"
DOCKS = ("Slide", "Predict", "Genes", "Domains", "Compare", "Stack", "Train", "Export")
"""Names of the widgets in the manifest, in working order."""

DOCK_WIDTH_PX = 400
"""At least."""

_autosaves: WeakKeyDictionary[Viewer, Autosave] = WeakKeyDictionary()
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


def keep_safe(viewer: Viewer, window: QWidget) -> Autosave:
    """What saves a viewer's session by itself as long as its main window is open; made on first use."""
    viewer = unwrap(viewer)
    if viewer not in _autosaves:
        _autosaves[viewer] = Autosave(session_of(viewer), window)
    return _autosaves[viewer]


def dock_of(viewer: Viewer, name: str) -> Any:
    """The dock of that name, opened if it is not."""
    _, dock = unwrap(viewer).window.add_plugin_dock_widget(PLUGIN, name, tabify=True)
    return dock


def open_docks(viewer: Viewer) -> None:
    """Open all docks, tabbed in working order, the first one in front; wide enough for the names of all."""
    window = unwrap(viewer).window
    frames = []
    for name in DOCKS:
        frame, _ = window.add_plugin_dock_widget(PLUGIN, name, tabify=True)
        frame.setWindowTitle(name)  # the tabs are narrow
        frames.append(frame)
    frames[0].show()
    frames[0].raise_()
    main = frames[0].parent()
    QApplication.processEvents(QEventLoop.ProcessEventsFlag.ExcludeUserInputEvents)  # Qt makes the tabs now
    tabs = (bar.sizeHint().width() for bar in main.findChildren(QTabBar) if bar.count() == len(DOCKS))
    main.resizeDocks(frames[:1], [max(DOCK_WIDTH_PX, *tabs, 0)], Qt.Orientation.Horizontal)

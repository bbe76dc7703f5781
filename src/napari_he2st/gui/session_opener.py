"""Opening a saved session in a window: ask where slides have gone, read it in a thread, show it as it looked."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from qtpy.QtWidgets import QFileDialog

from napari_he2st.core.errors import He2stError
from napari_he2st.core.progress import Control
from napari_he2st.gui.session_look import show_look
from napari_he2st.gui.worker import tell

if TYPE_CHECKING:
    from napari_he2st.engine.open_session import OpenedSession
    from napari_he2st.engine.saved_session import SavedSession
    from napari_he2st.gui.docks.base import Dock

logger = logging.getLogger(__name__)


class SessionOpener:
    """Opens sessions for a dock, which runs the work.

    Parameters
    ----------
    dock
        Any dock of the window.
    """

    def __init__(self, dock: Dock) -> None:
        self._dock = dock

    def open(self, folder: Path, then: Callable[[Path], None]) -> None:
        """Open a saved session beside what is open.

        Parameters
        ----------
        folder
            The session's folder.
        then
            Called with it when the session is shown.
        """
        from napari_he2st.engine.open_session import open_session
        from napari_he2st.engine.saved_session import read_session

        try:
            saved = read_session(folder)
        except He2stError as error:
            tell(error, "Opening the session")
            return
        control = Control()

        def show(opened: OpenedSession) -> None:
            self._show(opened, control)
            then(folder)

        places, name = self._ask_places(saved), f"Opening {folder.name}"
        self._dock.run(open_session, saved, places, name=name, control=control, on_done=show)

    def _ask_places(self, saved: SavedSession) -> dict[str, Path]:
        places = {}
        for slide in saved.missing:
            chosen, _ = QFileDialog.getOpenFileName(self._dock, f"Where is {Path(slide.path).name}?")
            if chosen:
                places[slide.name] = Path(chosen)
        return places

    def _show(self, opened: OpenedSession, control: Control) -> None:
        from napari_he2st.engine.open_session import restore

        restore(self._dock.session, opened)
        try:
            show_look(self._dock.viewer, self._dock, opened.saved.look)
        except (KeyError, TypeError, ValueError):  # of another version, or damaged: the data are there
            logger.warning("the look of a session could not be restored", exc_info=True)
            self._dock.warn("The session is open, but does not look as it was left.")
        self._dock.say(f"Opened: {opened.saved.folder}")
        if opened.saved.left_out:
            self._dock.warn(f"Not saved, and so not here: {', '.join(opened.saved.left_out)}. Predict them again.")
        for note in control.notes:
            self._dock.warn(f"{note}.")

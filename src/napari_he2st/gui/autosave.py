"""What a person made by hand is saved every minute, and offered back after a crash."""

from __future__ import annotations

import atexit
import os
import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
from qtpy.QtCore import QEvent, QObject, QTimer
from qtpy.QtWidgets import QWidget

from napari_he2st.core.errors import He2stError
from napari_he2st.core.paths import config_folder
from napari_he2st.engine.save_session import Saved, save_session
from napari_he2st.engine.saved_session import SUFFIX, read_session
from napari_he2st.gui.worker import Task, run

if TYPE_CHECKING:
    from napari_he2st.engine.session import Session

EVERY_MS = 60_000


class Autosave(QObject):
    """Saves a session quickly while it changes: slides, regions, landmarks, domains, results by their files.

    Parameters
    ----------
    session
        What is saved.
    window
        The main window; when it is closed, nothing has to be offered back.
    """

    def __init__(self, session: Session, window: QWidget) -> None:
        super().__init__(window)
        self._session = session
        self._task: Task | None = None
        self.folder = recovery_folder() / f"{os.getpid()}-{id(session):x}{SUFFIX}"
        self._changed = bool(session.slides)
        for signal in (
            session.slide_added,
            session.slide_removed,
            session.result_removed,
            session.result_moved,
            session.result_finished,
            session.result_added,
            session.regions_changed,
            session.domains_changed,
            session.landmarks_changed,
            session.derived_changed,
            session.slide_registered,
        ):
            signal.connect(self._note)
        self._timer = QTimer(self)
        self._timer.timeout.connect(self.save)
        self._timer.start(EVERY_MS)
        window.installEventFilter(self)
        atexit.register(shutil.rmtree, self.folder, ignore_errors=True)  # a crash gets to no such end

    def _note(self, *_: object) -> None:
        self._changed = True

    @property
    def saving(self) -> bool:
        """Whether a save goes on."""
        return self._task is not None and self._task.running

    def save(self) -> None:
        """Save in a thread, if anything has changed since the last time and no save goes on."""
        if self.saving or not self._changed or not self._session.slides:
            return
        self._changed = False
        work = partial(save_session, self._session, self.folder, force=True, quick=True)
        self._task = run(
            work,
            name="Saving by itself",
            owner=self.parent(),
            on_done=self._saved,
            on_error=self._note,  # once more in a minute
            on_end=self._ended,
        )

    def _saved(self, saved: Saved) -> None:
        saved.note(self._session)

    def _ended(self) -> None:
        self._task = None

    def eventFilter(self, watched: QObject | None, event: QEvent | None) -> bool:
        """Forget what was saved when the window is closed in the ordinary way."""
        if event is not None and event.type() == QEvent.Type.Close:
            shutil.rmtree(self.folder, ignore_errors=True)
            self._changed = True  # should the closing be refused
        return False


def recovery_folder() -> Path:
    """Where sessions are that were saved by themselves."""
    folder = config_folder() / "recovery"
    folder.mkdir(exist_ok=True)
    return folder


def left_behind() -> list[Path]:
    """Sessions that a process left behind when it ended other than by closing its window; the newest first."""
    return sorted(_left_behind(), key=lambda folder: folder.stat().st_mtime, reverse=True)


def _left_behind() -> Iterator[Path]:
    for folder in recovery_folder().glob(f"*{SUFFIX}"):
        owner = folder.name.partition("-")[0]
        if owner.isdigit() and not psutil.pid_exists(int(owner)):
            try:
                read_session(folder)
            except He2stError:  # it ended before the first save was complete
                shutil.rmtree(folder, ignore_errors=True)
            else:
                yield folder

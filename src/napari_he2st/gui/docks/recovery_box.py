"""An offer at the top of the Slide dock: work that a crash has left behind."""

from __future__ import annotations

import shutil
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from qtpy.QtWidgets import QGroupBox, QHBoxLayout, QLabel, QPushButton, QVBoxLayout

from napari_he2st.gui.autosave import left_behind
from napari_he2st.gui.session_opener import SessionOpener

if TYPE_CHECKING:
    from napari_he2st.gui.docks.base import Dock


class RecoveryBox(QGroupBox):
    """Bring back, or forget, what was saved before the last window ended unexpectedly.

    Parameters
    ----------
    dock
        The dock it is part of.
    """

    def __init__(self, dock: Dock) -> None:
        super().__init__("Unsaved work")
        self._dock = dock
        self._folders: list[Path] = []
        self.about = QLabel(wordWrap=True)
        self.restore_button = QPushButton("&Bring back")
        self.restore_button.setToolTip("Open these slides with their regions, landmarks and domains again")
        self.restore_button.clicked.connect(lambda *_: self.restore())
        self.forget_button = QPushButton("&Forget")
        self.forget_button.setToolTip("Delete what was saved by itself; files of your own are not touched")
        self.forget_button.clicked.connect(lambda *_: self.forget())
        row = QHBoxLayout()
        row.addWidget(self.restore_button)
        row.addWidget(self.forget_button)
        layout = QVBoxLayout(self)
        layout.addWidget(self.about)
        layout.addLayout(row)
        self.look()

    def look(self) -> None:
        """Offer the newest of what was left behind."""
        from napari_he2st.engine.saved_session import read_session

        self._folders = left_behind()
        self.setVisible(bool(self._folders))
        if self._folders:
            saved = read_session(self._folders[0])
            when = datetime.fromtimestamp(self._folders[0].stat().st_mtime).strftime("%H:%M on %d %B")
            names = ", ".join(slide.name for slide in saved.slides)
            self.about.setText(f"The last window ended unexpectedly. At {when} there were open: {names}.")

    def restore(self) -> None:
        """Open the newest; what cannot be made again from files, such as predictions, is named."""
        SessionOpener(self._dock).open(self._folders[0], self._done)

    def forget(self) -> None:
        """Delete all."""
        for folder in self._folders:
            shutil.rmtree(folder, ignore_errors=True)
        self.look()

    def _done(self, folder: Path) -> None:
        self._dock.say("What was open is back.")
        shutil.rmtree(folder, ignore_errors=True)
        self.look()

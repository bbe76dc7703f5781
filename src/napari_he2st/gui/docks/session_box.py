"""The session as a whole, in the Export dock: save it, open it again, write what was done as a script."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from napari.utils.notifications import show_info
from qtpy.QtWidgets import QFileDialog, QGroupBox, QHBoxLayout, QLabel, QPushButton, QVBoxLayout

from napari_he2st.core.errors import He2stError
from napari_he2st.core.progress import Control
from napari_he2st.gui.session_look import look_of
from napari_he2st.gui.session_opener import SessionOpener
from napari_he2st.gui.widgets.save_dialog import ask_where
from napari_he2st.gui.worker import tell

if TYPE_CHECKING:
    from napari_he2st.engine.save_session import Saved
    from napari_he2st.gui.docks.base import Dock

_ABOUT = "Slides, results, regions, landmarks and the look of the window in one folder. Slides stay where they are."


class SessionBox(QGroupBox):
    """Save and open sessions.

    Parameters
    ----------
    dock
        The dock it is part of: runs the work, knows the session.
    """

    def __init__(self, dock: Dock) -> None:
        super().__init__("Session")
        self._dock, self._session = dock, dock.session
        self._opener = SessionOpener(dock)
        self.folder: Path | None = None
        about = QLabel(_ABOUT, wordWrap=True)
        self.save_button = self._button("&Save session…", "Save all that is open in a folder", self._ask_save)
        self.open_button = self._button("O&pen session…", "Bring back what was saved", self._ask_open)
        self.script_button = self._button(
            "Copy as P&ython…",
            "Write a script that does again what was done here; he2st run starts it",
            self._ask_script,
        )
        row = QHBoxLayout()
        for button in (self.save_button, self.open_button):
            row.addWidget(button)
        layout = QVBoxLayout(self)
        layout.addWidget(about)
        layout.addLayout(row)
        layout.addWidget(self.script_button)
        for signal in (dock.session.slide_added, dock.session.slide_removed):
            dock.listen(signal, self.refresh)
        self.refresh()

    def _button(self, text: str, tip: str, slot: object) -> QPushButton:
        button = QPushButton(text)
        button.setToolTip(tip)
        button.clicked.connect(lambda *_: slot())  # type: ignore[operator]
        return button

    def refresh(self, *_: object) -> None:
        """Offer what makes sense."""
        for button in (self.save_button, self.script_button):
            button.setEnabled(bool(self._session.slides))

    # --- saving

    def _ask_save(self) -> None:
        from napari_he2st.engine.saved_session import SUFFIX

        name = self.folder.name.removesuffix(SUFFIX) if self.folder is not None else str(self._session.slide)
        target = ask_where(self, "Save session", name=name, suffix=SUFFIX, kind="Session")
        if target is not None:
            self.save(target.path, force=target.force)

    def save(self, folder: Path, *, force: bool = False) -> None:
        """Save the session to a folder, off the GUI thread."""
        from napari_he2st.engine.save_session import save_session
        from napari_he2st.engine.saved_session import named

        self._dock.run(
            partial(save_session, self._session, folder, look=look_of(self._dock.viewer, self), force=force),
            name=f"Saving {folder.name}",
            control=Control(),
            on_done=lambda saved: self._saved(named(folder), saved),
        )

    def _saved(self, folder: Path, saved: Saved) -> None:
        saved.note(self._session)
        self.folder = folder
        self._dock.say(f"Saved: {folder}")
        if saved.left_out:
            self._dock.warn(f"{folder.name} is saved without {', '.join(saved.left_out)}, which is not complete yet.")
        else:
            show_info(f"{folder.name} is saved.")

    # --- opening

    def _ask_open(self) -> None:
        chosen = QFileDialog.getExistingDirectory(self, "Open session")
        if chosen:
            self.open(Path(chosen))

    def open(self, folder: Path) -> None:
        """Open a saved session beside what is open; see :class:`SessionOpener`."""
        self._opener.open(folder, self._opened)

    def _opened(self, folder: Path) -> None:
        self.folder = folder

    # --- script

    def _ask_script(self) -> None:
        target = ask_where(self, "Copy as Python", name=f"{self._session.slide}", suffix=".py", kind="Python script")
        if target is not None:
            self.write_script(target.path, force=target.force)

    def write_script(self, path: Path, *, force: bool = False) -> None:
        """Write what was done as a script."""
        from napari_he2st.core.atomic import atomic_write
        from napari_he2st.engine.script import script_of

        try:
            script = script_of(self._session, path.name)
            with atomic_write(path, force=force) as aside:
                aside.write_text(script.text, encoding="utf-8")
        except He2stError as error:
            tell(error, "Writing the script")
            return
        self._dock.say(f"Written: {path}")
        for note in script.notes:
            self._dock.warn(note)

"""Where to save: the file dialog, with one question if the file exists."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from qtpy.QtWidgets import QFileDialog, QMessageBox, QWidget


class Target(NamedTuple):
    """A file to write, and whether it may be replaced."""

    path: Path
    force: bool


def ask_where(parent: QWidget, title: str, *, name: str, suffix: str, kind: str) -> Target | None:
    """Ask for a file to write; None if the user cancels or does not want to replace an existing one.

    Parameters
    ----------
    parent
        The dialog's owner.
    title
        Its title.
    name
        Suggested file name without suffix.
    suffix
        Added where the user names none, such as ``".csv"``.
    kind
        What kind of file it is, in words.
    """
    # The dialog's own question about replacing would not know of a suffix that is added afterwards.
    option = QFileDialog.Option.DontConfirmOverwrite
    suggestion = f"{name}{suffix}".replace(" ", "_")
    chosen, _ = QFileDialog.getSaveFileName(parent, title, suggestion, f"{kind} (*{suffix})", options=option)
    if not chosen:
        return None
    path = Path(chosen) if Path(chosen).suffix else Path(chosen + suffix)
    if not path.exists():
        return Target(path, force=False)
    answer = QMessageBox.question(parent, title, f"{path.name} exists already. Replace it?")
    return Target(path, force=True) if answer == QMessageBox.StandardButton.Yes else None

"""How long work reports itself: a protocol, so that no room knows of bars or windows."""

from __future__ import annotations

import threading
from typing import Protocol


class Cancelled(BaseException):
    """Raised inside long work when its owner asked it to stop; not an error."""


class Progress(Protocol):
    """What long work calls while it runs."""

    def start(self, total: int | None, what: str) -> None:
        """Begin a stage of ``total`` steps (None when unknown), described by ``what``."""

    def advance(self, n: int = 1) -> None:
        """Say that ``n`` more steps are done; raises :class:`Cancelled` when asked to stop."""

    def note(self, text: str) -> None:
        """Say something that the user should know of the work, which goes on."""


class Control:
    """A progress that can be paused and cancelled from another thread.

    Attributes
    ----------
    done, total
        Steps done and to do in this stage.
    what
        Name of the stage.
    notes
        What was said of the work, each once.
    """

    def __init__(self) -> None:
        self.done, self.total, self.what = 0, None, ""  # type: int, int | None, str
        self.notes: list[str] = []
        self._cancel, self._go, self._enough = threading.Event(), threading.Event(), threading.Event()
        self._go.set()

    def start(self, total: int | None, what: str) -> None:
        """Begin a stage."""
        self.done, self.total, self.what = 0, total, what

    def advance(self, n: int = 1) -> None:
        """Count ``n`` steps, wait while paused, stop when cancelled."""
        self.done += n
        self.checkpoint()

    def note(self, text: str) -> None:
        """Keep what the user should know."""
        if text not in self.notes:
            self.notes.append(text)

    def checkpoint(self) -> None:
        """Wait while paused; raise :class:`Cancelled` once cancelled."""
        while not self._go.wait(0.1):
            if self._cancel.is_set():
                break
        if self._cancel.is_set():
            raise Cancelled

    def cancel(self) -> None:
        """Ask the work to stop at its next step."""
        self._cancel.set()

    def pause(self) -> None:
        """Ask the work to wait at its next step."""
        self._go.clear()

    def resume(self) -> None:
        """Let the work go on."""
        self._go.set()

    def finish(self) -> None:
        """Ask work that gets better the longer it runs to end well with what it has."""
        self._enough.set()

    @property
    def finishing(self) -> bool:
        """Whether :meth:`finish` was called."""
        return self._enough.is_set()

    @property
    def cancelled(self) -> bool:
        """Whether :meth:`cancel` was called."""
        return self._cancel.is_set()

    @property
    def paused(self) -> bool:
        """Whether the work is asked to wait."""
        return not self._go.is_set()

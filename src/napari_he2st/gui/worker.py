"""Work off the GUI thread: one function, :func:`run`, around the workers of superqt and napari.

Only the signals of a worker reach the GUI thread, so every ``on_…`` callback may touch layers and widgets.
"""

from __future__ import annotations

import atexit
import inspect
import logging
from collections.abc import Callable, Generator
from typing import Any
from weakref import WeakSet

from napari.qt import threading as napari_threading
from napari.utils.notifications import show_error
from qtpy.QtCore import QCoreApplication, QEvent, QObject, QThreadPool
from qtpy.QtWidgets import QWidget
from superqt.utils import create_worker as create_light_worker

from napari_he2st.core.errors import He2stError
from napari_he2st.core.progress import Cancelled, Control

logger = logging.getLogger(__name__)

Callback = Callable[[Any], None]

_EXIT_MS = 10_000


class _WorkError(Exception):
    """Carries a RuntimeError out of a generator."""


class Task:
    """Work that goes on in a thread.

    Attributes
    ----------
    name
        What the user reads while it runs.
    control
        Progress of the work; also how it is paused and cancelled from within.
    """

    def __init__(self, name: str, control: Control) -> None:
        self.name, self.control = name, control
        self.running = True
        self._deaf = False
        self._worker: Any = None

    def pause(self) -> None:
        """Wait at the next step."""
        self.control.pause()

    def resume(self) -> None:
        """Go on."""
        self.control.resume()

    def cancel(self) -> None:
        """Stop at the next step; what was delivered so far stays."""
        self.control.cancel()
        if self._worker is not None:
            self._worker.quit()

    def _abandon(self, *_: Any) -> None:
        """Cancel, and call nobody back: their widget is gone."""
        self._deaf = True
        self.cancel()

    def _call(self, callback: Callable[..., None] | None, *args: Any) -> None:
        if callback is not None and not self._deaf:
            callback(*args)


class _EndWithWindow(QObject):
    """Abandons a task when the main window that its owner lies in is closed."""

    def __init__(self, owner: QWidget, task: Task) -> None:
        super().__init__(owner)
        self._task = task
        window = owner
        while (above := window.parentWidget()) is not None:
            window = above
        window.installEventFilter(self)

    def eventFilter(self, watched: QObject | None, event: QEvent | None) -> bool:
        """Let every event pass; note the closing."""
        if event is not None and event.type() == QEvent.Type.Close:
            self._task._abandon()
        return False


def run(
    function: Callable[..., Any],
    *args: Any,
    name: str,
    owner: QWidget | None = None,
    control: Control | None = None,
    on_yield: Callback | None = None,
    on_done: Callback | None = None,
    on_error: Callback | None = None,
    on_end: Callable[[], None] | None = None,
    ask_on_close: bool = False,
    **kwargs: Any,
) -> Task:
    """Call ``function(*args, **kwargs)`` in a thread; it may be a generator function.

    Errors become a notification without a traceback (the log has it); cancelling is no error.

    Parameters
    ----------
    function
        Function or generator function. A generator can be cancelled between its yields, anything that
        takes a ``control`` within them too.
    name
        What the work is called while it runs and when it fails.
    owner
        Widget it works for: the work is cancelled, and nothing called back, once this is gone or its window
        is closed.
    control
        Passed on to the function as ``control`` if given.
    on_yield, on_done, on_error
        Called in the GUI thread with what was yielded, returned or raised. ``on_done`` is not called after
        cancelling.
    on_end
        Called last in every case.
    ask_on_close
        True for work that takes minutes: closing the window asks first, and a no lets it go on.
    """
    task = Task(name, control or Control())
    if control is not None:
        kwargs["control"] = control
    worker_of = napari_threading.create_worker if ask_on_close else create_light_worker
    worker = worker_of(_quiet(function, name), *args, _ignore_errors=True, **kwargs)
    task._worker = worker
    # Where napari asks before it closes, the answer may be no; so that work ends with its owner.
    guard = None if owner is None or ask_on_close else _EndWithWindow(owner, task)
    if owner is not None:
        owner.destroyed.connect(task._abandon)

    def failed(error: Exception) -> None:
        if isinstance(error, _WorkError) and isinstance(error.__cause__, Exception):
            error = error.__cause__
        if not task._deaf:
            tell(error, name)
        task._call(on_error, error)

    def ended() -> None:
        task.running, task._worker = False, None
        if guard is not None and not task._deaf:
            guard.deleteLater()
        task._call(on_end)

    if on_yield is not None and hasattr(worker.signals, "yielded"):
        worker.yielded.connect(lambda value: task._call(on_yield, value))
    worker.returned.connect(lambda value: None if task.control.cancelled else task._call(on_done, value))
    worker.errored.connect(failed)
    worker.finished.connect(ended)
    worker.start()
    _tasks.add(task)
    return task


_tasks: WeakSet[Task] = WeakSet()


@atexit.register
def _end_all() -> None:
    """Let no thread outlive Qt, whose signals it would miss: the process would abort instead of ending."""
    running = [task for task in _tasks if task.running]
    for task in running:
        task._abandon()
    if running:
        QThreadPool.globalInstance().waitForDone(_EXIT_MS)
        # Workers are let go when their last signal arrives; other events could start new ones.
        QCoreApplication.sendPostedEvents(None, QEvent.Type.MetaCall.value)


def tell(error: Exception, doing: str) -> None:
    """Show an error to the user: its own words if it is ours, its kind otherwise; never a traceback."""
    if isinstance(error, He2stError):
        show_error(str(error))
        return
    logger.error("%s failed", doing, exc_info=error)
    show_error(f"{doing} failed: {type(error).__name__}: {error}. The log has the details.")


def _quiet(function: Callable[..., Any], name: str) -> Callable[..., Any]:
    """The function under a readable name, ending without an error when it is cancelled."""
    if inspect.isgeneratorfunction(function):

        def steps(*args: Any, **kwargs: Any) -> Generator[Any, None, Any]:
            try:
                return (yield from function(*args, **kwargs))
            except Cancelled:
                return None
            except RuntimeError as error:  # of which the worker would not tell
                raise _WorkError from error

        steps.__name__ = steps.__qualname__ = name
        return steps

    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except Cancelled:
            return None

    call.__name__ = call.__qualname__ = name
    return call

"""The frame all docks share: a form that scrolls, and below it the main button and the status line."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any
from weakref import WeakMethod

from napari.utils.notifications import show_warning
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QFrame, QHBoxLayout, QMainWindow, QPushButton, QScrollArea, QVBoxLayout, QWidget

from napari_he2st.gui.widgets.status import StatusLine
from napari_he2st.gui.worker import Task, run
from napari_he2st.gui.workspace import keep_safe, layers_of

if TYPE_CHECKING:
    import napari.viewer

    from napari_he2st.data.slides import Slide
    from napari_he2st.data.slides.tissue import TissueMask
    from napari_he2st.engine.session_items import SlideItem

MIN_WIDTH_PX = 320


class Dock(QWidget):
    """Base of all docks.

    A subclass with an ``__init__`` of its own annotates the viewer as ``napari.viewer.Viewer``: by that spelling
    napari knows what to pass.

    Attributes
    ----------
    viewer, session, layers
        The viewer, its session and the layers that mirror it.
    body
        Layout inside the scroll area: forms and lists go here.
    buttons
        Row below the scroll area, for the main buttons.
    status
        Status line with progress, pause and cancel.
    """

    def __init__(self, viewer: napari.viewer.Viewer) -> None:
        super().__init__()
        self.viewer = viewer
        self.layers = layers_of(viewer)
        self.session = self.layers.session
        self._was_shown = False
        self._tasks: list[Task] = []
        self.setMinimumWidth(MIN_WIDTH_PX)
        form = QWidget()
        self.body = QVBoxLayout(form)
        scroll = self._scroll = QScrollArea()
        scroll.setWidget(form)
        scroll.setWidgetResizable(True)
        scroll.setFrameShape(QFrame.Shape.NoFrame)
        scroll.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.buttons = QHBoxLayout()
        self.status = StatusLine()
        outer = QVBoxLayout(self)
        outer.setContentsMargins(4, 4, 4, 4)
        outer.addWidget(scroll, 1)
        outer.addLayout(self.buttons)
        outer.addWidget(self.status)
        self._listening: list[tuple[Any, WeakMethod]] = []
        # A slot of the destroyed object itself would not be called any more.
        self.destroyed.connect(partial(_stop_listening, self._listening))

    def reveal(self, widget: QWidget) -> None:
        """Scroll to a widget of the body."""
        self.body.activate()  # one that was just shown gets its place
        self._scroll.ensureWidgetVisible(widget)

    def add_button(self, text: str, tip: str, slot: Callable[[], Any]) -> QPushButton:
        """Add a button below the scroll area."""
        button = QPushButton(text)
        button.setToolTip(tip)
        button.clicked.connect(lambda *_: slot())
        self.buttons.addWidget(button)
        return button

    def run(
        self,
        function: Callable[..., Any],
        *args: Any,
        name: str,
        quiet: bool = False,
        can_pause: bool = False,
        **options: Any,
    ) -> Task:
        """Run work for this dock, see :func:`napari_he2st.gui.worker.run`.

        The status line shows it, unless it is ``quiet``: short work that the user did not ask for.
        """
        task = run(function, *args, name=name, owner=self, **options)
        self._tasks = [known for known in self._tasks if known.running] + [task]
        if not quiet:
            self.status.watch(task, can_pause=can_pause)
        return task

    @property
    def busy(self) -> bool:
        """Whether any work of this dock goes on."""
        return any(task.running for task in self._tasks)

    def with_mask(self, item: SlideItem, then: Callable[[TissueMask], None]) -> None:
        """Call ``then`` with the tissue of a slide, now if it is known or once it is found."""
        if item.mask is not None:
            then(item.mask)
            return

        def found(mask: TissueMask) -> None:
            if item.mask is None and self.session.slides.get(item.name) is item:
                self.session.set_mask(item.name, mask)
            then(mask)

        self.run(_find_tissue, item.slide, name="Finding the tissue", on_done=found)

    def say(self, text: str) -> None:
        """Show a line in the dock's status line."""
        self.status.say(text)

    def warn(self, text: str) -> None:
        """Warn the user: a notification and the status line."""
        self.status.say(text)
        show_warning(text)

    def listen(self, signal: Any, slot: Callable) -> None:
        """Call ``slot``, a method of this dock, when a session's signal is emitted, as long as the dock exists."""
        signal.connect(slot)
        self._listening.append((signal, WeakMethod(slot)))

    def opened(self) -> None:
        """What the dock does when it is first shown, such as loading model code; called once."""

    def showEvent(self, event: Any) -> None:
        """Call :meth:`opened` the first time."""
        super().showEvent(event)
        if not self._was_shown:
            self._was_shown = True
            if isinstance(self.window(), QMainWindow):
                keep_safe(self.viewer, self.window())
            self.body.addStretch(0)  # room that no list in the dock asks for
            self.opened()


def _stop_listening(listening: list[tuple[Any, WeakMethod]], *_: Any) -> None:
    for signal, method in listening:
        slot = method()
        if slot is not None:
            signal.disconnect(slot, missing_ok=True)
    listening.clear()


def _find_tissue(slide: Slide) -> TissueMask:
    from napari_he2st.data.slides.tissue import tissue_mask

    return tissue_mask(slide)

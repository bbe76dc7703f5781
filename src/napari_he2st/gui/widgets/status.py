"""The line at the bottom of a dock that says what goes on, with pause and cancel."""

from __future__ import annotations

import time

from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QHBoxLayout, QLabel, QProgressBar, QPushButton, QSizePolicy, QVBoxLayout, QWidget

from napari_he2st.gui.worker import Task

_POLL_MS = 150


class StatusLine(QWidget):
    """Text, progress bar with rate and time left, and the buttons Pause and Cancel of the task it watches."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._task: Task | None = None
        self._started = 0.0
        self.text = QLabel()
        self.text.setWordWrap(True)
        self.text.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Preferred)
        self.bar = QProgressBar()
        self.bar.setToolTip("Progress of the work that goes on")
        self.pause_button = QPushButton("Pause")
        self.pause_button.setToolTip("Wait after the current batch, or go on")
        self.pause_button.setCheckable(True)
        self.cancel_button = QPushButton("Cancel")
        self.cancel_button.setToolTip("Stop after the current batch; what is done stays")
        row = QHBoxLayout()
        row.addWidget(self.bar, 1)
        row.addWidget(self.pause_button)
        row.addWidget(self.cancel_button)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addLayout(row)
        layout.addWidget(self.text)
        self._timer = QTimer(self)
        self._timer.setInterval(_POLL_MS)
        self._timer.timeout.connect(self._poll)
        self.pause_button.toggled.connect(self._pause)
        self.cancel_button.clicked.connect(self._cancel)
        self._show_controls(False)

    def say(self, text: str) -> None:
        """Show one line of text."""
        self.text.setText(text)
        self.text.setVisible(bool(text))

    def watch(self, task: Task, *, can_pause: bool = False) -> None:
        """Show the progress of a task until it ends."""
        self._task, self._started = task, time.monotonic()
        self.pause_button.setChecked(False)
        self.cancel_button.setEnabled(True)
        self._show_controls(True, can_pause=can_pause)
        self.say(f"{task.name} …")
        self._poll()
        self._timer.start()

    def _show_controls(self, on: bool, *, can_pause: bool = False) -> None:
        self.bar.setVisible(on)
        self.cancel_button.setVisible(on)
        self.pause_button.setVisible(on and can_pause)

    def _poll(self) -> None:
        task = self._task
        if task is None or not task.running:
            self._timer.stop()
            self._show_controls(False)
            if task is not None and self.text.text().startswith(f"{task.name} …"):
                self.say("")
            self._task = None
            return
        control = task.control
        done, total = control.done, control.total
        self.bar.setRange(0, total or 0)
        if total:
            self.bar.setValue(min(done, total))
            notes = "".join(f"\n⚠ {note}" for note in control.notes)
            self.say(f"{task.name} … {done:,} of {total:,}{self._speed(done, total)}{notes}")

    def _speed(self, done: int, total: int) -> str:
        seconds = time.monotonic() - self._started
        if self.pause_button.isChecked():
            return ", paused"
        if not done or seconds < 1:
            return ""
        rate = done / seconds
        return f", {rate:,.0f}/s, {duration((total - done) / rate)} left"

    def _pause(self, on: bool) -> None:
        self.pause_button.setText("Go on" if on else "Pause")
        if self._task is not None:
            (self._task.pause if on else self._task.resume)()

    def _cancel(self) -> None:
        if self._task is not None:
            self.cancel_button.setEnabled(False)
            self._task.cancel()


def duration(seconds: float) -> str:
    """Seconds in words a person reads: ``"40 s"``, ``"12 min"``, ``"3.5 h"``."""
    if seconds < 90:
        return f"{max(seconds, 1):.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"

"""The choice of a method for domains or alignment, with a form made from its options."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QObject, Signal
from superqt import QCollapsible

from napari_he2st.engine.methods import Method, Task, methods
from napari_he2st.gui.widgets.combo import Combo
from napari_he2st.gui.widgets.options_form import OptionsForm, has_field

if TYPE_CHECKING:
    from napari_he2st.gui.docks.base import Dock


class MethodBox(QObject):
    """A combo box and a collapsible form, to be placed by the dock.

    ``chosen()`` when another method is.

    Parameters
    ----------
    dock
        Whose work it is: a published method's code is loaded in a thread.
    task
        What the methods do.
    default
        The method that is chosen first.
    tip
        Of the combo box.

    Attributes
    ----------
    combo, options, more
        Names; the form; what it is folded into.
    filled
        Name of the method whose options are shown, empty while they load.
    """

    chosen = Signal()

    def __init__(self, dock: Dock, task: Task, default: str, tip: str) -> None:
        super().__init__(dock)
        self._dock, self._methods = dock, methods(task)
        self.filled = ""
        self.combo = Combo(tip)
        for name, method in self._methods.items():
            self.combo.add(name, tip=method.title)
        self.combo.setCurrentText(default)
        self.options = OptionsForm()
        self.more = QCollapsible("More options")
        self.more.addWidget(self.options)
        self.combo.currentIndexChanged.connect(lambda _: self._changed())
        self._show_options()

    @property
    def method(self) -> Method:
        """The chosen method."""
        return self._methods[self.combo.currentText()]

    def _changed(self) -> None:
        self._show_options()
        self.chosen.emit()

    def _show_options(self) -> None:
        method, self.filled = self.method, ""
        if method.entry is not None:
            self._fill(method.name, (method.options, method.doc))
            return
        self.options.show_options({})
        load = partial(self._fill, method.name)
        self._dock.run(lambda: (method.options, method.doc), name="Loading the method", quiet=True, on_done=load)

    def _fill(self, name: str, found: tuple[dict[str, Any], str | None]) -> None:
        if name == self.combo.currentText():
            options, doc = found
            self.options.show_options({key: option for key, option in options.items() if has_field(option)}, doc)
            self.filled = name

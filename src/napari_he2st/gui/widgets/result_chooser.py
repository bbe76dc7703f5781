"""A combo box of the results that are open; "predicted" or "measured" is always part of what it shows."""

from __future__ import annotations

from collections.abc import Callable

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QWidget

from napari_he2st.engine.session import Session
from napari_he2st.engine.session_items import Result
from napari_he2st.gui.widgets.combo import Combo


class ResultChooser(Combo):
    """Results of a session that satisfy ``accept``.

    ``result_chosen(name)`` is emitted when the user chooses, not when the list is refilled.
    """

    result_chosen = Signal(str)

    def __init__(
        self,
        session: Session,
        tip: str,
        accept: Callable[[Result], bool] = lambda result: True,
        parent: QWidget | None = None,
    ) -> None:
        super().__init__(tip, parent)
        self._session, self._accept = session, accept
        self.activated.connect(lambda _: self.result_chosen.emit(self.currentData()))
        self.refill()

    @property
    def result(self) -> Result | None:
        """The result that is chosen."""
        return self._session.results.get(self.currentData())

    def refill(self) -> None:
        """Show what the session holds now; the choice stays where it can."""
        chosen = self.currentData()
        self.blockSignals(True)
        self.clear()
        for result in self._session.results.values():
            if self._accept(result):
                self.add(result.title, data=result.name, tip=_describe(result))
        self.setEnabled(self.count() > 0)
        self.blockSignals(False)
        self.choose(chosen)

    def choose(self, name: str | None) -> None:
        """Make a result the chosen one without announcing it; unknown names are ignored."""
        row = self.findData(name)
        if row >= 0:
            self.setCurrentIndex(row)


def _describe(result: Result) -> str:
    return f"{result.title} on {result.slide}: {len(result.grid):,} spots × {len(result.genes):,} genes, {result.scale}"

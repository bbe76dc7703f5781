"""A list of the results that are open, to be ticked and brought into an order."""

from __future__ import annotations

from collections.abc import Callable

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QAbstractItemView, QListWidget, QListWidgetItem, QWidget

from napari_he2st.engine.session import Session
from napari_he2st.engine.session_items import Result


class ResultTicks(QListWidget):
    """Results of a session that satisfy ``accept``, each with a tick box; they are dragged into another order."""

    def __init__(
        self, session: Session, tip: str, accept: Callable[[Result], bool], parent: QWidget | None = None
    ) -> None:
        super().__init__(parent)
        self._session, self._accept = session, accept
        self.setToolTip(tip)
        self.setDragDropMode(QAbstractItemView.DragDropMode.InternalMove)
        self.refill()

    @property
    def ticked(self) -> list[str]:
        """Names of the ticked results, in order."""
        items = [self.item(row) for row in range(self.count())]
        return [item.text() for item in items if item.checkState() == Qt.CheckState.Checked]

    def refill(self) -> None:
        """Show what the session holds now; what was ticked stays so."""
        ticked = set(self.ticked)
        self.clear()
        for result in self._session.results.values():
            if self._accept(result):
                item = QListWidgetItem(result.name, self)
                item.setCheckState(Qt.CheckState.Checked if result.name in ticked else Qt.CheckState.Unchecked)

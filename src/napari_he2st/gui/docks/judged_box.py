"""The part of the Compare dock that chooses: one reference, and any number of results to judge by it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import QSignalBlocker, Qt, Signal
from qtpy.QtWidgets import QFormLayout, QLabel, QListWidget, QListWidgetItem, QPushButton, QWidget

from napari_he2st.core.expression import unit_of
from napari_he2st.engine.conversion import conversion
from napari_he2st.engine.session_items import Result
from napari_he2st.gui.widgets.result_chooser import ResultChooser

if TYPE_CHECKING:
    from napari_he2st.gui.docks.base import Dock

_MOST_ROWS = 4


class JudgedBox(QWidget):
    """A combo of references, a list with a tick for each result to judge, and what stands in the way.

    ``changed()`` when the choice is another one; ``convert_wanted()`` when the user asks for one scale.

    Parameters
    ----------
    dock
        The Compare dock.
    """

    changed = Signal()
    convert_wanted = Signal()

    def __init__(self, dock: Dock) -> None:
        super().__init__()
        self._session = dock.session
        self._unticked: set[str] = set()
        self._wanted: str | None = None
        tip = "The result that others are judged by: most often what was measured (Alt+A)"
        self.reference = ResultChooser(self._session, tip)
        self.reference.result_chosen.connect(self.choose)
        self.judged = QListWidget()
        self.judged.setToolTip("Tick the results to compare with it; Space ticks, arrow keys move (Alt+J)")
        self.judged.setAccessibleName("Results to judge")
        self.judged.itemChanged.connect(self._ticked)
        self.note = QLabel(wordWrap=True)
        self.convert = QPushButton("Co&nvert and compare")
        self.convert.clicked.connect(lambda *_: self.convert_wanted.emit())
        form = QFormLayout(self)
        form.setContentsMargins(0, 0, 0, 0)
        for text, widget in (("&Against", self.reference), ("&Judge", self.judged)):
            label = QLabel(text)
            label.setBuddy(widget)
            form.addRow(label, widget)
        form.addRow(self.note)
        form.addRow(self.convert)
        self.refill()

    @property
    def results(self) -> list[Result]:
        """The results that are ticked."""
        items = [self.judged.item(row) for row in range(self.judged.count())]
        names = [item.data(Qt.ItemDataRole.UserRole) for item in items if item.checkState() == Qt.CheckState.Checked]
        return [self._session.results[name] for name in names if name in self._session.results]

    def tick(self, name: str, on: bool = True) -> None:
        """Tick a result, or take the tick away."""
        for row in range(self.judged.count()):
            item = self.judged.item(row)
            if item.data(Qt.ItemDataRole.UserRole) == name:
                item.setCheckState(Qt.CheckState.Checked if on else Qt.CheckState.Unchecked)

    def choose(self, reference: str) -> None:
        """Judge by another result."""
        self._wanted = reference
        self.refill()

    def refill(self) -> None:
        """Offer what the session holds now; the choice stays where it can."""
        self.reference.refill()
        self.reference.choose(self._wanted if self._wanted in self._session.results else self._first_measured())
        reference = self.reference.result
        with QSignalBlocker(self.judged):
            self.judged.clear()
            for result in self._session.results.values():
                if result is reference:
                    continue
                reason = "" if reference is None else why_not(result, reference)
                item = QListWidgetItem(result.title if not reason else f"{result.title} – {reason}", self.judged)
                item.setData(Qt.ItemDataRole.UserRole, result.name)
                item.setToolTip(f"{result.title} on {result.slide}: {len(result.genes):,} genes. {reason}")
                ticked = not reason and result.name not in self._unticked
                item.setCheckState(Qt.CheckState.Checked if ticked else Qt.CheckState.Unchecked)
                if reason:
                    item.setFlags(item.flags() & ~(Qt.ItemFlag.ItemIsUserCheckable | Qt.ItemFlag.ItemIsEnabled))
        rows = min(max(self.judged.count(), 1), _MOST_ROWS)
        self.judged.setFixedHeight(rows * max(self.judged.sizeHintForRow(0), self.fontMetrics().height() + 6) + 6)
        self._say()
        self.changed.emit()

    @property
    def problem(self) -> str:
        """What keeps the chosen results from being compared as they are; empty if nothing does."""
        reference, judged = self.reference.result, self.results
        if len(self._session.results) < 2 or reference is None:
            return self._missing()
        if reference.adata is None:
            return f"{reference.title} can be compared once it is complete."
        if not judged:
            return self._missing() if self.judged.count() == 0 else "Tick a result that lies on the same slide."
        odd = [result for result in judged if result.scale != reference.scale]
        if odd:
            names = ", ".join(result.title for result in odd)
            return f"{names}: {unit_of(odd[0].scale)}, but {reference.title}: {unit_of(reference.scale)}. "
        return ""

    def _missing(self) -> str:
        kinds = {result.kind for result in self._session.results.values()}
        if "predicted" not in kinds:
            return "There is no prediction to compare yet: predict a slide in the Predict dock."
        if "measured" not in kinds:
            return (
                "There is no measurement to compare with yet: load measured expression in the Slide dock. Or predict "
                "with a second model, and compare the two."
            )
        return "Two results of one slide are needed."

    def _ticked(self, item: QListWidgetItem) -> None:
        name = item.data(Qt.ItemDataRole.UserRole)
        if item.checkState() == Qt.CheckState.Checked:
            self._unticked.discard(name)
        else:
            self._unticked.add(name)
        self._say()
        self.changed.emit()

    def _say(self) -> None:
        problem, said = self.problem, self._conversion()
        self.note.setText(problem + ("" if said else self._hopeless(problem)))
        self.note.setVisible(bool(problem))
        self.convert.setVisible(bool(said))
        self.convert.setToolTip(f"{said} (Alt+N)")
        if said:
            self.note.setText(f"{problem}<br><b>Converting</b> {said[0].lower()}{said[1:]}.")

    def _hopeless(self, problem: str) -> str:
        scales = {result.scale for result in (*self.results, self.reference.result) if result is not None}
        return "They cannot be brought to one scale." if problem and len(scales) > 1 and self.results else ""

    def _conversion(self) -> str:
        """What converting would do to the ticked results, or "" where it is not needed or cannot be."""
        reference, said = self.reference.result, []
        for result in self.results:
            if reference is None or reference.adata is None or result.adata is None:
                return ""
            if result.scale != reference.scale:
                change = conversion(result.adata, reference.adata)
                if change is None:
                    return ""
                said.append(change.said)
        return "; ".join(dict.fromkeys(said))

    def _first_measured(self) -> str | None:
        for result in self._session.results.values():
            if result.kind == "measured":
                return result.name
        return None


def why_not(result: Result, reference: Result) -> str:
    """Why a result cannot be compared with a reference whatever its scale, in a few words; empty if it can."""
    if result.slide != reference.slide:
        return f"lies on {result.slide}"
    return "" if result.adata is not None else "not complete"

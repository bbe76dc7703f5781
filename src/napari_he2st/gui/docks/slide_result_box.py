"""The part of the Predict dock for predictors that give one result for a whole slide."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from qtpy.QtWidgets import QGroupBox, QLabel, QVBoxLayout

from napari_he2st.core import keys
from napari_he2st.core.progress import Control
from napari_he2st.core.schema import slide_result
from napari_he2st.gui import prediction
from napari_he2st.gui.widgets.facts import Facts

if TYPE_CHECKING:
    from anndata import AnnData

    from napari_he2st.engine.session_items import SlideItem
    from napari_he2st.gui.docks.base import Dock
    from napari_he2st.gui.worker import Task
    from napari_he2st.zoo.bundle import Bundle

_SHOWN = 12


class SlideResultBox(QGroupBox):
    """The result of the slide, shown while it is the chosen one; what it rests on is a map like any other.

    Parameters
    ----------
    dock
        The Predict dock; its work is run through it.
    """

    def __init__(self, dock: Dock) -> None:
        super().__init__("Slide result")
        self._dock = dock
        self.facts = Facts()
        note = QLabel(keys.RESEARCH_USE)
        note.setWordWrap(True)
        layout = QVBoxLayout(self)
        layout.addWidget(self.facts)
        layout.addWidget(note)
        dock.listen(dock.session.selection_changed, self.show_chosen)
        dock.listen(dock.session.result_finished, self._completed)
        self.hide()

    def predict(
        self,
        bundle: Bundle,
        item: SlideItem,
        device: str,
        stain: str | None,
        warnings: list[str],
        on_end: Callable[[], None],
    ) -> Task:
        """Read the slide's tiles and predict it; the map becomes a result of the session."""
        control = Control()
        return self._dock.run(
            prediction.whole_slide,
            bundle,
            item.slide,
            device,
            stain,
            name=f"Predicting {item.name}",
            control=control,
            on_done=lambda adata: self._predicted(bundle, item.name, adata, warnings),
            on_end=on_end,
        )

    def _predicted(self, bundle: Bundle, slide: str, adata: AnnData, warnings: list[str]) -> None:
        session = self._dock.session
        if slide not in session.slides:  # closed meanwhile
            return
        result = session.add_adata(adata, slide, name=bundle.id, warnings=tuple(warnings))
        session.select(result=result.name)
        self._dock.say(f"{bundle.manifest.title}: the slide is predicted.")

    def _completed(self, _name: str) -> None:
        self.show_chosen()

    def show_chosen(self) -> None:
        """Show what the chosen result says of its slide, if it does."""
        result = self._dock.session.current_result
        values = {} if result is None or result.adata is None else slide_result(result.adata)
        shown = sorted(values.items(), key=lambda entry: -entry[1])[:_SHOWN]
        places = ".3f" if all(0 <= value <= 1 for value in values.values()) else ".3g"  # probabilities, or numbers
        lines = {name: format(value, places) for name, value in shown}
        if len(values) > _SHOWN:
            lines["…"] = f"and {len(values) - _SHOWN:,} more; export the result for all"
        self.facts.show_facts(lines)
        self.setVisible(bool(lines))

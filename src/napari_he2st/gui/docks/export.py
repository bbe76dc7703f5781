"""Export dock: write a result for other programs, and the session for oneself."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari.utils.notifications import show_info
from qtpy.QtWidgets import QFormLayout, QLabel

from napari_he2st.core import keys
from napari_he2st.core.errors import He2stError
from napari_he2st.data.export import EXPORTERS, export
from napari_he2st.engine.session_items import Result
from napari_he2st.engine.signatures import with_derived
from napari_he2st.gui.docks.base import Dock
from napari_he2st.gui.docks.session_box import SessionBox
from napari_he2st.gui.widgets.combo import Combo
from napari_he2st.gui.widgets.options_form import OptionsForm
from napari_he2st.gui.widgets.result_chooser import ResultChooser
from napari_he2st.gui.widgets.save_dialog import Target, ask_where
from napari_he2st.gui.worker import tell

if TYPE_CHECKING:
    import napari.viewer

_EMPTY = "Nothing to export yet: predict a slide in the Predict dock, or load measured expression in the Slide dock."


class ExportDock(Dock):
    """Result, format, its options, and where to."""

    def __init__(self, viewer: napari.viewer.Viewer) -> None:
        super().__init__(viewer)
        self.chooser = ResultChooser(self.session, "The result that is written")
        self.chooser.result_chosen.connect(lambda name: self.session.select(result=name))
        self.format = Combo("The kind of file")
        for entry in EXPORTERS:
            self.format.add(entry.name, tip=entry.description)
        self.format.setCurrentText("h5ad")  # the one that loses nothing
        self.about = QLabel(wordWrap=True)
        self.options = OptionsForm()
        self.note = QLabel(wordWrap=True)
        form = QFormLayout()
        form.addRow("Result", self.chooser)
        form.addRow("Format", self.format)
        self.body.addLayout(form)
        self.saved = SessionBox(self)
        for widget in (self.about, self.options, self.note, self.saved):
            self.body.addWidget(widget)
        self.button = self.add_button("Export…", "Choose a file and write it", self._ask_where)
        self.format.currentIndexChanged.connect(lambda _: self._show_format())
        self.listen(self.session.result_added, self._refresh)
        self.listen(self.session.result_removed, self._refresh)
        self.listen(self.session.result_finished, self._refresh)
        self.listen(self.session.selection_changed, self._refresh)
        self._show_format()
        self._refresh()

    def _refresh(self) -> None:
        self.chooser.refill()
        self.chooser.choose(self.session.result)
        result = self.session.current_result
        self.button.setEnabled(result is not None and result.adata is not None)
        self.note.setText(_note(result))
        self._suggest_gene()

    def _show_format(self) -> None:
        entry = EXPORTERS[self.format.currentText()]
        self.about.setText(f"{entry.description}.")
        self.options.show_options(entry.options, entry.function.__doc__)
        self._suggest_gene()

    def _suggest_gene(self) -> None:
        """A format that draws one gene starts with the one on screen."""
        result = self.session.current_result
        if "gene" in self.options.names and result is not None and result.shows(self.session.gene or ""):
            self.options.set_values(gene=self.session.gene)

    def _ask_where(self) -> None:
        result = self.session.current_result
        if result is None or result.adata is None:
            return
        entry = EXPORTERS[self.format.currentText()]
        name, suffix = f"{result.name} {result.kind}", entry.facts["suffix"]
        target = ask_where(self, f"Export {result.title}", name=name, suffix=suffix, kind=entry.description)
        if target is None:
            return
        try:
            options = self.options.values()
        except He2stError as error:
            tell(error, "Exporting")
            return
        self.write(result, entry.name, target, options)

    def write(self, result: Result, to: str, target: Target, options: dict[str, Any]) -> None:
        """Write a result to a file, off the GUI thread."""
        item = self.session.slides.get(result.slide)
        self.button.setEnabled(False)
        slide = None if item is None else item.slide
        options |= {"force": target.force, "slide": slide}
        work = partial(_export, result, to, target.path, options)
        self.run(work, name=f"Exporting {target.path.name}", on_done=self._written, on_end=self._refresh)

    def _written(self, path: Path) -> None:
        self.say(f"Written: {path}")
        show_info(f"{path.name} is written.")


def _export(result: Result, to: str, out: Path, options: dict[str, Any]) -> Path:
    """Write a result with the maps that were made of its genes."""
    return export(with_derived(result.adata, result.derived), to, out, **options)


def _note(result: Result | None) -> str:
    if result is None:
        return _EMPTY
    if result.adata is None:
        return f"{result.title} can be exported once the prediction is complete."
    if result.kind == "predicted":
        return f"{keys.RESEARCH_USE} The file says so too, with the predictor and its version."
    return "Measured expression; the file says so."

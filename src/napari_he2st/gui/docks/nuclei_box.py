"""Nuclei in the Slide dock: find them, open those of another program, see them, save them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.QtWidgets import QCheckBox, QFileDialog, QFormLayout, QHBoxLayout, QLabel, QPushButton, QVBoxLayout, QWidget
from superqt import QCollapsible

from napari_he2st.analysis.nuclei import NUCLEI_METHODS
from napari_he2st.core.errors import He2stError
from napari_he2st.core.progress import Control
from napari_he2st.gui.docks.where_box import REGIONS, VIEW, WHOLE
from napari_he2st.gui.widgets.combo import Combo
from napari_he2st.gui.widgets.options_form import OptionsForm
from napari_he2st.gui.widgets.save_dialog import Target, ask_where
from napari_he2st.gui.worker import Task, tell

if TYPE_CHECKING:
    from napari_he2st.core.types import Nuclei, Region
    from napari_he2st.data.slides import Slide
    from napari_he2st.engine.session_items import SlideItem
    from napari_he2st.gui.docks.base import Dock

_FILES = "Nuclei (*.geojson *.json *.tif *.tiff *.png *.npy)"


class NucleiBox(QWidget):
    """Nuclei of the current slide.

    Parameters
    ----------
    dock
        The Slide dock; its work is run through it.
    """

    def __init__(self, dock: Dock) -> None:
        super().__init__()
        self._dock, self._session = dock, dock.session
        self._task: Task | None = None
        self.state = QLabel(wordWrap=True)
        self.method = Combo("How nuclei are found; what is learned by others needs their package")
        for entry in NUCLEI_METHODS:
            self.method.add(entry.name, tip=entry.description)
        self.method.setCurrentText("haematoxylin")
        self.area = Combo("Where nuclei are found")
        self.area.addItems([WHOLE, VIEW, REGIONS])
        self.options = OptionsForm()
        details = QCollapsible("How they are found")
        details.addWidget(self.options)
        self.find_button = QPushButton("Find nuclei")
        self.find_button.setToolTip("Look for nuclei in the tissue; what was found before comes at once")
        self.find_button.clicked.connect(lambda *_: self.find())
        self.open_button = QPushButton("Open…")
        self.open_button.setToolTip("Nuclei found elsewhere: a label image as wide as the slide, or QuPath's GeoJSON")
        self.open_button.clicked.connect(lambda *_: self._pick())
        self.save_button = QPushButton("Save…")
        self.save_button.setToolTip("Write the nuclei as GeoJSON, which QuPath opens, or as a label image (.tif)")
        self.save_button.clicked.connect(lambda *_: self._ask_where())
        self.shown = QCheckBox("Show outlines")
        self.shown.setToolTip("Draw the outline of every nucleus")
        self.shown.toggled.connect(self._show_layer)
        form = QFormLayout()
        form.addRow("Method", self.method)
        form.addRow("Area", self.area)
        buttons = QHBoxLayout()
        for button in (self.find_button, self.open_button, self.save_button):
            buttons.addWidget(button)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addLayout(form)
        layout.addWidget(details)
        layout.addLayout(buttons)
        layout.addWidget(self.state)
        layout.addWidget(self.shown)
        self.method.currentTextChanged.connect(self._show_options)
        dock.listen(self._session.selection_changed, self.show_current)
        dock.listen(self._session.nuclei_changed, self._changed)
        self._show_options()
        self.show_current()

    def show_current(self) -> None:
        """Say what is known of the current slide's nuclei, and offer what can be done."""
        item = self._session.current_slide
        nuclei = None if item is None else item.nuclei
        running = self._task is not None and self._task.running
        for button in (self.find_button, self.open_button):
            button.setEnabled(item is not None and not running)
        self.save_button.setEnabled(nuclei is not None and not running)
        self.shown.setEnabled(nuclei is not None)
        self.shown.blockSignals(True)
        self.shown.setChecked(item is not None and self._dock.layers.nuclei_shown(item.name))
        self.shown.blockSignals(False)
        if item is None:
            self.state.setText("Open a slide first.")
        elif nuclei is None:
            self.state.setText("None yet. Predictors of single cells need them.")
        else:
            self.state.setText(f"{len(nuclei.numbers):,} nuclei at {nuclei.mpp:.3g} µm per pixel.")

    def _changed(self, _slide: str) -> None:
        self.show_current()

    def _show_options(self, *_: Any) -> None:
        entry = NUCLEI_METHODS[self.method.currentText()]
        self.options.show_options(entry.options, entry.function.__doc__)

    def _show_layer(self, on: bool) -> None:
        if self._session.slide is not None:
            self._dock.layers.show_nuclei(self._session.slide, on)

    # --- work

    def find(self) -> None:
        """Find nuclei where it is asked for; they take the place of those that are known."""
        item = self._session.current_slide
        if item is None:
            return
        regions: list[Region] | None = None
        if self.area.currentText() == VIEW:
            regions = [self._dock.layers.current_view(item.name)]
        elif self.area.currentText() == REGIONS:
            regions = self._session.regions[item.name]
            if not regions:
                self._dock.warn("Draw a region first: in the Predict dock, under Where.")
                return
        try:
            options = self.options.values()
        except He2stError as error:
            tell(error, "Finding nuclei")
            return
        self._run(_find, item, item.slide, self.method.currentText(), regions, options, name="Finding nuclei")

    def open(self, path: str | Path) -> None:
        """Take nuclei from a file."""
        item = self._session.current_slide
        if item is not None:
            self._run(_read, item, Path(path), item.slide, name=f"Reading {Path(path).name}")

    def write(self, target: Target) -> None:
        """Write the current slide's nuclei."""
        item = self._session.current_slide
        if item is not None and item.nuclei is not None:
            self._dock.run(
                _write,
                item.nuclei,
                target,
                item.slide.mpp,
                name=f"Writing {target.path.name}",
                on_done=lambda _: self._dock.say(f"Written: {target.path}"),
            )

    def _run(self, work: Any, item: SlideItem, *args: Any, name: str) -> None:
        def found(nuclei: Nuclei) -> None:
            if self._session.slides.get(item.name) is item:
                self._session.set_nuclei(item.name, nuclei)
                self._dock.say(f"{len(nuclei.numbers):,} nuclei.")

        self._task = self._dock.run(
            work, *args, control=Control(), name=name, can_pause=True, on_done=found, on_end=self.show_current
        )
        self.show_current()

    def _pick(self) -> None:
        path, _ = QFileDialog.getOpenFileName(self, "Open nuclei", filter=_FILES)
        if path:
            self.open(path)

    def _ask_where(self) -> None:
        name = f"{self._session.slide} nuclei"
        target = ask_where(self, "Save nuclei", name=name, suffix=".geojson", kind="GeoJSON")
        if target is not None:
            self.write(target)


# --- in a worker


def _find(
    slide: Slide, method: str, regions: list[Region] | None, options: dict[str, Any], *, control: Control
) -> Nuclei:
    from napari_he2st.engine.nuclei import find_nuclei

    return find_nuclei(slide, method, regions=regions, options=options, control=control)


def _read(path: Path, slide: Slide, *, control: Control) -> Nuclei:
    from napari_he2st.data.nuclei import read_nuclei

    control.start(None, f"Reading {path.name}")
    return read_nuclei(path, slide)


def _write(nuclei: Nuclei, target: Target, slide_mpp: float) -> None:
    from napari_he2st.core.atomic import atomic_write
    from napari_he2st.data.nuclei import write_nuclei

    with atomic_write(target.path, force=target.force) as aside:
        write_nuclei(nuclei, aside, slide_mpp)

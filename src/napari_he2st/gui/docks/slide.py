"""Slide dock: open a slide or a measured section, and see at once whether pixel size and tissue are right."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.QtWidgets import (
    QCheckBox,
    QFileDialog,
    QGroupBox,
    QHBoxLayout,
    QLabel,
    QMessageBox,
    QPushButton,
    QVBoxLayout,
    QWidget,
)
from superqt import QCollapsible

from napari_he2st.core.errors import MissingMppError
from napari_he2st.engine.session import SlideItem
from napari_he2st.gui.docks.base import Dock
from napari_he2st.gui.docks.data_sets import DataSetsSection
from napari_he2st.gui.docks.measured import Loaded, MeasuredSection, fitted, on_its_slide
from napari_he2st.gui.docks.registration import RegistrationSection
from napari_he2st.gui.layers import warm_up
from napari_he2st.gui.widgets.combo import Combo
from napari_he2st.gui.widgets.facts import Facts
from napari_he2st.gui.widgets.pixel_size import PixelSizeForm

if TYPE_CHECKING:
    import napari.viewer

    from napari_he2st.data.slides import Slide
    from napari_he2st.data.truth import Detection, Section

_EMPTY = (
    "Open an H&E slide, or a folder or h5ad file of measured spatial transcriptomics. "
    "You can also drop it on the canvas."
)


class SlideDock(Dock):
    """Open slides and measured sections; show what is known of them."""

    def __init__(self, viewer: napari.viewer.Viewer) -> None:
        super().__init__(viewer)
        self._asking: Callable[[float], None] | None = None
        self.hint = QLabel(_EMPTY)
        self.hint.setWordWrap(True)
        self.sample_button = QPushButton("Open the sample section")
        self.sample_button.setToolTip("A breast tumour section with measured expression, to try everything with")
        self.sample_button.clicked.connect(lambda *_: self.open_sample())
        self.slides = Combo("The slide that all docks work on")
        self.slides.activated.connect(lambda _: self.session.select(slide=self.slides.currentText()))
        self.close_button = QPushButton("Close slide")
        self.close_button.setToolTip("Close this slide with its results")
        self.close_button.clicked.connect(lambda *_: self._close())
        self.pixel_size = PixelSizeForm()
        self.pixel_size.hide()
        self.pixel_size.chosen.connect(self._mpp_chosen)
        self.body.addWidget(self.hint)
        self.body.addWidget(self.sample_button)
        row = QHBoxLayout()
        row.addWidget(self.slides, 1)
        row.addWidget(self.close_button)
        self.body.addLayout(row)
        self.body.addWidget(self.pixel_size)
        self.body.addWidget(self._slide_box())
        self.measured = MeasuredSection(self, self.ask_mpp)
        self.registration = RegistrationSection(self)
        self.data_sets = DataSetsSection(self, self.measured)
        self.body.addWidget(self.measured)
        self.body.addWidget(_folded("Register by landmarks", self.registration))
        self.body.addWidget(_folded("Public data sets", self.data_sets))
        self.add_button(
            "Open file…", "Open a slide (svs, tif, ndpi, mrxs, dcm, jpg …) or an h5ad file", self._pick_file
        )
        self.add_button("Open folder…", "Open a folder of measured spatial transcriptomics", self._pick_folder)
        self.listen(self.session.slide_added, self._show_tissue)
        self.listen(self.session.slide_removed, self._show)
        self.listen(self.session.slide_changed, self._show)
        self.listen(self.session.selection_changed, self._show)
        self.listen(self.session.result_moved, self._check_again)
        self._show()

    def _slide_box(self) -> QGroupBox:
        self.slide_box = QGroupBox("Slide")
        self.facts = Facts()
        self.mpp_button = QPushButton("Change pixel size…")
        self.mpp_button.setToolTip("State micrometres per pixel yourself; possible as long as there are no results")
        self.mpp_button.clicked.connect(lambda *_: self._ask_other_mpp())
        self.outline = QCheckBox("Show outline of the tissue")
        self.outline.setToolTip("Only tissue is predicted; check that the outline follows it")
        self.outline.toggled.connect(self._show_outline)
        self.tissue_warning = QLabel()
        self.tissue_warning.setWordWrap(True)
        layout = QVBoxLayout(self.slide_box)
        for widget in (self.facts, self.tissue_warning, self.outline, self.mpp_button):
            layout.addWidget(widget)
        return self.slide_box

    # --- opening

    def _pick_file(self) -> None:
        path, _ = QFileDialog.getOpenFileName(self, "Open a slide or measured expression")
        if path:
            self.open(path)

    def _pick_folder(self) -> None:
        path = QFileDialog.getExistingDirectory(self, "Open measured spatial transcriptomics")
        if path:
            self.open(path)

    def open(self, path: str | Path, *, mpp: float | None = None) -> None:
        """Open a slide, or look what measured expression a folder or h5ad file holds."""
        path = Path(path)
        self.pixel_size.hide()
        if path.is_dir() or path.suffix.lower() == ".h5ad":
            self.run(_detect, path, name=f"Looking at {path.name}", on_done=self.measured.detected)
        else:
            self.run(_open, path, mpp, name=f"Opening {path.name}", on_done=self._opened)

    def open_sample(self) -> None:
        """Open the section that ships with the package."""
        self.run(_read_sample, name="Opening the sample section", on_done=self.measured.show_loaded)

    def add_section(self, section: Section, slide: Slide) -> None:
        """Show a measured section on its slide, once it is known how well they fit."""
        self.run(fitted, section, slide, name=f"Checking {section.name}", on_done=self.measured.show_loaded)

    def _opened(self, slide: Slide | dict[str, Any]) -> None:
        if not isinstance(slide, dict):
            self.session.add_slide(slide)
            return
        path = Path(slide["path"])
        text = f"{path.name} does not say how large its pixels are."
        self.ask_mpp(text, lambda mpp: self.open(path, mpp=mpp))

    def _ask_other_mpp(self) -> None:
        item = self.session.current_slide
        if item is None:
            return
        self._asking = lambda mpp: self._reopen(item, mpp)
        self.pixel_size.ask(f"Pixel size of {item.name}, now {item.slide.mpp:.4g} µm.", item.slide.mpp)

    def _reopen(self, item: SlideItem, mpp: float) -> None:
        def replace(slide: Slide) -> None:
            self.session.remove_slide(item.name)
            self.session.add_slide(slide)

        self.run(_open, item.slide.path, mpp, name=f"Opening {item.name} again", on_done=replace)

    def _mpp_chosen(self, mpp: float) -> None:
        self.pixel_size.hide()
        self.say("")
        if self._asking is not None:
            self._asking(mpp)

    def _close(self) -> None:
        item = self.session.current_slide
        if item is None:
            return
        results = [r.title for r in self.session.results.values() if r.slide == item.name]
        question = f"Close {item.name} with {', '.join(results)}? What is not exported is lost."
        if not results or QMessageBox.question(self, "Close slide", question) == QMessageBox.StandardButton.Yes:
            self.session.remove_slide(item.name)

    # --- what is known of the slide

    def _show(self) -> None:
        item = self.session.current_slide
        for widget in (self.hint, self.sample_button):
            widget.setVisible(item is None)
        self.slides.clear()
        self.slides.addItems(list(self.session.slides))
        self.slides.setCurrentText(self.session.slide or "")
        for widget in (self.slides, self.close_button, self.slide_box):
            widget.setVisible(item is not None)
        if item is None:
            return
        self.facts.show_facts(_slide_facts(item))
        self.mpp_button.setEnabled(all(r.slide != item.name for r in self.session.results.values()))
        warning = None if item.mask is None else item.mask.warning
        self.tissue_warning.setText(warning or "")
        self.tissue_warning.setVisible(bool(warning))
        self.outline.setEnabled(item.mask is not None)
        self.measured.show_fit()
        self.registration.update_fit()

    def _check_again(self, result: str) -> None:
        self.measured.check_again(result)
        self.registration.update_fit()

    def ask_mpp(self, text: str, then: Callable[[float], None]) -> None:
        """Ask for the pixel size, and go on with it."""
        self._asking = then
        self.pixel_size.ask(text)
        self.say("Waiting for the pixel size.")

    def _show_tissue(self, name: str) -> None:
        self._show()
        self.with_mask(self.session.slides[name], lambda _: self._show_outline(self.outline.isChecked()))

    def _show_outline(self, on: bool) -> None:
        if self.session.slide is not None:
            self.layers.show_mask(self.session.slide, on)


def _folded(title: str, content: QWidget) -> QCollapsible:
    """A part of the dock that is opened when it is needed."""
    box = QCollapsible(title)
    box.addWidget(content)
    box.collapse(animate=False)
    return box


def _slide_facts(item: SlideItem) -> dict[str, str]:
    slide = item.slide
    width, height = slide.size
    mm = f"{width * slide.mpp / 1000:.1f} × {height * slide.mpp / 1000:.1f} mm"
    tissue = "…" if item.mask is None else f"{item.mask.fraction:.0%} of the image ({item.mask.method})"
    return {
        "Format": slide.format,
        "Size": f"{width:,} × {height:,} px, {mm}",
        "Pixel size": f"{slide.mpp:.4g} µm ({slide.mpp_source})",
        "Tissue": tissue,
    }


# --- in a worker


def _detect(path: Path) -> Detection:
    from napari_he2st.data.truth import detect

    return detect(path)


def _open(path: Path, mpp: float | None) -> Slide | dict[str, Any]:
    """The slide, or what is known of it if its pixel size is not."""
    from napari_he2st.data.slides import Slide, probe

    try:
        return warm_up(Slide.open(path, mpp=mpp))
    except MissingMppError:
        return {**probe(path), "path": str(path)}


def _read_sample() -> Loaded:
    from napari_he2st.data.samples import sample_section

    return on_its_slide(sample_section())

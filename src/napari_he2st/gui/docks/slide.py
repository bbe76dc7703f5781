"""Slide dock: open a slide or a measured section, and see at once whether pixel size and tissue are right."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
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
from superqt.utils import signals_blocked

from napari_he2st.core.errors import MissingMppError
from napari_he2st.engine.session_items import SlideItem
from napari_he2st.gui.docks.base import Dock
from napari_he2st.gui.docks.data_sets import DataSetsSection
from napari_he2st.gui.docks.measured import Loaded, MeasuredSection, fitted, on_its_slide
from napari_he2st.gui.docks.nuclei_box import NucleiBox
from napari_he2st.gui.docks.recovery_box import RecoveryBox
from napari_he2st.gui.docks.registration import RegistrationSection
from napari_he2st.gui.layers import warm_up
from napari_he2st.gui.pixel_size_question import PixelSizeQuestion
from napari_he2st.gui.view_panel import ViewPanel, thumbnail_of
from napari_he2st.gui.widgets.facts import Facts
from napari_he2st.gui.widgets.pixel_size import PixelSizeForm
from napari_he2st.gui.widgets.slide_list import SlideList
from napari_he2st.gui.widgets.tissue_form import TissueForm

if TYPE_CHECKING:
    import napari.viewer

    from napari_he2st.data.slides import Slide
    from napari_he2st.data.slides.tissue import TissueMask
    from napari_he2st.data.truth import Detection, Section

_EMPTY = (
    "Open an H&E slide, or a folder or h5ad file of measured spatial transcriptomics. "
    "You can also drop it on the canvas."
)


class SlideDock(Dock):
    """Open slides and measured sections; show what is known of them."""

    def __init__(self, viewer: napari.viewer.Viewer) -> None:
        super().__init__(viewer)
        self.hint = QLabel(_EMPTY)
        self.hint.setWordWrap(True)
        self.sample_button = QPushButton("Open the sample section")
        self.sample_button.setToolTip("A breast tumour section with measured expression, to try everything with")
        self.sample_button.clicked.connect(lambda *_: self.open_sample())
        self.slides = SlideList()
        self.slides.chosen.connect(lambda name: self.session.select(slide=name))
        self.view = ViewPanel(self)
        self.close_button = QPushButton("Close slide")
        self.close_button.setToolTip("Close this slide with its results")
        self.close_button.clicked.connect(lambda *_: self._close())
        self.pixel_size = PixelSizeForm()
        self.question = PixelSizeQuestion(self, self.pixel_size)
        self.recovery = RecoveryBox(self)
        self.body.addWidget(self.recovery)
        self.body.addWidget(self.hint)
        self.body.addWidget(self.sample_button)
        self.body.addWidget(self.slides)
        self.body.addWidget(self.pixel_size)
        self.body.addWidget(self.view)
        self.body.addWidget(self._slide_box())
        self.measured = MeasuredSection(self, self.ask_mpp)
        self.registration = RegistrationSection(self)
        self.data_sets = DataSetsSection(self, self.measured)
        self.body.addWidget(self.measured)
        self.nuclei = NucleiBox(self)
        self.body.addWidget(_folded("Nuclei", self.nuclei))
        self.body.addWidget(_folded("Register by landmarks", self.registration))
        self.body.addWidget(_folded("Public data sets", self.data_sets))
        self.add_button(
            "Open file…", "Open a slide (svs, tif, ndpi, mrxs, dcm, jpg …) or an h5ad file", self._pick_file
        )
        self.add_button("Open folder…", "Open a folder of measured spatial transcriptomics", self._pick_folder)
        self.listen(self.session.slide_added, self._slide_added)
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
        self.profile = QCheckBox("Colours by its ICC profile")
        self.profile.setToolTip(
            "Convert colours to sRGB by the profile in the file, for display and prediction; off takes them as stored"
        )
        self.profile.toggled.connect(self._profile_switched)
        self.outline = QCheckBox("Show outline of the tissue")
        self.outline.setToolTip("Only tissue is predicted; check that the outline follows it")
        self.outline.toggled.connect(self._show_outline)
        self.tissue_warning = QLabel()
        self.tissue_warning.setWordWrap(True)
        self.tissue = TissueForm()
        self.tissue.changed.connect(self._find_tissue_again)
        details = QCollapsible("How tissue is found")
        details.addWidget(self.tissue)
        layout = QVBoxLayout(self.slide_box)
        for widget in (self.facts, self.profile, self.tissue_warning, self.outline, details):
            layout.addWidget(widget)
        row = QHBoxLayout()
        row.addWidget(self.mpp_button)
        row.addWidget(self.close_button)
        layout.addLayout(row)
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
        from napari_he2st.data.slides import is_slide_folder

        path = Path(path)
        self.question.withdraw()
        if (path.is_dir() and not is_slide_folder(path)) or path.suffix.lower() == ".h5ad":
            self.run(_detect, path, name=f"Looking at {path.name}", on_done=self.measured.detected)
        else:
            self.run(_open, path, mpp, name=f"Opening {path.name}", on_done=self._opened)

    def open_sample(self) -> None:
        """Open the section that ships with the package."""
        self.run(_read_sample, name="Opening the sample section", on_done=self.measured.show_loaded)

    def add_section(self, section: Section, slide: Slide) -> None:
        """Show a measured section on its slide, once it is known how well they fit."""
        self.run(fitted, section, slide, name=f"Checking {section.name}", on_done=self.measured.show_loaded)

    def _opened(self, opened: tuple[Slide, bool]) -> None:
        slide, known = opened
        if not known:
            self.question.ask_unknown(slide, lambda mpp: self.open(slide.path, mpp=mpp))
            self.say("Waiting for the pixel size.")
        else:
            self.session.add_slide(slide)

    def _ask_other_mpp(self) -> None:
        item = self.session.current_slide
        if item is not None:
            measured = [r.grid for r in self.session.results.values() if r.slide == item.name and r.kind == "measured"]
            self.question.ask_again(item, measured[0] if measured else None, lambda mpp: self._reopen(item, mpp))

    def _reopen(self, item: SlideItem, mpp: float) -> None:
        def replace(opened: tuple[Slide, bool]) -> None:
            self.session.remove_slide(item.name)
            self.session.add_slide(opened[0])

        self.run(_open, item.slide.path, mpp, name=f"Opening {item.name} again", on_done=replace)

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
        self.slides.show_slides(self.session.slides, self.session.slide)
        self.slides.setVisible(len(self.session.slides) > 1)
        for widget in (self.view, self.slide_box):
            widget.setVisible(item is not None)
        self.view.show_current()
        if item is None:
            return
        self.facts.show_facts(_slide_facts(item))
        self.mpp_button.setEnabled(all(r.slide != item.name for r in self.session.results.values()))
        with signals_blocked(self.profile):
            self.profile.setChecked(bool(item.slide.profiled))
        self.profile.setVisible(item.slide.profiled is not None)
        warning = None if item.mask is None else item.mask.warning
        self.tissue_warning.setText(warning or "")
        self.tissue_warning.setVisible(bool(warning))
        self.outline.setEnabled(item.mask is not None)
        self.tissue.show_mask(item.mask)
        self.measured.show_fit()
        self.registration.update_fit()

    def _check_again(self, result: str) -> None:
        self.measured.check_again(result)
        self.registration.update_fit()

    def ask_mpp(self, text: str, then: Callable[[float], None]) -> None:
        """Ask for a pixel size, and go on with it."""
        self.question.ask_number(text, then)
        self.say("Waiting for the pixel size.")

    def _profile_switched(self, on: bool) -> None:
        item = self.session.current_slide
        if item is not None:
            self.session.set_profiled(item.name, on)
            self._look_at(item)

    def _slide_added(self, name: str) -> None:
        self._show()
        self._look_at(self.session.slides[name])

    def _look_at(self, item: SlideItem) -> None:
        """Find the tissue of a slide, and draw its overview."""
        name = item.name
        self.with_mask(item, lambda _: self._show_outline(self.outline.isChecked()))

        def seen(thumbnail: NDArray[np.uint8]) -> None:
            self.view.thumbnails[name] = thumbnail
            self.slides.show_thumbnail(name, thumbnail)
            self.view.show_current()

        self.run(thumbnail_of, item.slide, name="Drawing the overview", quiet=True, on_done=seen)

    def _find_tissue_again(self, params: dict[str, Any]) -> None:
        """Preview other parameters: the outline shows what they find."""
        item = self.session.current_slide
        if item is None:
            return

        def found(mask: TissueMask) -> None:
            if self.session.slides.get(item.name) is item:
                self.outline.setChecked(True)
                self.session.set_mask(item.name, mask)

        self.run(_tissue, item.slide, params, name="Finding the tissue", on_done=found)

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


def _open(path: Path | str, mpp: float | None) -> tuple[Slide, bool]:
    """The slide, and whether its pixel size is known: if not, it is open with 1 µm per pixel."""
    from napari_he2st.data.slides import Slide

    try:
        return warm_up(Slide.open(path, mpp=mpp)), True
    except MissingMppError:
        return warm_up(Slide.open(path, mpp=1.0)), False


def _tissue(slide: Slide, params: dict[str, Any]) -> TissueMask:
    from napari_he2st.data.slides.tissue import tissue_mask

    return tissue_mask(slide, **params)


def _read_sample() -> Loaded:
    from napari_he2st.data.samples import sample_section

    return on_its_slide(sample_section())

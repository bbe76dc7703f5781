"""Measured expression in the Slide dock: what a folder holds, how well a section fits its image, and the remedy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from qtpy.QtCore import Qt
from qtpy.QtGui import QImage, QPixmap
from qtpy.QtWidgets import QCheckBox, QGroupBox, QHBoxLayout, QLabel, QPushButton, QVBoxLayout, QWidget

from napari_he2st.core.errors import MissingTruthMppError, TruthError
from napari_he2st.core.schema import facts_of
from napari_he2st.gui.layers import warm_up
from napari_he2st.gui.widgets.combo import Combo
from napari_he2st.gui.widgets.facts import Facts

if TYPE_CHECKING:
    from anndata import AnnData

    from napari_he2st.data.slides import Slide
    from napari_he2st.data.slides.tissue import TissueMask
    from napari_he2st.data.truth import Detection, Section
    from napari_he2st.data.truth.fit import Fit
    from napari_he2st.engine.session_items import Made, Result
    from napari_he2st.gui.docks.base import Dock

_PICTURE_PX = 100  # of one panel without its margin: two stand beside each other in the narrowest dock


@dataclass(frozen=True)
class Checked:
    """The fit of a section, and the picture of it."""

    fit: Fit
    picture: NDArray[np.uint8]


@dataclass(frozen=True)
class Loaded:
    """A measured section with the slide it lies on, which may be one that was open already."""

    section: Section
    slide: Slide
    mask: TissueMask
    checked: Checked
    on_current: bool = False


class MeasuredSection(QGroupBox):
    """Choose and load a section; see its fit and correct it.

    Parameters
    ----------
    dock
        The dock it is part of: runs the work, knows the session.
    ask_mpp
        Asks the user for a pixel size, and calls back with it.
    """

    def __init__(self, dock: Dock, ask_mpp: Callable[[str, Callable[[float], None]], None]) -> None:
        super().__init__("Measured expression")
        self._dock, self._session, self._ask_mpp = dock, dock.session, ask_mpp
        self._detection: Detection | None = None
        self._checked: dict[str, Checked] = {}
        self._warnings: dict[str, list[str]] = {}
        self.facts = Facts()
        self.sections = Combo("Section to load")
        self.load_button = QPushButton("Load section")
        self.load_button.setToolTip("Read the counts of this section and show them on its image")
        self.load_button.clicked.connect(lambda *_: self.load())
        self.on_current = QCheckBox("Place it on the open slide")
        self.on_current.setToolTip("For sections whose own image is not there: their pixels are those of this slide")
        self.choice = QWidget()
        row = QHBoxLayout(self.choice)
        row.setContentsMargins(0, 0, 0, 0)
        row.addWidget(self.sections, 1)
        row.addWidget(self.load_button)
        self.fit = QLabel()
        self.fit.setWordWrap(True)
        self.fit.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self.picture = QLabel()
        self.picture.setToolTip(
            "Spots on tissue are blue, others orange; the outline of the tissue is green. "
            "On the right, where there is one, the spots after the proposed correction"
        )
        self.correct_button = QPushButton("Correct")
        self.correct_button.clicked.connect(lambda *_: self.correct())
        self.undo_button = QPushButton("Undo")
        self.undo_button.setToolTip("Take back the last change of the spot positions")
        self.undo_button.clicked.connect(lambda *_: self.undo())
        layout = QVBoxLayout(self)
        for widget in (self.facts, self.choice, self.on_current, self.fit, self.picture):
            layout.addWidget(widget)
        remedies = QHBoxLayout()
        remedies.addWidget(self.correct_button, 1)
        remedies.addWidget(self.undo_button)
        layout.addLayout(remedies)
        for widget in (self, self.choice, self.on_current, self.correct_button, self.undo_button):
            widget.hide()

    # --- loading

    def detected(self, detection: Detection) -> None:
        """Show what a folder holds; a lone section is loaded at once."""
        self._detection = detection
        self.show()
        self._show_facts(detection.layout, detection.root, detection.found, detection.missing)
        self.fit.setText("")
        self.picture.hide()
        self.sections.clear()
        self.sections.addItems(detection.sections)
        if detection.default is not None:
            self.sections.setCurrentText(detection.default)
        self.choice.show()
        self.on_current.setVisible(self._session.current_slide is not None)
        self.on_current.setChecked(False)
        if len(detection.sections) == 1:
            self.load()

    def load(self, mpp: float | None = None) -> None:
        """Read the chosen section, with a pixel size that the user states."""
        if self._detection is None:
            return
        item, name = self._session.current_slide, self.sections.currentText()
        current = None if item is None else item.slide
        asked = self._detection.root, name, self._detection.layout, current, self.on_current.isChecked(), mpp
        self._dock.run(read_measured, *asked, name=f"Reading {name}", on_done=self._read)

    def _read(self, loaded: Loaded | str) -> None:
        if isinstance(loaded, Loaded):
            self.show_loaded(loaded)
        else:
            self._ask_mpp(loaded, self.load)

    def show_loaded(self, loaded: Loaded) -> None:
        """Add a section to the session, and say how well it fits."""
        item = self._session.add_slide(loaded.slide)
        if item.mask is None:
            self._session.set_mask(item.name, loaded.mask)
        section, fit = loaded.section, loaded.checked.fit
        self.show()
        self._show_facts(section.layout, None, section.found, section.missing)
        if fit.message is not None:
            self._dock.warn(fit.message)
        warnings = () if fit.message is None else (fit.message,)
        more: dict[str, Any] = {"warnings": warnings, "made": _made(loaded)}
        result = self._session.add_adata(section.adata, item.name, name=section.name, **more)
        self._warnings[result.name] = section.warnings
        self._checked[result.name] = loaded.checked
        self.show_fit()

    # --- fit

    def show_fit(self) -> None:
        """Show the fit of the current measured result."""
        result = self._session.current_result
        if result is None or result.name not in self._checked:
            return
        checked, fit = self._checked[result.name], self._checked[result.name].fit
        known = f"{result.name}: {fit.n:,} spots × {len(result.genes):,} genes"
        self.fit.setText(
            f"{known}, {fit.on_tissue:.0%} on tissue." if fit.message is None else f"{known}. {fit.message}"
        )
        height, width, _ = checked.picture.shape
        image = QImage(checked.picture.data, width, height, 3 * width, QImage.Format.Format_RGB888)
        self.picture.setPixmap(QPixmap.fromImage(image))
        self.picture.show()
        self.correct_button.setVisible(fit.correction is not None)
        if fit.correction is not None:
            self.correct_button.setText(f"Correct: {fit.correction.said}")
            tip = f"Moves the spots; {fit.correction.on_tissue:.0%} will lie on tissue. The counts stay as they are"
            self.correct_button.setToolTip(tip)
        self.undo_button.setVisible(self._session.n_moves(result.name) > 0)

    def fit_of(self, result: str) -> Fit | None:
        """The fit of a result that was loaded here, or None."""
        checked = self._checked.get(result)
        return None if checked is None else checked.fit

    def correct(self) -> None:
        """Move the spots of the current result as the check proposes."""
        result = self._session.current_result
        checked = None if result is None else self._checked.get(result.name)
        if result is not None and checked is not None and checked.fit.correction is not None:
            self._session.move_spots(result.name, checked.fit.correction.transform, checked.fit.correction.said)

    def undo(self) -> None:
        """Take back the last move of the current result's spots."""
        if self._session.result is not None:
            self._session.undo_move(self._session.result)

    def check_again(self, name: str) -> None:
        """Check the fit of a result whose spots were moved."""
        result = self._session.results[name]
        item = self._session.slides[result.slide]
        if item.mask is None or name not in self._checked:
            return
        task = "Checking the fit"
        warnings = self._warnings.get(name, [])
        self._dock.run(
            check, result.adata, item.slide, item.mask, warnings, name=task, quiet=True,
            on_done=lambda checked: self._checked_again(result, checked),
        )  # fmt: skip

    def _checked_again(self, result: Result, checked: Checked) -> None:
        self._checked[result.name] = checked
        result.warnings = [] if checked.fit.message is None else [checked.fit.message]
        self.show_fit()

    def _show_facts(self, layout: str, root: Path | None, found: list[str], missing: list[str]) -> None:
        facts = {"Layout": layout, "Folder": "" if root is None else root.name}
        self.facts.show_facts({**facts, "Found": ", ".join(found), "Missing": ", ".join(missing)})


def _made(loaded: Loaded) -> Made | None:
    """How a section can be read again."""
    from napari_he2st.engine.session_items import Made

    section, slide = loaded.section, loaded.slide
    if section.root is None:
        return None
    told = {"path": str(section.root.resolve()), "name": section.name, "layout": section.layout, "mpp": slide.mpp}
    return Made("read_truth", {**told, "image": str(slide.path)} if loaded.on_current else told)


# --- in a worker


def read_measured(
    root: Path, name: str, layout: str, current: Slide | None, on_current: bool, mpp: float | None
) -> Loaded | str:
    """A section on the image of its layout, or on the current slide if that is wanted or it was predicted from it.

    Returns
    -------
        What to ask the user instead, where only the pixel size is missing.

    Raises
    ------
    TruthError
        The section comes without an image and is not to be placed on an open slide, or there is none.
    """
    from napari_he2st.data.truth import read_section

    try:
        section = None if on_current else read_section(root, name, layout=layout, mpp=mpp, stand_in=True)
    except MissingTruthMppError as error:
        return f"{error.what}. {error.todo}."
    if current is not None and (section is None or _is_of(section, current)):
        section = read_section(root, name, layout=layout, image=current.path, mpp=current.mpp)
        return replace(fitted(section, current), on_current=True)
    if section is None:
        raise TruthError("There is no open slide to place the section on", where=name)
    return on_its_slide(section)


def _is_of(section: Section, slide: Slide) -> bool:
    return facts_of(section.adata).get("slide_fingerprint") == slide.fingerprint


def on_its_slide(section: Section) -> Loaded:
    """A section with its own slide."""
    return fitted(section, slide_of(section))


def slide_of(section: Section) -> Slide:
    """The slide that a section lies on, with the pixel size that the section tells.

    Raises
    ------
    TruthError
        The section comes without an image.
    SlideError
        Its image cannot be opened.
    """
    from napari_he2st.data.slides import Slide

    if section.slide_path is None:
        todo = "Open the slide it was measured on, tick 'Place it on the open slide', and load it again"
        raise TruthError("This section comes without an image", where=section.name, todo=todo)
    return warm_up(Slide.open(section.slide_path, mpp=float(facts_of(section.adata)["mpp"]), name=section.name))


def fitted(section: Section, slide: Slide) -> Loaded:
    """A section on a slide, with the tissue and the fit."""
    from napari_he2st.data.slides.tissue import tissue_mask

    mask = tissue_mask(slide)
    return Loaded(section, slide, mask, check(section.adata, slide, mask, section.warnings))


def check(adata: AnnData | Any, slide: Slide, mask: TissueMask, warnings: Sequence[str]) -> Checked:
    """The fit of measured spots on a slide, and its picture."""
    from napari_he2st.data.truth.fit import check_fit
    from napari_he2st.data.truth.fit_picture import fit_picture

    fit = check_fit(adata, mask, warnings=warnings)
    side_px = _PICTURE_PX if fit.correction is not None else 2 * _PICTURE_PX
    return Checked(fit, fit_picture(adata, mask, fit, slide.thumbnail(512), side_px=side_px))

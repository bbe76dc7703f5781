"""Public data sets in the Slide dock: what there is, and how it comes here."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QHBoxLayout, QLabel, QPushButton, QVBoxLayout, QWidget

from napari_he2st.core.progress import Control
from napari_he2st.data.truth.catalogue import Dataset, catalogue
from napari_he2st.gui.widgets.combo import Combo
from napari_he2st.gui.widgets.facts import Facts

if TYPE_CHECKING:
    from napari_he2st.data.truth import Detection
    from napari_he2st.gui.docks.base import Dock
    from napari_he2st.gui.docks.measured import MeasuredSection


class DataSetsSection(QWidget):
    """Choose a public data set; download it, or see where to put it; open it.

    Parameters
    ----------
    dock
        The dock it is part of.
    measured
        Where the sections of a set are shown.
    """

    def __init__(self, dock: Dock, measured: MeasuredSection) -> None:
        super().__init__()
        self._dock, self._measured = dock, measured
        self.names = Combo("Public data sets of spatial transcriptomics with H&E")
        self.names.addItems(list(catalogue()))
        self.names.currentTextChanged.connect(lambda *_: self.show_chosen())
        self.facts = Facts()
        self.place = QLabel()
        self.place.setWordWrap(True)
        self.place.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self.get_button = QPushButton("Download")
        self.get_button.clicked.connect(lambda *_: self.get())
        self.open_button = QPushButton("Open")
        self.open_button.setToolTip("List the sections that lie on this machine")
        self.open_button.clicked.connect(lambda *_: self.open())
        buttons = QHBoxLayout()
        buttons.addWidget(self.get_button)
        buttons.addWidget(self.open_button)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        for widget in (self.names, self.facts, self.place):
            layout.addWidget(widget)
        layout.addLayout(buttons)
        self.show_chosen()

    @property
    def chosen(self) -> Dataset:
        """The chosen data set."""
        return catalogue()[self.names.currentText()]

    def show_chosen(self) -> None:
        """Show what is known of the chosen set."""
        entry = self.chosen

        def number(value: int | None) -> str:
            return "unknown" if value is None else f"{value:,}"

        self.facts.show_facts(
            {
                "Title": entry.title,
                "Tissue": f"{entry.organ}, {entry.species}",
                "Technology": f"{entry.technology}, per {entry.resolution}",
                "Size": f"{number(entry.slides)} slides, {number(entry.spots)} spots",
                "Licence": entry.licence or "unknown",
                "Cite": entry.citation,
                "Address": entry.address,
            }
        )
        here = entry.folder.is_dir()
        self.place.setText(f"{'Lies in' if here else 'Put it into'} {entry.folder}. {entry.place}")
        self.get_button.setEnabled(bool(entry.files))
        size = f"{(entry.bytes or 0) / 1e6:,.0f} MB in {len(entry.files)} files"
        self.get_button.setToolTip(f"Download {size}" if entry.files else "It has to be fetched by hand")
        self.open_button.setEnabled(here)

    def get(self) -> None:
        """Download the chosen set; what was cut off goes on."""
        control = Control()
        name = f"Downloading {self.chosen.name}"
        task = self._dock.run(
            self.chosen.fetch, control, name=name, control=control, can_pause=True,
            on_done=lambda _: self.open(), on_end=self.show_chosen,
        )  # fmt: skip
        self._dock.status.watch(task, can_pause=True)

    def open(self) -> None:
        """Show the sections of the chosen set."""
        self._dock.run(_detect, self.chosen, name=f"Looking at {self.chosen.name}", on_done=self._measured.detected)


def _detect(entry: Dataset) -> Detection:
    return entry.detect()

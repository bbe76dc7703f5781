"""Drive the real window through domains and a stack, and keep the pictures of docs/howto/domains.md.

``HE2ST_DATA=FOLDER python docs/domains.py --out docs/images`` needs a display (``xvfb-run`` will do).
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import numpy as np
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QScrollArea

from napari_he2st.data.truth import read_section
from napari_he2st.gui.docks.measured import slide_of
from tour import Tour

SECTIONS = ("C2", "C3", "C4", "C5")


def open_sections(tour: Tour) -> None:
    """Serial sections of one tumour."""
    dock = tour.dock("Slide")
    for name in SECTIONS:
        section = read_section(Path(os.environ["HE2ST_DATA"]) / "her2st", name)
        dock.add_section(section, slide_of(section))
        tour.wait(lambda name=name: name in tour.session.results, f"{name} opens")


def show_alike_spots(tour: Tour) -> None:
    """Domains, and a lasso around the middle of the first one among the alike spots."""
    tour.session.select(slide=tour.session.results[SECTIONS[0]].slide, result=SECTIONS[0])
    dock = tour.dock("Domains")
    dock.n_domains.setValue(5)
    dock.button.click()
    tour.wait(lambda: SECTIONS[0] in tour.session.domains, "domains are found")
    dock.views.setCurrentWidget(dock.views.map)
    tour.wait(lambda: dock.views.map.n > 0, "spots are laid out")
    own = dock.views.map.places[tour.session.domains[SECTIONS[0]].labels == 0]
    (left, low), (right, high) = np.quantile(own, [0.1, 0.9], axis=0)
    dock.views.map.choose_within(np.array([(left, low), (left, high), (right, high), (right, low)]))
    tour.idle(0.5)
    bar = dock.findChild(QScrollArea).verticalScrollBar()
    bar.setValue(bar.maximum())
    tour.keep("domains-alike")


def show_shared(tour: Tour) -> None:
    """Domains that the first two sections share, on the second one."""
    dock = tour.dock("Domains")
    tour.session.select(slide=tour.session.results[SECTIONS[0]].slide, result=SECTIONS[0])
    dock.method.combo.setCurrentText("staig")
    tour.wait(lambda: "n_looks" in dock.method.options.names, "the method loads")
    dock.method.options.set_values(epochs=100)
    dock.n_domains.setValue(4)
    dock.together.expand()
    dock.others.item(0).setCheckState(Qt.CheckState.Checked)
    dock.button.click()
    tour.wait(lambda: SECTIONS[1] in tour.session.domains, "two sections are grouped together")
    tour.session.select(slide=tour.session.results[SECTIONS[1]].slide, result=SECTIONS[1])
    tour.wait(lambda: not dock.busy, "spots are laid out")
    dock.findChild(QScrollArea).verticalScrollBar().setValue(0)
    tour.idle(0.5)
    tour.keep("domains-shared")


def show_stack(tour: Tour) -> None:
    """All sections in three dimensions."""
    dock = tour.dock("Stack")
    for row in range(dock.sections.count()):
        dock.sections.item(row).setCheckState(Qt.CheckState.Checked)
    dock.spacing.setValue(400.0)
    dock.by_gene.setChecked(True)
    dock.button.click()
    tour.wait(lambda: dock.stacked is not None, "sections are aligned")
    tour.viewer.scene.camera.angles = (-25.0, 35.0, 130.0)
    tour.keep("stack")


def main() -> None:
    """Take the pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("docs/images"), help="folder of the pictures")
    parser.add_argument("--timeout", type=float, default=600, help="seconds that one step may take")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    tour = Tour(given.out, given.timeout)
    for step in (open_sections, show_alike_spots, show_shared, show_stack):
        step(tour)
    tour.viewer.close()


if __name__ == "__main__":
    main()

"""Open every measured section below a folder in the real window, and keep pictures of their fit.

``python docs/fits.py FOLDER --out docs/images`` needs a display (``xvfb-run`` will do). It prints one line per
section: layout, spots, genes, fit, or why it cannot be shown.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import napari
from qtpy.QtWidgets import QApplication

from napari_he2st.core.errors import He2stError
from napari_he2st.data.truth import read_section
from napari_he2st.gui.docks.measured import slide_of
from napari_he2st.gui.workspace import dock_of, open_docks, session_of

SIZE_PX = (1366, 768)
TIMEOUT_S = 120


@dataclass(frozen=True)
class Item:
    """A section of the developers' data, what has to be said of it, and the picture to keep."""

    path: str
    section: str | None = None
    mpp: float | None = None
    image: str | None = None
    image_scale: float | None = None
    picture: str | None = None


ITEMS = (
    Item("her2st", "B4"),
    Item("her2st", "C2"),
    Item("her2st", "C3"),
    Item("her2st", "C4"),
    Item("her2st", "C5", picture="fit-good"),
    Item("her2st", "A1", image="her2st/app/A1_HE_image_dark.png", image_scale=2000 / 6954),
    Item("her2st", "A2", image="her2st/app/A2_HE_image_dark.png", image_scale=2000 / 6966, picture="fit-shifted"),
    Item("st_mouse_olfactory_bulb_2k", "MOB1"),
    Item("st_mouse_olfactory_bulb_2k", "MOB2"),
    Item("st_mouse_olfactory_bulb_2k", "MOB3"),
    Item("visium_v1_mouse_brain_100genes", picture="fit-visium"),
    Item("visium_v1_mouse_muscle"),
    Item("visium_v2_cytassist_mouse"),
    Item("visium_layout_samples/scanpy/1.0.0"),
    Item("visium_layout_samples/seurat/visium"),
    Item("visium_layout_samples/VisiumIO/10xVisium", "section1"),
    Item("visium_layout_samples/VisiumIO/10xVisium", "section2"),
    Item("visium_layout_samples/squidpy/test_data.h5ad", mpp=0.73),
    Item("visium_layout_samples/scanpy/2.1.0"),
    Item("visium_hd_layout_samples/seurat", "square_016um", picture="fit-barcodes"),
    Item("visium_hd_layout_samples/seurat", "square_008um"),
    Item("visium_hd_layout_samples/VisiumIO"),
    Item("visium_hd_layout_samples/FineST_CRC"),
    Item("xenium_hest_NCBI858_lung", mpp=2.124, picture="fit-exchanged"),
    Item("xenium_layout_samples/MoleculeExperiment_mouse_brain/sample1"),
    Item("xenium_layout_samples/SpatialExperimentIO_breast", mpp=0.2125),
    Item("cosmx_lung/CosMx_small", mpp=0.18),
    Item("cosmx_lung/Lung12_mini", mpp=0.18),
    Item("merscope/MERSCOPE_small"),
    Item("merscope/vpt/smallset"),
    Item("merscope/vizgen_HumanOvarianCancerPatient2Slice2"),
    Item("spatialdata_zarr_xenium_points/xenium_rep1_io.points_only.spatialdata.zarr"),
    Item("dlpfc_visium_layers/151507"),
    Item("visium_v1_chicken_heart_regions"),
    Item("visium_mouse_brain_anterior_100spots/converted", mpp=9.68),
)


class Window:
    """The window with the Slide dock."""

    def __init__(self) -> None:
        self.viewer = napari.Viewer(show=True, title="napari-he2st")
        self.viewer.window.resize(*SIZE_PX)
        open_docks(self.viewer)
        self.dock = dock_of(self.viewer, "Slide")
        self.session = session_of(self.viewer)

    def wait(self, until: Callable[[], bool]) -> None:
        """Let the window work until something is so."""
        end = time.monotonic() + TIMEOUT_S
        while not until():
            if time.monotonic() > end:
                raise TimeoutError
            self.idle(0.05)

    def idle(self, seconds: float) -> None:
        """Let the window work for a while."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            QApplication.processEvents()
            time.sleep(0.005)

    def show(self, item: Item, data: Path) -> str:
        """Open one item, and say how it fits."""
        image = None if item.image is None else data / item.image
        section = read_section(
            data / item.path, item.section, mpp=item.mpp, image=image, image_scale=item.image_scale, stand_in=True
        )
        known = f"{section.layout:15} {section.adata.n_obs:>6} × {section.adata.n_vars:<6}"
        if section.slide_path is None:
            return f"{known} no image to fit"
        self.dock.add_section(section, slide_of(section))
        self.wait(lambda: bool(self.session.results) and not self.dock.busy)
        fit = self.dock.measured.fit_of(self.session.result)
        return f"{known} {fit.on_tissue:4.0%} on tissue: {fit.message or 'fits'}"

    def keep(self, path: Path) -> None:
        """Take a picture of the whole window."""
        self.idle(2.0)
        self.viewer.screenshot(str(path), canvas_only=False, flash=False)

    def clear(self) -> None:
        """Close what is open."""
        for name in list(self.session.slides):
            self.session.remove_slide(name)
        self.idle(0.1)


def main() -> None:
    """Open all items, one after another."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, help="folder of the developers' sections")
    parser.add_argument("--out", type=Path, required=True, help="folder for the pictures")
    parser.add_argument("--pictures", action="store_true", help="open only the sections whose picture is kept")
    arguments = parser.parse_args()
    window = Window()
    for item in ITEMS:
        label = item.path if item.section is None else f"{item.path}:{item.section}"
        if arguments.pictures and item.picture is None:
            continue
        try:
            said = window.show(item, arguments.data)
        except He2stError as error:
            said = f"refused: {error.what}"
        print(f"{label:70} {said}", flush=True)
        if item.picture is not None:
            window.keep(arguments.out / f"{item.picture}.png")
        window.clear()


if __name__ == "__main__":
    main()

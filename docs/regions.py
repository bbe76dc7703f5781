"""Regions and the tissue behind a gene on the sample section, in the real window.

``python docs/regions.py --out docs/images`` needs a display (``xvfb-run`` will do).
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from napari_he2st.core.geometry import world_from_level0
from napari_he2st.gui.extremes import ExtremesDialog
from napari_he2st.gui.regions import RegionsDialog
from napari_he2st.gui.workspace import layers_of
from tour import Tour


class RegionTour(Tour):
    """Draws two regions, around the highest and the lowest spots of a gene."""

    def open(self) -> None:
        """The sample with its measured expression."""
        self.dock("Slide").open_sample()
        self.wait(lambda: bool(self.session.results), "the sample opens")
        self.session.select(gene="ERBB2")
        self.genes_dock = self.dock("Genes")
        self.wait(lambda: not self.genes_dock.busy, "genes are summarised")

    def regions(self) -> None:
        """Two regions, where the gene is highest and lowest; measured and compared."""
        result = self.session.current_result
        shapes = layers_of(self.viewer).draw_regions(result.slide)
        values, xy = result.column(self.session.gene), result.grid.xy
        nearest = np.argsort(np.linalg.norm(xy[:, None] - xy, axis=2), axis=1)[:, :19]
        around = values[nearest].mean(axis=1)
        for row in (around.argmax(), around.argmin()):
            middle = xy[row]
            angle = np.linspace(0, 2 * np.pi, 24, endpoint=False)
            reach = 2.6 * result.grid.pitch_um / result.grid.mpp
            ring = middle + reach * np.stack([np.cos(angle), 0.8 * np.sin(angle)], axis=1)
            shapes.add(world_from_level0(ring, result.grid.mpp), shape_type="polygon")
        shapes.mode = "pan_zoom"
        self.genes_dock.regions.click()
        (dialog,) = self.genes_dock.findChildren(RegionsDialog)
        self.wait(lambda: dialog.table.rowCount() == 2, "regions are measured")
        for row, kind in enumerate(("Tumor", "Stroma")):
            dialog.table.item(row, 1).setText(kind)
            self.wait(lambda row=row, kind=kind: dialog.table.item(row, 1).text() == kind, "the class is kept")
            self.idle(0.5)
        camera = self.viewer.scene.camera
        camera.center = (*camera.center[:-1], camera.center[-1] + 1200)  # beside the dialog
        dialog.compare()
        self.wait(lambda: dialog.compared is not None, "regions are compared")
        self.keep_beside(dialog, "regions")
        dialog.close()

    def tiles(self) -> None:
        """The H&E of the highest and lowest spots, and a flight to one of them."""
        self.genes_dock.tiles.click()
        (dialog,) = self.genes_dock.findChildren(ExtremesDialog)
        self.wait(lambda: bool(dialog.rows), "tiles are read")
        dialog.go_to(0, 0)
        self.keep_beside(dialog, "tissue-behind-a-gene")
        dialog.close()

    def keep_beside(self, dialog, name: str) -> None:
        """Take a picture of the window with a dialog over its left half."""
        from qtpy.QtCore import QPoint
        from qtpy.QtGui import QPainter

        window = self.viewer.window._qt_window
        self.idle(1.0)
        picture = window.grab()
        painter = QPainter(picture)
        painter.drawPixmap(QPoint(picture.width() - dialog.width() - 12, 60), dialog.grab())
        painter.end()
        picture.save(str(self.folder / f"{name}.png"))
        print(f"  {name}.png")

    def run(self) -> None:
        """All steps in order."""
        for step in (self.open, self.regions, self.tiles):
            step()
        self.viewer.close()


def main() -> None:
    """Run the tour."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("docs/images"), help="folder for the pictures")
    parser.add_argument("--timeout", type=float, default=120, help="seconds that one step may take")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    RegionTour(arguments.out, arguments.timeout).run()


if __name__ == "__main__":
    main()

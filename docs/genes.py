"""The Genes dock on the sample section, in the real window: every way to look at genes.

``python docs/genes.py --out docs/images`` needs a display (``xvfb-run`` will do). ``--theme light`` and the environment
variable ``QT_SCALE_FACTOR=2`` show the dock in other conditions.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from qtpy.QtCore import Qt

from napari_he2st.gui.gallery import GalleryDialog
from napari_he2st.gui.widgets.fold import Fold
from regions import RegionTour

PITCH_UM = 100.0


class GeneTour(RegionTour):
    """Predicts the sample section, then looks at genes."""

    def predict(self) -> None:
        """A prediction with its predictor, to look at and to doubt."""
        predict = self.dock("Predict")
        self.wait(lambda: predict.run_button.isEnabled(), "the predictor loads")
        predict.where.pitch.setValue(PITCH_UM)
        self.wait(lambda: predict.run_button.isEnabled(), "tiles are timed")
        predict.run_button.click()
        results = self.session.results
        finished = lambda: any(r.kind == "predicted" and r.adata is not None for r in results.values())  # noqa: E731
        self.wait(finished, "the run ends")
        self.genes_dock = self.dock("Genes")
        self.wait(lambda: not self.genes_dock.busy, "genes are summarised")

    def fold(self, content) -> None:
        """Open one part of the dock and close the others."""
        for fold in self.genes_dock.findChildren(Fold):
            fold.set_open(fold.content is content)
        self.idle(0.3)
        self.genes_dock.reveal(content)

    def table(self) -> None:
        """A pasted list, a star, sorted by Moran's I."""
        genes = self.genes_dock.gene_list
        self.session.marks.set_favourites(["ERBB2"])
        genes.show_list("HER2 GRB7 KI67 CD3 CD20 VIM CD74 COL1A1 KRT8 ACTA2")
        genes.table.sortByColumn(3, Qt.SortOrder.DescendingOrder)
        self.keep("genes-table")

    def smooth(self) -> None:
        """A smooth map whose low values are hidden."""
        display = self.genes_dock.display
        display.smooth.setChecked(True)
        display.hide_low.setChecked(True)
        low, high = display.histogram.limits
        display.threshold.setValue(low + 0.6 * (high - low))
        self.keep("genes-smooth")
        display.hide_low.setChecked(False)
        display.smooth.setChecked(False)

    def together(self) -> None:
        """Two genes in one picture."""
        blend = self.genes_dock.blend
        for gene in ("ERBB2", "VIM"):
            self.session.select(gene=gene)
            blend.add.click()
        self.fold(blend)
        self.keep("genes-together")
        blend.clear.click()

    def signature(self) -> None:
        """The score of a set of genes."""
        box = self.genes_dock.signatures
        self.fold(box)
        box.choice.setCurrentIndex(box.choice.findText("HER2 amplicon"))
        box.score.click()
        self.wait(lambda: self.session.gene == "HER2 amplicon", "the signature is scored")
        self.idle(0.3)
        self.genes_dock.reveal(box)
        self.keep("genes-signature")

    def gallery(self) -> None:
        """Small maps of the listed genes."""
        self.genes_dock.gallery.click()
        (dialog,) = self.genes_dock.findChildren(GalleryDialog)
        self.wait(lambda: bool(dialog.sheet.thumbnails), "maps are drawn")
        self.keep_beside(dialog, "genes-gallery")
        dialog.close()

    def pinned(self) -> None:
        """The genes of one spot."""
        self.fold(self.genes_dock.spot)
        self.session.select(gene="ERBB2")
        self.genes_dock.spot.pin(90)
        self.idle(0.3)
        self.genes_dock.reveal(self.genes_dock.spot)
        self.keep("genes-spot")

    def trust(self) -> None:
        """How far the tiles are from those that the predictor was trained on."""
        name = next(name for name, result in self.session.results.items() if result.kind == "predicted")
        self.session.select(result=name)
        self.fold(self.genes_dock.trust)
        self.genes_dock.trust.measure.click()
        self.wait(lambda: self.session.gene == "Distance to training", "tiles are compared")
        self.idle(0.3)
        self.genes_dock.reveal(self.genes_dock.trust)
        self.keep("genes-trust")

    def run(self) -> None:
        """All steps in order."""
        for step in (
            self.open, self.table, self.smooth, self.together, self.signature, self.gallery, self.pinned, self.predict,
            self.trust,
        ):  # fmt: skip
            step()
        self.viewer.close()


def main() -> None:
    """Run the tour."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("docs/images"), help="folder for the pictures")
    parser.add_argument("--timeout", type=float, default=300, help="seconds that one step may take")
    parser.add_argument("--theme", default="dark", help="napari theme")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    tour = GeneTour(arguments.out, arguments.timeout)
    tour.viewer.theme = arguments.theme
    tour.run()


if __name__ == "__main__":
    main()

"""Compare predictions with measured expression in the real window, and keep what it shows.

``python docs/compare.py DATA --work FOLDER --out docs/images`` needs a display (``xvfb-run`` will do) and the folder
that holds the her2st sections. Section C5 is predicted by the starter, every 100 µm, and by ridge regression trained on
a section of another patient; both are kept in the work folder. The second slide is made of C5 itself: its stains
unmixed, brown put where ERBB2 was measured instead of eosin, turned and shifted. It is no real IHC.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import anndata
import numpy as np
import tifffile
from qtpy.QtWidgets import QApplication
from scipy.interpolate import griddata
from scipy.ndimage import gaussian_filter
from skimage.color import hed2rgb, rgb2hed
from skimage.transform import AffineTransform, warp

from napari_he2st.data.slides import Slide
from napari_he2st.data.truth import read_section
from napari_he2st.engine.figures import write_figures
from napari_he2st.engine.predict import predict_slide
from napari_he2st.engine.report import write_report
from napari_he2st.engine.segment import segment
from napari_he2st.engine.train import train
from napari_he2st.gui.docks.measured import slide_of
from napari_he2st.zoo.catalogue import load
from tour import Tour

GENE = "ERBB2"
PITCH_UM, IHC_MPP, TURN_DEG, SHIFT_UM = 100.0, 4.0, 12.0, (180.0, -120.0)


def predictions(section, slide: Slide, data: Path, work: Path) -> dict[str, anndata.AnnData]:
    """Both predictions of the slide, from the work folder where they are there."""
    found = {}
    for name in ("starter", "ridge"):
        path = work / f"{name}.h5ad"
        if not path.exists():
            if name == "starter":
                adata = predict_slide(load("starter"), slide, pitch_um=PITCH_UM)
            else:
                bundle = train("ridge", [read_section(data / "her2st", "B4")], panel="hvg:250")
                adata = predict_slide(bundle, slide, pitch_um=PITCH_UM)
            adata.write_h5ad(path)
        found[name] = anndata.read_h5ad(path)
    return found


def made_ihc(section, slide: Slide, path: Path) -> Slide:
    """A stain of a neighbouring section as it might be: haematoxylin of the slide, brown where the gene is high."""
    if not path.exists():
        width, height = (round(n * slide.mpp / IHC_MPP) for n in slide.size)
        stains = rgb2hed(slide.read(0, 0, width, height, mpp=IHC_MPP))
        xy = np.asarray(section.adata.obsm["spatial"]) * slide.mpp / IHC_MPP
        values = section.adata[:, GENE].to_df()[GENE].to_numpy()
        there = np.stack(np.meshgrid(np.arange(width), np.arange(height)), axis=-1)
        brown = griddata(xy, values, there, method="linear", fill_value=0.0)
        tissue = gaussian_filter(stains[..., 0] + stains[..., 1], 2)
        stains[..., 2] = 0.6 * np.clip(tissue, 0, None) * (brown / values.max()) ** 2
        stains[..., 1] = 0
        angle = np.deg2rad(TURN_DEG)
        move = AffineTransform(rotation=angle, translation=np.array(SHIFT_UM) / IHC_MPP)
        picture = warp(hed2rgb(stains), move.inverse, cval=1.0)
        tifffile.imwrite(path, (picture * 255).astype(np.uint8), photometric="rgb", tile=(256, 256))
    return Slide.open(path, mpp=IHC_MPP, name="HER2 stain, made")


class CompareTour(Tour):
    """Everything the Compare dock does, on one section."""

    def __init__(self, folder: Path, timeout_s: float, data: Path, work: Path) -> None:
        super().__init__(folder, timeout_s)
        self.data, self.work = data, work

    def open(self) -> None:
        """The section, both predictions, domains of measured and predicted expression."""
        section = read_section(self.data / "her2st", "C5")
        slide = slide_of(section)
        self.section, self.he = section, slide
        self.dock("Slide").add_section(section, slide)
        self.wait(lambda: bool(self.session.results), "the section opens")
        found = predictions(section, slide, self.data, self.work)
        for name, adata in found.items():
            self.session.add_adata(adata, slide.name, name=name)
        self.session.select(gene=GENE)
        self.compare = self.dock("Compare")

    def genes(self) -> None:
        """Scores of every gene, the chosen one as scatter, three maps with one camera."""
        self.compare.button.click()
        self.wait(lambda: bool(self.session.comparisons), "results are compared")
        self.wait(lambda: self.compare.ranking.ranking is not None, "they are ranked")
        self.session.select(gene=GENE)
        self.session.show_comparison("starter")
        comparison = self.session.comparison
        row = comparison.table.set_index("gene").loc[GENE]
        print(f"  {GENE}: r {row['pcc']:.3f} [{row['pcc_low']:.3f}, {row['pcc_high']:.3f}], n {int(row['n'])}")
        print("  " + self.compare.summary.text().replace("<br>", "\n  "))
        self.compare.side_by_side.setChecked(True)
        self.idle(2)
        self.compare.genes.scatter.choose(int(np.nanargmin(comparison.residual(GENE))))
        self.idle(1)
        self.compare.side_by_side.setChecked(False)
        self.compare.side_by_side.setChecked(True)
        self.keep("compare-genes")

    def maps(self) -> None:
        """How well each spot agrees, as a layer over the slide."""
        self.compare.side_by_side.setChecked(False)
        self.compare.third.setCurrentIndex(self.compare.third.findData("agreement"))
        self.compare.third.activated.emit(self.compare.third.currentIndex())
        self.compare.on_slide.setChecked(True)
        self.viewer.reset_view()
        self.keep("compare-agreement")
        self.compare.on_slide.setChecked(False)

    def rank(self) -> None:
        """Which prediction is better."""
        self.compare.tabs.show_page(self.compare.ranking)
        self.compare.reveal(self.compare.tabs)
        self.keep("compare-ranking")
        print("  " + self.compare.ranking.text.text())

    def domains(self) -> None:
        """Domains of the prediction against those of what was measured."""
        for name in ("C5", "starter"):
            result = self.session.results[name]
            self.session.set_domains(name, segment(result.adata, "kmeans", n_domains=4, seed=0))
        self.compare.tabs.show_page(self.compare.domains)
        self.wait(lambda: self.compare.domains.found is not None, "domains are compared")
        self.session.select(result="C5")
        self.compare.domains.table.selectRow(0)
        self.compare.reveal(self.compare.tabs)
        self.keep("compare-domains")
        print("  " + self.compare.domains.text.text())

    def second(self) -> None:
        """A second slide, brought into register by its picture, in the same linked views."""
        second = made_ihc(self.section, self.he, self.work / "ihc.tif")
        self.session.add_slide(second)
        self.session.select(slide=self.he.name, result="starter")
        self.compare = self.dock("Compare")
        box = self.compare.second
        self.compare.tabs.show_page(box)
        box.choose(second.name)
        box.register.click()
        self.wait(lambda: box.second is not None, "the slide is registered")
        print("  " + box.text.text())
        self.compare.side_by_side.setChecked(True)
        self.compare.reveal(self.compare.tabs)
        self.idle(2)
        self.keep("compare-second-slide")
        self.compare.side_by_side.setChecked(False)

    def report(self) -> None:
        """One page, and every figure as PNG and SVG."""
        options = {"gene": GENE, "ranking": self.compare.ranking.ranking, "domains": self.compare.domains.found}
        write_report(self.session.comparison, self.work / "report.html", force=True, **options)
        write_figures(self.session.comparison, self.work / "figures", force=True, **options)
        print(f"  {self.work / 'report.html'}: {(self.work / 'report.html').stat().st_size / 1e6:.1f} MB")

    def light(self) -> None:
        """The same in the light theme."""
        from napari.settings import get_settings

        before = get_settings().appearance.theme
        self.viewer.theme = "light"
        QApplication.processEvents()
        self.compare.tabs.show_page(self.compare.genes)
        self.keep("compare-light")
        self.viewer.theme = before

    def run(self) -> None:
        """All steps in order."""
        for step in (self.open, self.genes, self.maps, self.rank, self.domains, self.second, self.report, self.light):
            print(step.__doc__)
            step()
        self.viewer.close()


def main() -> None:
    """Run the tour."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path, help="folder that holds her2st")
    parser.add_argument("--work", type=Path, default=Path("compare"), help="folder for predictions and the report")
    parser.add_argument("--out", type=Path, default=Path("docs/images"), help="folder for the pictures")
    parser.add_argument("--timeout", type=float, default=600, help="seconds that one step may take")
    arguments = parser.parse_args()
    for folder in (arguments.work, arguments.out):
        folder.mkdir(parents=True, exist_ok=True)
    CompareTour(arguments.out, arguments.timeout, arguments.data, arguments.work).run()


if __name__ == "__main__":
    main()

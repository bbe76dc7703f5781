"""Train a predictor that draws and one that looks up, and keep pictures of what the window shows of each.

``python docs/draws.py FOLDER --out docs/images`` needs a display (``xvfb-run`` will do) and the HER2-positive
breast sections of Andersson et al. in FOLDER; C2 to C4 are learned, the sample that comes with the package is
predicted. It takes some minutes.
"""

from __future__ import annotations

import argparse
import tempfile
import tomllib
from pathlib import Path

from qtpy.QtWidgets import QApplication

from napari_he2st.data.truth import read_section
from napari_he2st.engine.train import train
from napari_he2st.gui.docks.where_box import SPOTS
from napari_he2st.gui.matches import MatchesDialog
from napari_he2st.zoo.catalogue import card_of
from tour import Tour

SETTINGS = Path(__file__).parents[1] / "benchmarks" / "learning.toml"
TRAINED = ("C2", "C3", "C4")
GENE = "SCGB2A2"


def bundle_of(slug: str, data: Path, folder: Path) -> Path:
    """The system, trained as in its learning test."""
    settings = tomllib.loads(SETTINGS.read_text(encoding="utf-8"))[slug]
    variant = card_of(slug).variants[settings["variant"]]
    trained = train(
        slug,
        [read_section(data, name) for name in TRAINED],
        arguments={**variant, **settings.get("arguments", {})},
        recipe=settings["recipe"],
        panel="hvg:250",
        seed=0,
        device="cpu",
    )
    trained.save(folder / f"{slug}.he2st")
    return folder / f"{slug}.he2st"


class Draws(Tour):
    """The window on the sample."""

    def predicted(self, bundle: Path, draws: int = 1):
        """Predict the measured spots, and show the gene."""
        predict = self.dock("Predict")
        predict.load(str(bundle))
        predict.where.area.setCurrentText(SPOTS)
        self.wait(lambda: predict.run_button.isEnabled(), "the predictor loads")
        predict.sampling.draws.setValue(draws)
        self.wait(lambda: predict.run_button.isEnabled() and "about" in predict.where.cost.text(), "tiles are timed")
        before = len(self.session.results)
        predict.run_button.click()
        self.wait(lambda: len(self.session.results) > before, "the run starts")
        result = self.session.current_result
        self.wait(lambda: result.adata is not None, "the run ends")
        self.dock("Genes")
        self.session.select(result=result.name, gene=GENE)
        return result

    def spread(self, bundle: Path) -> None:
        """The standard deviation over draws, as a second map."""
        self.predicted(bundle, draws=20)
        genes = self.dock("Genes")
        self.wait(genes.spread.isVisible, "the spread is known")
        genes.spread.setChecked(True)
        self.keep("spread")

    def reference(self, bundle: Path) -> None:
        """The reference spots of a clicked spot."""
        result = self.predicted(bundle)
        genes = self.dock("Genes")
        self.wait(genes.matches.isVisible, "the bank is offered")
        genes.matches.click()
        dialog = next(widget for widget in QApplication.topLevelWidgets() if isinstance(widget, MatchesDialog))
        dialog.look_up(len(result.grid) // 2)
        self.wait(lambda: dialog.found is not None, "the spots are looked up")
        self.idle(0.5)
        dialog.grab().save(str(self.folder / "reference-spots.png"))
        print("  reference-spots.png")
        dialog.close()


def main() -> None:
    """Train and show both."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, help="folder of the sections")
    parser.add_argument("--out", type=Path, required=True, help="folder for the pictures")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        draws = Draws(arguments.out, timeout_s=600)
        draws.dock("Slide").open_sample()
        draws.wait(lambda: bool(draws.session.results), "the sample opens")
        draws.spread(bundle_of("stflow", arguments.data, Path(folder)))
        draws.reference(bundle_of("bleep", arguments.data, Path(folder)))
        draws.viewer.close()


if __name__ == "__main__":
    main()

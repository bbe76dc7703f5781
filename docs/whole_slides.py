"""Keep pictures of what the window shows of nuclei, and of a predictor that sees a slide as a whole.

``python docs/whole_slides.py REGION --out docs/images`` needs a display (``xvfb-run`` will do) and an H&E picture
at 0.5 µm per pixel for the nuclei. The whole-slide predictor (CLAM) is trained on twelve painted slides, in half
of which one patch of crowded nuclei carries the label, and then shown a thirteenth.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from napari_he2st.data.slides import Slide
from napari_he2st.engine.train_slides import read_table, train_slides
from tour import Tour

SIDE_PX, PATCH_PX, RIM_PX = 1024, 256, 64
N_SLIDES = 12
RECIPE = {"lr": 1e-3, "epochs": 30}
ARGUMENTS = {"encoder": "efficientnet-lite0-early", "tile_px": 64, "tile_mpp": 1.0}


def painted(seed: int, *, positive: bool) -> NDArray[np.uint8]:
    """Stroma on glass, with a patch of crowded nuclei if it is positive."""
    rng = np.random.default_rng(seed)
    image = rng.normal((224, 160, 190), 6, (SIDE_PX, SIDE_PX, 3))
    crowd = np.full((SIDE_PX // 8, SIDE_PX // 8), 0.05)
    if positive:
        x, y = rng.integers(RIM_PX, SIDE_PX - RIM_PX - PATCH_PX, 2) // 8
        crowd[y : y + PATCH_PX // 8, x : x + PATCH_PX // 8] = 0.5
    nuclei = (rng.random(crowd.shape) < crowd).repeat(8, 0).repeat(8, 1)
    image[nuclei] = (100, 60, 135)
    glass = np.ones(image.shape[:2], dtype=bool)
    glass[RIM_PX:-RIM_PX, RIM_PX:-RIM_PX] = False
    image[glass] = 245
    return image.clip(0, 255).astype(np.uint8)


def cohort(folder: Path) -> Path:
    """A table of slides, two of each patient."""
    lines = ["slide,patient,crowded"]
    for number in range(N_SLIDES):
        Image.fromarray(painted(number, positive=number % 2 == 1)).save(folder / f"slide{number}.png")
        lines.append(f"slide{number}.png,patient{number // 2},{'yes' if number % 2 else 'no'}")
    (folder / "cohort.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder / "cohort.csv"


class Pictures(Tour):
    """The window, without the sample."""

    def show(self, path: Path, mpp: float) -> None:
        """Open a slide and nothing else."""
        for name in list(self.session.slides):
            self.session.remove_slide(name)
        self.idle(0.1)
        self.session.add_slide(Slide.open(path, mpp=mpp))
        self.idle(1)

    def nuclei(self, path: Path) -> None:
        """Nuclei and their outlines."""
        self.show(path, 0.5)
        box = self.dock("Slide").nuclei
        box.find_button.click()
        self.wait(box.shown.isEnabled, "nuclei are found")
        box.shown.setChecked(True)
        self.viewer.scene.camera.zoom *= 3
        self.keep("nuclei")

    def slide_result(self, folder: Path) -> None:
        """Scores and attention of a slide that was not seen."""
        bundle = train_slides(
            "clam", read_table(cohort(folder)), ["crowded"], folds=3, arguments=ARGUMENTS, recipe=RECIPE, mpp=1.0
        )
        auc = bundle.manifest.scores["auc"]
        print(f"  AUC on patients left out: {', '.join(f'{value:.2f}' for value in auc)}")
        bundle.save(folder / "crowded.he2st")
        Image.fromarray(painted(99, positive=True)).save(folder / "new.png")
        self.show(folder / "new.png", 1.0)
        predict = self.dock("Predict")
        predict.load(str(folder / "crowded.he2st"))
        self.wait(predict.run_button.isEnabled, "the predictor loads")
        predict.run_button.click()
        self.wait(lambda: bool(self.session.results) and not predict.busy, "the slide is predicted")
        self.keep("slide-result")


def main() -> None:
    """Both pictures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("region", type=Path, help="an H&E picture at 0.5 µm per pixel")
    parser.add_argument("--out", type=Path, required=True, help="folder for the pictures")
    arguments = parser.parse_args()
    pictures = Pictures(arguments.out, timeout_s=600)
    pictures.nuclei(arguments.region)
    with tempfile.TemporaryDirectory() as folder:
        pictures.slide_result(Path(folder))
        pictures.viewer.close()


if __name__ == "__main__":
    main()

"""Keep a picture of a session as it was saved and as a new window restores it.

``python docs/session.py --out docs/images`` needs a display (``xvfb-run`` will do) and takes half a minute.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

from napari_he2st.core.types import Region
from napari_he2st.engine.segment import segment
from tour import GENE, Tour

FRONT = Region.box(700, 650, 420, 380, "Front")


class Session(Tour):
    """A window that keeps its session, and another that brings it back."""

    def save(self, folder: Path) -> None:
        """Fill the window and save it."""
        self.open()
        self.predict()
        self.session.set_domains(self.result.name, segment(self.result.adata, "kmeans", n_domains=4))
        self.session.set_regions(self.session.slide, [FRONT])
        self.session.select(gene=GENE)
        box = self.dock("Export").saved
        box.save(folder)
        self.wait(lambda: box.folder == folder, "the session is saved")
        self.keep("saved")

    def restore(self, folder: Path) -> None:
        """Open what was saved."""
        box = self.dock("Export").saved
        box.open(folder)
        self.wait(lambda: box.folder == folder, "the session is open")
        self.keep("restored")


def main() -> None:
    """Save, restore in another process, and put the two pictures above each other."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("docs/images"))
    parser.add_argument("--restore", type=Path)
    options = parser.parse_args()
    if options.restore is not None:
        tour = Session(options.out, 120)
        tour.restore(options.restore)
        tour.viewer.close()
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        saved = folder / "section.he2st-session"
        tour = Session(folder, 120)
        tour.save(saved)
        tour.viewer.close()
        subprocess.run([sys.executable, __file__, "--restore", str(saved), "--out", str(folder)], check=True)
        halves = [Image.open(folder / f"{half}.png").convert("RGB") for half in ("saved", "restored")]
        both = Image.new("RGB", (halves[0].width, sum(half.height for half in halves)))
        both.paste(halves[0], (0, 0))
        both.paste(halves[1], (0, halves[0].height))
        both.quantize(128).save(options.out / "session.png", optimize=True)


if __name__ == "__main__":
    main()

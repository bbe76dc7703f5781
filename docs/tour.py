"""Drive the real window through every step on the sample section, and keep what it shows.

``python docs/tour.py --out demo`` needs a display (``xvfb-run`` will do); it leaves screenshots, the prediction
as h5ad and the report. ``--open`` opens the window with the sample instead, for a person.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import napari
from qtpy.QtWidgets import QApplication

from napari_he2st.engine.report import write_report, write_table
from napari_he2st.gui.widgets.save_dialog import Target
from napari_he2st.gui.workspace import dock_of, open_docks, session_of

GENE = "ERBB2"
PITCH_UM = 100.0
SIZE_PX = (1366, 768)


class Tour:
    """A window and a folder for what is seen in it."""

    def __init__(self, folder: Path, timeout_s: float) -> None:
        self.folder, self.timeout_s = folder, timeout_s
        self.viewer = napari.Viewer(show=True, title="napari-he2st")
        self.viewer.window.resize(*SIZE_PX)
        open_docks(self.viewer)
        self.session = session_of(self.viewer)

    def wait(self, until: Callable[[], bool], what: str) -> None:
        """Let the window work until something is so."""
        end = time.monotonic() + self.timeout_s
        while not until():
            if time.monotonic() > end:
                message = f"The window was not ready in {self.timeout_s:.0f} s: {what}"
                raise TimeoutError(message)
            self.idle(0.05)

    def idle(self, seconds: float) -> None:
        """Let the window work for a while."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            QApplication.processEvents()
            time.sleep(0.005)

    def dock(self, name: str):
        """The dock of that name, brought to the front."""
        dock = dock_of(self.viewer, name)
        dock.window()  # built now
        frame = dock.parentWidget()
        while frame is not None and not frame.inherits("QDockWidget"):
            frame = frame.parentWidget()
        if frame is not None:
            frame.show()
            frame.raise_()
        self.idle(0.3)
        return dock

    def keep(self, name: str) -> None:
        """Take a picture of the whole window."""
        self.idle(1.0)
        self.viewer.screenshot(str(self.folder / f"{name}.png"), canvas_only=False, flash=False)
        print(f"  {name}.png")

    # --- the steps

    def open(self) -> None:
        """A slide with measured expression, its tissue and how well the spots fit."""
        slide = self.dock("Slide")
        slide.open_sample()
        self.wait(lambda: bool(self.session.results), "the sample opens")
        self.session.select(gene=GENE)
        self.wait(lambda: bool(slide.measured.fit.text()), "the fit is checked")
        self.keep("1-open")

    def predict(self) -> None:
        """Choose a predictor, see what it costs, watch the map fill."""
        predict = self.dock("Predict")
        self.wait(lambda: predict.run_button.isEnabled(), "the predictor loads")
        predict.where.pitch.setValue(PITCH_UM)
        predict.where.preview.setChecked(True)
        self.wait(lambda: "about" in predict.where.cost.text() and predict.run_button.isEnabled(), "tiles are timed")
        self.keep("2-plan")
        before = len(self.session.results)
        predict.run_button.click()
        self.wait(lambda: len(self.session.results) > before, "the run starts")
        result = self.session.current_result
        total = len(result.grid)
        known = lambda: int((result.values[:, 0] == result.values[:, 0]).sum())  # noqa: E731
        self.session.select(gene=GENE)
        self.wait(lambda: known() > 0.4 * total, "the map fills")
        self.keep("3-running")
        self.wait(lambda: result.adata is not None, "the run ends")
        self.result = result

    def live(self) -> None:
        """Predict what is on screen: the middle at first, coarse and then fine, and on after a pan."""
        predict = self.dock("Predict")
        self.wait(lambda: predict.live.toggle.isEnabled(), "the predictor is ready")
        camera = self.viewer.scene.camera
        home = camera.center, camera.zoom
        camera.zoom = 5 * camera.zoom
        self.idle(1)
        started, cpu = time.monotonic(), time.process_time()
        predict.live.toggle.setChecked(True)
        self.wait(lambda: (self.session.result or "").endswith("live"), "the live map begins")
        result = self.session.current_result
        known = lambda: int((result.values[:, 0] == result.values[:, 0]).sum())  # noqa: E731
        self.wait(lambda: known() > 0, "first colours")
        print(f"  first colours after {time.monotonic() - started:.2f} s, {time.process_time() - cpu:.2f} s of CPU")
        self.session.select(gene=GENE)
        self.keep("live-1-first")
        self.wait(lambda: not predict.live.watching, "the view is predicted")
        self.keep("live-2-fine")
        seen = known()
        camera.center = (camera.center[0], camera.center[1] - 400, camera.center[2] - 400)
        self.wait(lambda: known() > seen, "the map follows the pan")
        self.keep("live-3-panned")
        predict.live.toggle.setChecked(False)
        self.wait(lambda: not predict.live.watching, "it stops")
        self.session.remove_result(result.name)
        camera.center, camera.zoom = home

    def genes(self) -> None:
        """Look at genes, one after another."""
        self.dock("Genes")
        self.session.select(result=self.result.name, gene=GENE)
        self.keep("4-gene")

    def domains(self) -> None:
        """Group the tissue."""
        domains = self.dock("Domains")
        domains.n_domains.setValue(5)
        domains.button.click()
        self.wait(lambda: self.result.name in self.session.domains, "domains are found")
        self.wait(lambda: domains.views.table.model().rowCount() > 0, "their markers are found")
        self.keep("5-domains")

    def compare(self) -> None:
        """Predicted against measured."""
        compare = self.dock("Compare")
        compare.button.click()
        self.wait(lambda: self.session.comparison is not None, "the comparison ends")
        self.session.select(gene=GENE)
        compare.side_by_side.setChecked(True)
        self.idle(2)
        self.keep("6-compare")
        compare.side_by_side.setChecked(False)
        self.idle(0.5)

    def export(self) -> None:
        """Keep the result, the scores and the report."""
        export = self.dock("Export")
        self.keep("7-export")
        path = self.folder / "predicted.h5ad"
        path.unlink(missing_ok=True)
        export.write(self.result, "h5ad", Target(path, force=True), {})
        self.wait(path.exists, "the file is written")
        write_table(self.session.comparison, self.folder / "scores.csv", force=True)
        write_report(self.session.comparison, self.folder / "report.html", gene=GENE, force=True)

    def run(self) -> None:
        """All steps in order."""
        for step in (self.open, self.predict, self.live, self.genes, self.domains, self.compare, self.export):
            started = time.monotonic()
            step()
            print(f"{step.__doc__} {time.monotonic() - started:.0f} s")
        self.viewer.close()


def main() -> None:
    """Run the tour, or open the window for a person."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("demo"), help="folder for what comes out")
    parser.add_argument("--timeout", type=float, default=600, help="seconds that one step may take")
    parser.add_argument("--open", action="store_true", help="open the window with the sample, for a person")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    tour = Tour(arguments.out, arguments.timeout)
    if arguments.open:
        tour.dock("Slide").open_sample()
        napari.run()
        return
    tour.run()
    print(f"Look into {arguments.out}. Everything in there that is predicted is for research use only.")


if __name__ == "__main__":
    main()

"""Train and benchmark in the real window, and take the pictures of docs/howto/train.md.

``HE2ST_DATA=… python docs/train.py --out docs/images`` needs a display (``xvfb-run`` will do).
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import napari
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QApplication

from napari_he2st.gui.workspace import dock_of, open_docks, session_of

SIZE_PX = (1366, 768)
ROLES = {"C3": "train", "C4": "train", "C5": "validate", "B4": "holdout"}
SYSTEM, EPOCHS, N_GENES = "stnet", 14, 100


def main() -> None:
    """Open, choose, check, train, look."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    out = parser.parse_args().out
    data = Path(os.environ["HE2ST_DATA"]) / "her2st"
    os.environ["HE2ST_PREDICTORS"] = tempfile.mkdtemp(prefix="predictors")
    viewer = napari.Viewer(show=True, title="napari-he2st")
    viewer.window.resize(*SIZE_PX)
    open_docks(viewer)
    dock = dock_of(viewer, "Train")
    frame = dock.parentWidget()
    while not frame.inherits("QDockWidget"):
        frame = frame.parentWidget()
    frame.raise_()
    viewer.window._qt_window.resizeDocks([frame], [560], Qt.Orientation.Horizontal)
    for name in ROLES:
        dock.sections.read(f"{data}:{name}")
        wait(lambda name=name: any(s.name == name for s in dock.sections.sections), f"{name} is read")
    for row, section in enumerate(dock.sections.sections):
        roles = dock.sections.table.cellWidget(row, 4)
        roles.setCurrentIndex(roles.findData(ROLES[section.name]))
    wait(lambda: dock.predictor.row is not None and dock.form.variant.count() > 0, "systems are listed")
    dock.predictor.choose(SYSTEM)
    dock._system_chosen()
    wait(lambda: dock.form.variant.findData("tiny") >= 0 and not dock.busy, "the system is loaded")
    dock.form.variant.setCurrentIndex(dock.form.variant.findData("tiny"))
    dock.form.panel.setCurrentIndex(dock.form.panel.findData("hvg"))
    dock.form.n_genes.setValue(N_GENES)
    dock.form.epochs.setValue(EPOCHS)
    dock.form.lr.setValue(1e-3)
    dock.form.flips.setChecked(True)
    dock.name.setText("my-stnet")
    dock.check_button.click()
    wait(lambda: "spots" in dock.checked.text(), "the check is done")
    keep(viewer, out / "train-check.png")
    dock.train_button.click()
    wait(lambda: len(dock._records) >= EPOCHS - 4, "it learns")
    dock.reveal(dock.curves)
    keep(viewer, out / "train-curves.png")
    wait(lambda: bool(session_of(viewer).predictors), "it is trained")
    dock.reveal(dock.curves)
    print(dock.timeline.text())
    keep(viewer, out / "train-done.png")
    predict = dock_of(viewer, "Predict")
    wait(lambda: predict.predictor.models.findText("my-stnet", Qt.MatchFlag.MatchContains) >= 0, "it is listed")
    viewer.close()


def wait(until: Callable[[], bool], what: str, seconds: float = 1200) -> None:
    """Let the window work until something is so."""
    end = time.monotonic() + seconds
    while not until():
        if time.monotonic() > end:
            message = f"The window was not ready in {seconds:.0f} s: {what}"
            raise TimeoutError(message)
        QApplication.processEvents()
        time.sleep(0.01)


def keep(viewer: napari.Viewer, path: Path) -> None:
    """Take a picture of the whole window."""
    end = time.monotonic() + 1
    while time.monotonic() < end:
        QApplication.processEvents()
        time.sleep(0.01)
    viewer.screenshot(str(path), canvas_only=False, flash=False)


if __name__ == "__main__":
    main()

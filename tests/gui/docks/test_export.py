"""The Export dock: what is offered, what is asked, what is written."""

from __future__ import annotations

import anndata
import pandas as pd
import pytest
from qtpy.QtWidgets import QFileDialog, QMessageBox

from napari_he2st.data.export import EXPORTERS
from napari_he2st.gui.docks.export import ExportDock

pytestmark = pytest.mark.gui


@pytest.fixture
def answer(monkeypatch):
    """Answer the file dialog with a path, and the question with yes or no."""

    def answer(path, *, replace: bool = False) -> None:
        monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *_, **__: (str(path), ""))
        button = QMessageBox.StandardButton.Yes if replace else QMessageBox.StandardButton.No
        monkeypatch.setattr(QMessageBox, "question", lambda *_, **__: button)

    return answer


def choose(dock, name):
    dock.format.setCurrentText(name)


def test_an_empty_session_says_what_to_do(open_dock):
    dock = open_dock(ExportDock)
    assert "predict a slide" in dock.note.text()
    assert not dock.button.isEnabled()


def test_every_format_is_offered_with_its_options(open_dock):
    dock = open_dock(ExportDock)
    for entry in EXPORTERS:
        choose(dock, entry.name)
        assert dock.options.names == list(entry.options)
        defaults = {name: parameter.default for name, parameter in entry.options.items()}
        assert dock.options.values() == defaults


def test_a_stopped_prediction_cannot_be_exported(open_dock, fill, session):
    fill()
    dock = open_dock(ExportDock)
    assert dock.button.isEnabled()
    session.select(result="run")
    assert not dock.button.isEnabled()
    assert "complete" in dock.note.text()


def test_a_figure_starts_with_the_gene_on_screen(open_dock, fill, session):
    fill()
    session.select(gene="GAPDH")
    dock = open_dock(ExportDock)
    choose(dock, "png")
    assert dock.options.values()["gene"] == "GAPDH"


def test_a_table_is_written_with_its_suffix(open_dock, fill, answer, tmp_path, qtbot):
    fill()
    dock = open_dock(ExportDock)
    choose(dock, "csv")
    answer(tmp_path / "table")
    dock.button.click()
    qtbot.waitUntil(lambda: "Written" in dock.status.text.text())
    assert list(pd.read_csv(tmp_path / "table.csv").columns[:3]) == ["spot", "kind", "x_px"]
    qtbot.waitUntil(dock.button.isEnabled)


def test_an_existing_file_is_replaced_only_when_asked(open_dock, fill, answer, tmp_path, qtbot):
    fill()
    target = tmp_path / "table.csv"
    target.write_text("mine")
    dock = open_dock(ExportDock)
    choose(dock, "csv")
    answer(target)
    dock.button.click()
    assert target.read_text() == "mine"
    answer(target, replace=True)
    dock.button.click()
    qtbot.waitUntil(lambda: "Written" in dock.status.text.text())
    assert len(pd.read_csv(target)) == 60


def test_a_folder_that_is_missing_is_an_error_with_a_way_out(open_dock, fill, answer, tmp_path, qtbot, monkeypatch):
    told = []
    monkeypatch.setattr("napari_he2st.gui.worker.show_error", told.append)
    fill()
    dock = open_dock(ExportDock)
    choose(dock, "csv")
    answer(tmp_path / "no" / "table.csv")
    dock.button.click()
    qtbot.waitUntil(lambda: bool(told))
    assert "folder" in told[0]
    qtbot.waitUntil(dock.button.isEnabled)


def test_cancelling_the_dialog_writes_nothing(open_dock, fill, answer, tmp_path):
    fill()
    dock = open_dock(ExportDock)
    answer("")
    dock.button.click()
    assert not list(tmp_path.iterdir())


def test_anndata_comes_back_as_it_was(open_dock, fill, answer, session, tmp_path, qtbot, slide, monkeypatch):
    fill()
    item = session.results["spots"]
    monkeypatch.setattr(type(slide), "thumbnail", lambda self, max_px=1024: self.pixels, raising=False)
    dock = open_dock(ExportDock)
    choose(dock, "h5ad")
    answer(tmp_path / "out.h5ad")
    dock.button.click()
    qtbot.waitUntil(lambda: "Written" in dock.status.text.text(), timeout=20_000)
    written = anndata.read_h5ad(tmp_path / "out.h5ad")
    assert (written.X == item.adata.X).all()
    assert written.uns["he2st"]["kind"] == "measured"

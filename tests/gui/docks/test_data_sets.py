"""Public data sets in the Slide dock."""

from __future__ import annotations

import shutil

from napari_he2st.data.samples import sample_folder
from napari_he2st.data.truth.catalogue import dataset
from napari_he2st.gui.docks.slide import SlideDock


def test_a_set_is_described_and_opened_once_it_is_here(open_dock, qtbot, monkeypatch, tmp_path):
    monkeypatch.setenv("HE2ST_DATASETS", str(tmp_path))
    dock = open_dock(SlideDock)
    section = dock.data_sets
    section.names.setCurrentText("HEST-1k")
    assert section.facts.shown["Licence"] == "CC BY-NC-SA 4.0"
    assert not section.get_button.isEnabled()
    assert str(tmp_path / "HEST-1k") in section.place.text()
    section.names.setCurrentText("DLPFC")
    assert section.facts.shown["Licence"] == "unknown"
    shutil.copytree(sample_folder(), dataset("HER2").folder)
    section.names.setCurrentText("HER2")
    assert section.get_button.isEnabled()
    section.open_button.click()
    qtbot.waitUntil(lambda: bool(dock.session.results), timeout=20_000)
    assert dock.session.current_result.name == "C5"

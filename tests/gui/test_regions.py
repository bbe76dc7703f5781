"""Regions in the window: named, measured, compared, written and read."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from qtpy.QtCore import Qt

from napari_he2st.core.types import Region
from napari_he2st.gui.docks.genes import GenesDock
from napari_he2st.gui.regions import RegionsDialog
from napari_he2st.gui.widgets.save_dialog import Target
from napari_he2st.gui.workspace import layers_of, session_of

pytestmark = pytest.mark.gui

LEFT, RIGHT = Region.box(90, 140, 220, 420, "left"), Region.box(490, 140, 230, 420, "right")
GENES = ["LEFT", "FLAT", "NOISE"]


@pytest.fixture
def viewer(make_napari_viewer_proxy):
    return make_napari_viewer_proxy()


@pytest.fixture
def session(viewer, slide, square_grid, measured):
    """A measured result of 5 × 7 spots whose first gene is high in the left three columns, and a prediction."""
    session = session_of(viewer)
    session.add_slide(slide)
    grid = square_grid()
    values = np.random.default_rng(0).gamma(2, size=(35, 3)).astype(np.float32)
    values[:, 1] = 1
    values[grid.xy[:, 0] < 350, 0] += 10
    run = session.begin_result("run", slide.name, grid, GENES, scale="log1p_cp10k")
    run.values[:] = values / 2
    session.finish("run", None)
    session.add_adata(measured(grid, values, GENES), slide.name)
    session.select(gene="LEFT")
    return session


@pytest.fixture
def dialog(viewer, session, qtbot):
    dock = GenesDock(viewer)
    viewer.window.add_dock_widget(dock, area="right")
    dock.regions.click()
    (made,) = dock.findChildren(RegionsDialog)
    yield made
    if dock.findChildren(RegionsDialog):
        made.close()
    qtbot.waitUntil(lambda: not dock.busy)


def rows(dialog):
    table = dialog.table
    return [
        [table.item(row, column).text() for column in range(table.columnCount())] for row in range(table.rowCount())
    ]


def draw(dialog, session, regions):
    session.set_regions(session.slide, regions)


def test_without_regions_it_says_how_to_draw_one(dialog, viewer, session, slide, qtbot) -> None:
    qtbot.waitUntil(lambda: "press Draw" in dialog.note.text())
    dialog.draw_button.click()
    shapes = viewer.layers["Regions of section"]
    assert shapes.mode == "add_polygon"
    shapes.add([[70, 45], [70, 155], [280, 155], [280, 45]], shape_type="polygon")
    qtbot.waitUntil(lambda: dialog.table.rowCount() == 2)
    assert [row[0] for row in rows(dialog)] == ["region 1", "region 1"]


def test_each_source_is_measured_in_each_region(dialog, session, qtbot) -> None:
    draw(dialog, session, [LEFT, RIGHT])
    qtbot.waitUntil(lambda: dialog.table.rowCount() == 4)
    result = session.results["spots"]
    own = result.column("LEFT")[(result.grid.xy[:, 0] < 310)]
    first = next(row for row in rows(dialog) if row[:3] == ["left", "", "spots (measured)"])
    assert first[3] == str(len(own)) == "15"
    assert first[4] == f"{220 * 420 * 0.25e-6:.3f}"
    assert first[5:7] == [f"{own.mean():.2f}", f"{own.std(ddof=1):.2f}"]
    session.select(gene="FLAT")
    qtbot.waitUntil(lambda: rows(dialog)[1][5] == "1.00")


def test_names_and_classes_are_edited_in_place(dialog, viewer, session, qtbot) -> None:
    draw(dialog, session, [LEFT, RIGHT])
    qtbot.waitUntil(lambda: dialog.table.rowCount() == 4)
    dialog.table.item(0, 0).setText("core")
    dialog.table.item(2, 1).setText("Stroma")
    first, second = session.regions[session.slide]
    assert (first.name, second.kind) == ("core", "Stroma")
    assert second.colour is not None
    assert list(viewer.layers["Regions of section"].features["class"]) == ["", "Stroma"]
    qtbot.waitUntil(lambda: rows(dialog)[0][0] == "core" and rows(dialog)[3][1] == "Stroma")
    dialog.table.item(0, 0).setText("right")  # taken
    assert "name of its own" in dialog.said.text()
    qtbot.waitUntil(lambda: rows(dialog)[0][0] == "core")
    assert not dialog.table.item(0, 3).flags() & Qt.ItemFlag.ItemIsEditable


def test_the_gene_that_differs_comes_first_and_is_shown_on_a_click(dialog, session, qtbot, tmp_path) -> None:
    draw(dialog, session, [LEFT, RIGHT])
    session.select(gene="NOISE")
    qtbot.waitUntil(lambda: dialog.first.count() == 2)
    assert (dialog.first.currentText(), dialog.second.currentText()) == ("left", "right")
    dialog.compare_button.click()
    qtbot.waitUntil(lambda: dialog.compared is not None)
    assert dialog.genes.genes.names()[0] == "LEFT"
    assert dialog.compared["effect"][0] == pytest.approx(1)
    assert "1 of 3 genes" in dialog.said.text()
    dialog.genes.step(1)
    qtbot.waitUntil(lambda: session.gene == "LEFT")
    path = tmp_path / "genes.csv"
    dialog.save_table(dialog.compared, Target(path, force=False))
    qtbot.waitUntil(path.exists)
    assert pd.read_csv(path)["gene"][0] == "LEFT"


def test_classes_and_the_rest_can_be_compared(dialog, session, qtbot) -> None:
    draw(dialog, session, [Region(LEFT.polygon, "a", "Tumor"), Region(RIGHT.polygon, "b", "Tumor")])
    qtbot.waitUntil(lambda: dialog.first.findText("class Tumor") >= 0)
    dialog.first.setCurrentText("class Tumor")
    dialog.second.setCurrentText("all other spots")
    dialog.compare()
    qtbot.waitUntil(lambda: dialog.compared is not None)
    grid = session.current_result.grid
    assert dialog.compared.set_index("gene").loc["FLAT", "p"] == 1
    other = session.current_result.column("LEFT")[(grid.xy[:, 0] > 310) & (grid.xy[:, 0] < 490)]
    assert dialog.compared.set_index("gene").loc["LEFT", "mean_second"] == pytest.approx(other.mean(), rel=1e-5)


def test_files_of_regions_and_of_numbers(dialog, session, qtbot, tmp_path) -> None:
    draw(dialog, session, [LEFT, Region(RIGHT.polygon, "right", "Stroma", "#96c896")])
    qtbot.waitUntil(lambda: dialog.measured is not None)
    table, outlines = tmp_path / "table.csv", tmp_path / "regions.geojson"
    dialog.save_table(dialog.measured, Target(table, force=False))
    dialog.save_file(Target(outlines, force=False))
    qtbot.waitUntil(lambda: table.exists() and outlines.exists())
    written = pd.read_csv(table)
    assert set(written["gene"]) == {"LEFT"}
    assert set(written["source"]) == {"spots (measured)", "run (predicted)"}
    assert json.loads(outlines.read_text())["features"][1]["properties"]["classification"]["color"] == [150, 200, 150]
    dialog.table.selectRow(0)
    dialog.remove_button.click()
    assert [region.name for region in session.regions[session.slide]] == ["right"]
    dialog.open_file(outlines)
    qtbot.waitUntil(lambda: len(session.regions[session.slide]) == 3)
    assert [region.name for region in session.regions[session.slide]] == ["right", "left", "right 1"]
    assert len(layers_of(dialog.layers.viewer).draw_regions(session.slide).data) == 3


def test_too_few_spots_are_refused_in_words(dialog, session, qtbot, capsys) -> None:
    draw(dialog, session, [Region.box(90, 140, 20, 20, "one"), RIGHT])
    qtbot.waitUntil(lambda: dialog.first.count() == 2)
    dialog.compare()
    qtbot.waitUntil(lambda: dialog.said.text() == "")
    assert dialog.compared is None

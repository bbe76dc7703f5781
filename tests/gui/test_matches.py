"""Clicking a spot shows the reference spots that look like it."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from napari_he2st.core.geometry import world_from_level0
from napari_he2st.data.slides.grid import square_grid
from napari_he2st.gui.docks.genes import GenesDock
from napari_he2st.gui.matches import SHOWN, MatchesDialog
from napari_he2st.gui.picking import RING, SpotPicker
from napari_he2st.gui.workspace import session_of

pytestmark = pytest.mark.gui


@pytest.fixture
def viewer(make_napari_viewer_proxy):
    return make_napari_viewer_proxy()


@pytest.fixture
def predicted(viewer, tissue_slide):
    """A retrieval predictor's result on a slide, as the Predict dock leaves it."""
    from napari_he2st.zoo.guard import preload

    preload()
    from tests.tiny.lookup import lookup_bundle

    from napari_he2st.engine.results import result_facts

    grid = square_grid(tissue_slide, 80.0)
    bundle = lookup_bundle(tissue_slide, grid)
    session = session_of(viewer)
    session.add_slide(tissue_slide)
    result = session.begin_result("lookup", tissue_slide.name, grid, bundle.genes, **result_facts(bundle))
    result.values[:] = bundle.members[0].extras["reference"]["expression"]
    session.finish(result.name, None)
    session.select(result=result.name, gene="GAPDH")
    return result


@pytest.fixture
def dialog(viewer, predicted):
    made = MatchesDialog(viewer, session_of(viewer), predicted)
    closed = []
    made.finished.connect(closed.append)
    made.show()
    yield made
    if not closed:  # closing deletes it
        made.close()


def click(viewer, world, *, drag: bool = False) -> None:
    """A press, perhaps a move, and a release on the canvas."""
    event = SimpleNamespace(type="mouse_press", position=tuple(world), modifiers=())
    steps = [callback(viewer, event) for callback in viewer.mouse_drag_callbacks]
    for step in steps:
        next(step, None)
    for kind in ("mouse_move", "mouse_release") if drag else ("mouse_release",):
        event.type = kind
        for step in steps:
            next(step, None)


def test_a_click_shows_the_reference_spots(viewer, dialog, predicted, qtbot) -> None:
    assert "Click a spot" in dialog.note.text()
    row = len(predicted.grid) // 2  # tissue, which looks like nothing else
    click(viewer, world_from_level0(predicted.grid.xy[row], predicted.grid.mpp))
    qtbot.waitUntil(lambda: dialog.found is not None, timeout=10_000)
    assert dialog.row == row
    assert RING in viewer.layers
    first = dialog.grid.captions[0].text()
    assert first.startswith("1.000")
    assert "S1" in first
    assert f"GAPDH {3 * row + 1:.2f}" in first
    assert not dialog.grid.pictures[0].pixmap().isNull()
    assert not dialog.query.pixmap().isNull()
    assert f"Predicted GAPDH: {3 * row + 1:.2f}" in dialog.note.text()
    assert "cosine" in dialog.note.text()
    assert sum(tile.isVisibleTo(dialog) for tile in dialog.grid.pictures) == min(SHOWN, len(predicted.grid))


def test_another_gene_is_read_off_the_same_spots(viewer, dialog, predicted, qtbot) -> None:
    row = len(predicted.grid) // 2
    dialog.picker.pick(row)
    qtbot.waitUntil(lambda: dialog.found is not None, timeout=10_000)
    session_of(viewer).select(gene="ERBB2")
    assert f"ERBB2 {3 * row:.2f}" in dialog.grid.captions[0].text()


def test_dragging_picks_nothing(viewer, dialog, predicted) -> None:
    click(viewer, world_from_level0(predicted.grid.xy[0], predicted.grid.mpp), drag=True)
    assert dialog.row is None


def test_closing_stops_listening(viewer, dialog, predicted, qtbot) -> None:
    dialog.picker.pick(1)
    qtbot.waitUntil(lambda: dialog.found is not None, timeout=10_000)
    before = len(viewer.mouse_drag_callbacks)
    dialog.close()
    assert len(viewer.mouse_drag_callbacks) == before - 1
    assert RING not in viewer.layers


def test_beside_all_spots_is_no_spot(viewer, predicted) -> None:
    picker = SpotPicker(viewer, predicted.grid, lambda row: None)
    far = world_from_level0(predicted.grid.xy.max(axis=0) + 10_000, predicted.grid.mpp)
    assert picker.row_at(far) is None
    near = world_from_level0(predicted.grid.xy[4], predicted.grid.mpp)
    assert picker.row_at(np.concatenate([[0.0], near])) == 4
    picker.close()


def test_the_genes_dock_offers_it_for_retrieval_alone(viewer, predicted, tissue_slide, qtbot) -> None:
    dock = GenesDock(viewer)
    viewer.window.add_dock_widget(dock, area="right")
    assert dock.matches.isVisibleTo(dock)
    dock.matches.click()
    (dialog,) = dock.findChildren(MatchesDialog)
    assert "lookup" in dialog.windowTitle()
    session = session_of(viewer)
    session.begin_result("plain", tissue_slide.name, predicted.grid, ["ERBB2"], scale="log1p_cp10k")
    session.select(result="plain")
    assert not dock.matches.isVisibleTo(dock)
    session.remove_result(predicted.name)
    qtbot.waitUntil(lambda: not dock.findChildren(MatchesDialog))
    qtbot.waitUntil(lambda: not dock.busy)

"""Registration by landmarks in the Slide dock."""

from __future__ import annotations

import numpy as np
import pytest

from napari_he2st.core.schema import facts_of
from napari_he2st.data.truth.alignment import read_matrix_csv
from napari_he2st.gui.docks.slide import SlideDock

MARKS = np.array([(120.0, 130.0), (600.0, 150.0), (580.0, 460.0), (200.0, 420.0)])


@pytest.fixture
def section(open_dock, fill, monkeypatch):
    monkeypatch.setattr(SlideDock, "with_mask", lambda *_: None)  # the slide has no file to find tissue on
    dock = open_dock(SlideDock)
    fill()
    dock.session.select(result="spots")
    return dock.registration


def shifted(xy):
    return xy[:, [1, 0]] * [-1, 1] + [640, 20]  # a quarter turn and a shift


def mark(section, side, xy):
    section.mark(side)
    section.marks().put(side, xy)


def test_landmarks_move_the_spots_and_undo_puts_them_back(section, session):
    result = session.current_result
    result.adata.obsm["spatial_source"] = result.grid.xy.copy()
    before = result.grid.xy.copy()
    mark(section, "spots", MARKS)
    assert not section.apply_button.isEnabled()
    assert "4 on the spots, 0 on the slide" in section.note.text()
    mark(section, "slide", shifted(MARKS))
    assert section.table.rowCount() == 4
    assert [section.table.item(row, 2).text() for row in range(4)] == ["0.0"] * 4
    section.apply_button.click()
    np.testing.assert_allclose(result.grid.xy, shifted(before))
    np.testing.assert_allclose(section.marks().positions("spots"), shifted(MARKS))
    assert "similarity of 4 landmarks" in facts_of(result.adata)["corrections"][0]
    np.testing.assert_array_equal(result.adata.obsm["spatial_source"], before)
    section.undo_button.click()
    np.testing.assert_allclose(result.grid.xy, before)
    np.testing.assert_allclose(section.marks().positions("spots"), MARKS)
    assert not section.undo_button.isEnabled()


def test_another_order_is_noticed_and_repaired(section, session):
    mark(section, "spots", MARKS)
    mark(section, "slide", shifted(MARKS)[[2, 0, 3, 1]])
    assert "tick 'Pair them in any order'" in section.note.text()
    section.any_order.setChecked(True)
    assert [section.table.item(row, 1).text() for row in range(4)] == ["2", "4", "1", "3"]
    assert section.note.text().startswith("Mean residual 0.0 µm")


def test_a_mirror_image_is_said(section, session):
    mark(section, "spots", MARKS)
    mark(section, "slide", MARKS * [-1, 1] + [700, 0])
    assert "mirror image" in section.note.text()


def test_residuals_are_micrometres(section, session):
    fixed = MARKS.copy()
    fixed[1] += (40, 0)
    mark(section, "spots", MARKS)
    mark(section, "slide", fixed)
    residuals = [float(section.table.item(row, 2).text()) for row in range(4)]
    assert np.argmax(residuals) == 1
    assert 5 < residuals[1] < 20  # 40 px of 0.5 µm, of which the fit takes a share


def test_bending_needs_a_spline(section, session, tmp_path):
    result = session.current_result
    grid = np.stack(np.meshgrid([100, 300, 500], [100, 300, 500]), -1).reshape(-1, 2).astype(float)
    mark(section, "spots", grid)
    mark(section, "slide", grid + 10 * np.sin(grid[:, ::-1] / 90))
    section.kind.setCurrentText("thin-plate spline")
    assert "each predicted from the others" in section.note.text()
    section.write_landmarks(tmp_path / "marks.csv")
    table = np.loadtxt(tmp_path / "marks.csv", delimiter=",", skiprows=1)
    np.testing.assert_allclose(table[:, :2], grid)
    section.apply_button.click()
    assert "transform" not in facts_of(result.adata)
    assert "thin-plate spline of 9 landmarks" in facts_of(result.adata)["corrections"][0]


def test_keypoints_become_landmarks(section, session, tmp_path):
    pairs = np.column_stack([MARKS, shifted(MARKS)])
    text = "\n".join(["fixedX,fixedY,alignmentX,alignmentY", *(",".join(map(str, row)) for row in pairs)])
    (tmp_path / "keypoints.csv").write_text(text)
    before = session.current_result.grid.xy.copy()
    section.read(tmp_path / "keypoints.csv")
    assert section.note.text().startswith("Mean residual 0.0 µm")
    np.testing.assert_array_equal(session.current_result.grid.xy, before)  # until the user has seen the residuals
    section.write_landmarks(tmp_path / "saved.csv")
    section.clear()
    section.read(tmp_path / "saved.csv")
    section.apply_button.click()
    np.testing.assert_allclose(session.current_result.grid.xy, shifted(before), atol=1e-3)


@pytest.mark.parametrize(
    ("name", "inverted"),
    [("matrix.csv", False), ("x_he_imagealignment.csv", True), ("x_alignment_files/matrix.csv", True)],
)
def test_an_alignment_file_moves_the_spots(section, session, tmp_path, monkeypatch, name, inverted):
    result = session.current_result
    before = result.grid.xy.copy()
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("2,0,10\n0,2,-6\n0,0,1\n")
    section.read(tmp_path / name)
    expected = (before - [10, -6]) / 2 if inverted else before * 2 + [10, -6]
    np.testing.assert_allclose(result.grid.xy, expected)

    from napari_he2st.gui.docks import registration
    from napari_he2st.gui.widgets.save_dialog import Target

    monkeypatch.setattr(registration, "ask_where", lambda *_, **__: Target(tmp_path / "out.csv", force=False))
    section.save_button.click()
    np.testing.assert_allclose(read_matrix_csv(tmp_path / "out.csv")(before), expected)


def test_without_a_measured_section_nothing_can_be_marked(open_dock, monkeypatch):
    dock = open_dock(SlideDock)
    told = []
    monkeypatch.setattr(type(dock), "warn", lambda _, text: told.append(text))
    dock.registration.on_spots.click()
    assert told == ["Load a measured section first."]
    assert not dock.registration.read_button.isEnabled()

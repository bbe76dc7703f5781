"""The Train dock: sections and their roles, what the form says, curves of a run, and where its result goes."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
from qtpy.QtCore import Qt

from napari_he2st.data.truth import Section
from napari_he2st.engine.train_plan import Plan
from napari_he2st.gui.docks import train as module
from napari_he2st.gui.docks.train import TrainDock
from napari_he2st.gui.docks.train_form import TrainForm, system_facts
from napari_he2st.gui.widgets.curves import Curves

WAIT_MS = 60_000


@pytest.fixture
def dock(open_dock, qtbot) -> TrainDock:
    dock = open_dock(TrainDock)
    dock.opened()  # as showing it does
    qtbot.waitUntil(
        lambda: dock.predictor.row is not None and dock.form.variant.count() > 0 and not dock.busy, timeout=WAIT_MS
    )
    return dock


@pytest.fixture
def sections(square_grid, measured) -> list[Section]:
    values = np.random.default_rng(0).poisson(3, (35, 4)).astype(np.float32)
    made = []
    for name, patient in (("A1", "A"), ("A2", "A"), ("B1", "B")):
        adata = measured(square_grid(), values, list("WXYZ"))
        made.append(Section(name, adata, Path("section.png"), "generated", patient))
    return made


def test_sections_have_roles_and_patients_that_can_be_changed(dock, sections) -> None:
    dock.sections.add([(sections[0], "train"), (sections[1], "validate"), (sections[2], "holdout")])
    dock.sections.add([(sections[0], "train")])  # listed already
    assert dock.sections.table.rowCount() == 3
    assert [s.name for s in dock.sections.of("validate")] == ["A2"]
    assert dock.train_button.isEnabled()
    roles = dock.sections.table.cellWidget(0, 4)
    roles.setCurrentIndex(roles.findData(""))
    assert not dock.sections.of("train")
    assert not dock.train_button.isEnabled()
    dock.sections.table.item(2, 1).setText("C")
    assert dock.sections.of("holdout")[0].patient == "C"
    dock.sections.table.selectRow(1)
    dock.sections._remove()
    assert [s.name for s in dock.sections.sections] == ["A1", "B1"]


def test_what_is_open_can_be_learned(dock, fill) -> None:
    fill()
    dock.sections.add_open()
    assert [s.name for s in dock.sections.of("train")] == ["spots"]
    assert dock.sections.of("train")[0].slide_path == Path("section.png")


def test_the_form_says_what_training_takes(qtbot, tmp_path: Path) -> None:
    form = TrainForm()
    qtbot.addWidget(form)
    form.show_system(system_facts("stnet"), {"Mine": "/mine"})
    assert form.stain.isEnabled()
    assert not form.encoder.isEnabled()
    form.variant.setCurrentIndex(form.variant.findData("tiny"))
    form.panel.setCurrentIndex(form.panel.findData("moran"))
    form.n_genes.setValue(30)
    form.split.setCurrentIndex(form.split.findData("spot"))
    for spin, value in ((form.epochs, 7), (form.lr, 0.01), (form.batch, 16), (form.accumulate, 2), (form.tile_px, 96)):
        spin.setValue(value)
    form.flips.setChecked(True)
    found = form.choices("stnet")
    assert found.arguments == {"trunk": "densenet8", "tile_px": 96, "imagenet": False}
    assert (found.panel, found.folds, found.augment) == ("moran:30", ["spot"], ("flips",))
    assert found.recipe == {"epochs": 7, "lr": 0.01, "batch_size": 16, "accumulate": 2}
    assert "far higher" in form.note.text()
    form.start.setCurrentIndex(form.start.findData("/mine"))
    form.frozen.setChecked(True)
    going_on = form.choices("stnet")
    assert (going_on.start, going_on.frozen, going_on.arguments) == ("/mine", True, {})
    genes = tmp_path / "genes.txt"
    genes.write_text("ERBB2\n# no\nGAPDH\nERBB2\n")
    form.read_genes(genes)
    assert "2 genes" in form.panel.itemText(form.panel.findData("list"))


def test_a_system_of_features_offers_encoders(qtbot) -> None:
    form = TrainForm()
    qtbot.addWidget(form)
    form.show_system(system_facts("hyperst"), {})
    assert not form.stain.isEnabled()
    assert form.encoder.isEnabled()
    form.encoder.setCurrentIndex(form.encoder.findText("efficientnet-lite0"))
    assert form.choices("hyperst").arguments["feature_dim"] == 1280


def test_a_run_draws_curves_and_its_result_is_listed(dock, sections, session, qtbot, monkeypatch, tmp_path) -> None:
    from napari_he2st.zoo.catalogue import load

    folder = load("starter").save(tmp_path / "mine")
    going = []

    def fake(slug, roles, choices, name, watch, *, control):
        going.append((slug, [s.name for s in roles["train"]], name))
        control.start(50, "Fitting")
        for epoch in range(50):
            if control.finishing:
                break
            watch("all", {"epoch": epoch, "loss": 1.0 / (1 + epoch), "val_pcc": epoch / 50})
            control.advance()
            time.sleep(0.02)
        control.note("One thing to know")
        return str(folder), "all well"

    monkeypatch.setattr(module, "train_and_keep", fake)
    dock.sections.add([(section, "train") for section in sections])
    dock.name.setText("my own!")
    dock.train_button.click()
    assert not dock.train_button.isEnabled()
    qtbot.waitUntil(
        lambda: "all" in dock.curves.pcc.lines and len(dock.curves.pcc.lines["all"][0]) > 3, timeout=WAIT_MS
    )
    assert dock.curves.isVisibleTo(dock)
    assert "validation PCC" in dock.timeline.text()
    dock.stop_button.click()
    qtbot.waitUntil(lambda: not dock.busy_training, timeout=WAIT_MS)
    assert going == [(dock.predictor.row["slug"], ["A1", "A2", "B1"], "my-own-")]
    epochs, values, _ = dock.curves.loss.lines["all"]
    assert len(epochs) == len(values) < 50
    assert values[1] == 0.5
    assert session.predictors == [str(folder)]
    assert dock.timeline.text() == "all well"
    assert dock.train_button.isEnabled()


def test_a_check_is_told_in_words(dock, sections, qtbot, monkeypatch) -> None:
    plan = Plan(4, 4, 9, 105, 3, 125.0, 2**21, ["A1: Only 40% of 35 spots lie on tissue."])
    monkeypatch.setattr(module, "_plan", lambda slug, roles, choices, *, control: plan)
    dock.sections.add([(sections[0], "train")])
    dock.check_button.click()
    qtbot.waitUntil(lambda: "105 spots" in dock.checked.text(), timeout=WAIT_MS)
    assert "⚠ A1: Only 40%" in dock.checked.text()


def test_the_benchmark_page_shows_the_table(dock, sections, qtbot, monkeypatch, tmp_path) -> None:
    from napari_he2st.gui.docks import train_benchmark

    seen = []

    def fake(slugs, chosen, folder, **how):
        seen.append((slugs, [s.name for s in chosen], how["variant"], how["kind"]))
        return ["system", "pcc"], [["ridge", "0.4"], ["mean", "0.0"]], ["Few folds."], tmp_path / "report.html"

    monkeypatch.setattr(train_benchmark, "run_benchmark", fake)
    dock.sections.add([(section, "train") for section in sections])
    dock.pages.setCurrentIndex(1)
    page = dock.benchmark
    item = next(
        i for i in map(page.systems.item, range(page.systems.count())) if i.data(Qt.ItemDataRole.UserRole) == "egn"
    )
    item.setCheckState(Qt.CheckState.Checked)
    page.start(str(tmp_path))
    qtbot.waitUntil(lambda: page.table.rowCount() == 2, timeout=WAIT_MS)
    assert seen == [(["egn"], ["A1", "A2", "B1"], "tiny", "patient")]
    assert page.table.item(0, 0).text() == "ridge"
    assert "Few folds." in page.warnings.text()
    qtbot.waitUntil(lambda: not dock.busy_training, timeout=WAIT_MS)


def test_curves_of_several_fits_have_lines_of_their_own(qtbot) -> None:
    curves = Curves()
    qtbot.addWidget(curves)
    for fit in ("without A", "without B"):
        for epoch in range(3):
            curves.add(fit, {"epoch": epoch, "loss": float(epoch), "val_pcc": float("nan")})
    assert {fit: line[1] for fit, line in curves.loss.lines.items()} == {
        "without A": [0.0, 1.0, 2.0],
        "without B": [0.0, 1.0, 2.0],
    }
    assert not curves.pcc.lines  # nothing to show where there is no validation
    curves.clear()
    assert not curves.loss.lines


def test_a_table_of_pairs_is_added_with_its_roles(dock, qtbot, monkeypatch, sections) -> None:
    from napari_he2st.engine import train_plan

    monkeypatch.setattr(train_plan, "read_pairs", lambda path: [(sections[0], "train"), (sections[2], "holdout")])
    dock.sections.read("pairs.csv")
    qtbot.waitUntil(lambda: dock.sections.table.rowCount() == 2, timeout=WAIT_MS)
    assert [s.name for s in dock.sections.of("holdout")] == ["B1"]

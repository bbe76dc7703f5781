"""Train dock: teach a system on one's own sections, watch it learn, and find out which system to trust."""

from __future__ import annotations

import re
import shutil
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari.utils.notifications import show_info
from qtpy.QtCore import QSignalBlocker, QTimer
from qtpy.QtWidgets import QFormLayout, QLabel, QLineEdit, QTabWidget, QVBoxLayout, QWidget

from napari_he2st.core.paths import predictors_folder
from napari_he2st.core.progress import Control
from napari_he2st.gui import prediction
from napari_he2st.gui.docks.base import Dock
from napari_he2st.gui.docks.train_benchmark import BenchmarkPage
from napari_he2st.gui.docks.train_form import Choices, TrainForm, system_facts
from napari_he2st.gui.docks.train_sections import SectionsBox
from napari_he2st.gui.widgets.curves import Curves
from napari_he2st.gui.widgets.predictor_box import PredictorBox
from napari_he2st.gui.widgets.status import duration

if TYPE_CHECKING:
    import napari.viewer

    from napari_he2st.data.truth import Section
    from napari_he2st.engine.train_plan import Plan

_POLL_MS = 200
_OTHERS = ("slide_level", "domains", "alignment", "imputation", "cells")
_FIRST = "ridge"


class TrainDock(Dock):
    """Sections above; training and benchmark as pages below."""

    def __init__(self, viewer: napari.viewer.Viewer) -> None:
        super().__init__(viewer)
        self.sections = SectionsBox(self)
        self.predictor = PredictorBox()
        self.predictor.setTitle("System")
        self.predictor.browse.hide()  # trained ones are what training can start from, below
        self.form = TrainForm()
        self.name = QLineEdit(placeholderText="system and number of genes")
        self.name.setToolTip("What the predictor is called; letters, digits, dots, hyphens and underscores")
        self.checked = QLabel(wordWrap=True)
        self.curves = Curves()
        self.timeline = QLabel(wordWrap=True)
        page = QWidget()
        layout = QVBoxLayout(page)
        layout.setContentsMargins(0, 4, 0, 0)
        name = QFormLayout()
        name.addRow("Name", self.name)
        layout.addWidget(self.predictor)
        layout.addWidget(self.form)
        layout.addLayout(name)
        layout.addWidget(self.checked)
        layout.addWidget(self.timeline)
        layout.addWidget(self.curves)
        layout.addStretch(1)
        self.benchmark = BenchmarkPage(self, self.sections)
        self.pages = QTabWidget()
        self.pages.addTab(page, "Train")
        self.pages.addTab(self.benchmark, "Benchmark")
        self.body.addWidget(self.sections)
        self.body.addWidget(self.pages)
        self.check_button = self.add_button("Check", "See whether sections fit, and how long it would take", self.check)
        self.train_button = self.add_button("Train", "Learn; a stopped training goes on where it was", self.start)
        self.stop_button = self.add_button("Stop early", "End after this epoch and keep what was learned", self._finish)
        self.benchmark_button = self.add_button("Benchmark", "Train and score all ticked systems", self.benchmark.start)
        self.pages.currentChanged.connect(lambda _: self._show_state())
        self.sections.changed.connect(self._show_state)
        self.form.changed.connect(self._show_state)
        self.predictor.chosen.connect(self._system_chosen)
        self._control: Control | None = None
        self._records: list[tuple[str, dict[str, Any]]] = []
        self._drawn = 0
        self._timer = QTimer(self)
        self._timer.setInterval(_POLL_MS)
        self._timer.timeout.connect(self._draw)
        self._bundles: dict[str, list[tuple[str, str]]] = {}
        self._show_state()

    # --- what can be trained

    def opened(self) -> None:
        """List the systems, and what is measured in this window."""
        self.run(prediction.list_models, name="Listing systems", quiet=True, on_done=self._list)
        if any(result.kind == "measured" for result in self.session.results.values()):
            self.sections.add_open()

    def _list(self, rows: list[dict[str, Any]]) -> None:
        for row in rows:
            if row["kind"] == "bundle":
                self._bundles.setdefault(row["system"], []).append((row["title"], row["path"]))
        systems = [
            r for r in rows if r["kind"] == "system" and r["tasks"][0] not in _OTHERS and r["status"] != "unavailable"
        ]
        self.predictor.add_rows(systems)
        self.benchmark.list_systems(systems)
        with QSignalBlocker(self.predictor):
            self.predictor.choose(_FIRST)
        self._system_chosen()

    def _system_chosen(self) -> None:
        row = self.predictor.row
        if row is None:
            return
        self.predictor.show_card(row)
        self.run(
            system_facts,
            row["slug"],
            name=f"Loading {row['title']}",
            quiet=True,
            on_done=partial(self._show_system, row["slug"]),
        )

    def _show_system(self, slug: str, facts: dict[str, Any]) -> None:
        row = self.predictor.row
        if row is not None and row["slug"] == slug:
            self.form.show_system(facts, dict(self._bundles.get(slug, [])))

    def _show_state(self) -> None:
        """Which buttons can be pressed."""
        training = self.pages.currentIndex() == 0
        ready = bool(self.sections.of("train")) and not self.busy_training
        for button in (self.check_button, self.train_button, self.stop_button):
            button.setVisible(training)
        self.benchmark_button.setVisible(not training)
        self.check_button.setEnabled(ready and self.predictor.row is not None)
        self.train_button.setEnabled(ready and self.predictor.row is not None)
        self.stop_button.setEnabled(self.busy_training)
        self.benchmark_button.setEnabled(ready)

    @property
    def busy_training(self) -> bool:
        """Whether a training or benchmark goes on."""
        return self._control is not None

    # --- before

    def check(self) -> None:
        """Say what a training would do, and what speaks against it."""
        row = self.predictor.row
        if row is None:
            return
        self.checked.setText("Checking …")
        self.reveal(self.checked)
        roles = {role: self.sections.of(role) for role in ("train", "validate", "holdout")}
        self.run(
            _plan,
            row["slug"],
            roles,
            self.form.choices(row["slug"]),
            name="Checking",
            control=Control(),
            on_done=self._show_plan,
            on_error=lambda error: self.checked.setText(str(error)),
        )

    def _show_plan(self, plan: Plan) -> None:
        lines = [
            f"{plan.genes:,} genes ({plan.shared:,} of {plan.measured:,} are measured everywhere), "
            f"{plan.spots:,} spots to learn, {plan.fits} fit{'s' if plan.fits > 1 else ''}: "
            f"about {duration(plan.seconds)}, {plan.memory_bytes / 2**20:,.0f} MiB.",
            *(f"⚠ {text}" for text in plan.warnings),
        ]
        self.checked.setText("\n".join(lines))
        self.reveal(self.checked)

    # --- the run

    def start(self) -> None:
        """Train what is chosen."""
        row = self.predictor.row
        if row is None or self.busy_training:
            return
        roles = {role: self.sections.of(role) for role in ("train", "validate", "holdout")}
        choices = self.form.choices(row["slug"])
        name = re.sub(r"[^A-Za-z0-9._-]+", "-", self.name.text().strip()) or None
        self.begin()
        self.curves.clear()
        self._records, self._drawn = [], 0
        self._timer.start()
        self.run(
            train_and_keep,
            row["slug"],
            roles,
            choices,
            name,
            lambda label, record: self._records.append((label, record)),  # drawn by the timer, in the GUI thread
            name=f"Training {row['title']}",
            can_pause=True,
            control=self._control,
            ask_on_close=True,
            on_done=self._trained,
            on_end=self.end,
        )

    def begin(self) -> Control:
        """Note that a training or benchmark begins; returns its control."""
        self._control = Control()
        self._show_state()
        return self._control

    def end(self) -> None:
        """Note that it ended, however it did."""
        self._draw()
        self._timer.stop()
        if self._control is not None and self._control.cancelled:
            self.timeline.setText("Stopped. Train goes on where it was, with the same choices.")
        for note in self._control.notes if self._control is not None else ():
            self.warn(note)
        self._control = None
        self._show_state()

    def _finish(self) -> None:
        if self._control is not None:
            self._control.finish()
            self.say("Ending after this epoch …")

    def _draw(self) -> None:
        """Draw the records that came since the last time, and say how long it will take."""
        new = self._records[self._drawn :]
        if not new:
            return
        self._drawn += len(new)
        for label, record in new:
            self.curves.add(label, record)
        label, record = self._records[-1]
        values = [
            f"{name.replace('val_pcc', 'validation PCC')} {v:.4g}" for name, v in record.items() if name != "epoch"
        ]
        n = sum(fit == label for fit, _ in self._records)
        self.timeline.setText(f"{label}, epoch {n}: {', '.join(values)}")

    def _trained(self, found: tuple[str, str]) -> None:
        folder, text = found
        self._draw()  # what is left of the curves, before the result is told in their place
        self.session.add_predictor(folder)
        self.timeline.setText(text)
        self.say(f"{Path(folder).name} is trained and listed in the Predict dock.")
        show_info(f"{Path(folder).name} is trained.")


def _plan(slug: str, roles: dict[str, list[Section]], choices: Choices, *, control: Control) -> Plan:
    from napari_he2st.engine.train_plan import plan_training

    return plan_training(slug, roles["train"], control=control, **choices.told(roles))


def train_and_keep(
    slug: str,
    roles: dict[str, list[Section]],
    choices: Choices,
    name: str | None,
    watch: Any,
    *,
    control: Control,
) -> tuple[str, str]:
    """Train, keep the bundle among the user's predictors, and say in words how good it is."""
    from napari_he2st.engine.checkpoints import SUFFIX
    from napari_he2st.engine.model_card import model_card
    from napari_he2st.engine.train import train
    from napari_he2st.engine.trained import About

    folder = predictors_folder()
    title = name or f"{slug}-{'-'.join(section.name for section in roles['train'])}"
    kept = folder / re.sub(r"[^A-Za-z0-9._-]+", "-", title[:80])
    checkpoints = kept.with_name(kept.name + SUFFIX)
    bundle = train(
        slug,
        roles["train"],
        seed=choices.seed,
        about=About(name=kept.name, title=title, trusted_pcc=choices.trusted_pcc),
        departures=choices.departures(),
        checkpoints=checkpoints,
        watch=watch,
        control=control,
        **choices.told(roles),
    )
    bundle.save(kept, force=True, model_card=model_card(bundle))
    shutil.rmtree(checkpoints, ignore_errors=True)
    told = f"{kept}: {len(bundle.genes):,} genes"
    if bundle.manifest.splits:
        means = [f"{s['mean_pcc']:.3f}" for s in bundle.manifest.splits if s["mean_pcc"] is not None]
        told += f"; held-out PCC {', '.join(means)}; {len(bundle.doubtful):,} genes below {choices.trusted_pcc:g}"
    return str(kept), told

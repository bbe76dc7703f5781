"""Predict dock: choose a predictor and where, see what it will cost, run it and watch the map fill."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.QtWidgets import (
    QCheckBox,
    QDoubleSpinBox,
    QFormLayout,
    QGroupBox,
    QHBoxLayout,
    QLabel,
    QPushButton,
    QWidget,
)
from superqt import QCollapsible
from superqt.utils import qdebounced

from napari_he2st.core import keys
from napari_he2st.core.progress import Control
from napari_he2st.core.types import Chunk, Grid, Region
from napari_he2st.engine.session import Result
from napari_he2st.gui import prediction
from napari_he2st.gui.docks.base import Dock
from napari_he2st.gui.docks.fit_box import FitBox
from napari_he2st.gui.docks.live_box import LiveBox
from napari_he2st.gui.docks.slide_result_box import SlideResultBox
from napari_he2st.gui.prediction import Run
from napari_he2st.gui.stain_panel import StainPanel
from napari_he2st.gui.widgets.combo import Combo, SearchCombo
from napari_he2st.gui.widgets.predictor_box import PredictorBox
from napari_he2st.gui.widgets.status import duration
from napari_he2st.gui.worker import Task

if TYPE_CHECKING:
    import napari.viewer

    from napari_he2st.data.slides.tissue import TissueMask
    from napari_he2st.engine.estimate import Estimate
    from napari_he2st.engine.session import SlideItem
    from napari_he2st.zoo.bundle import Bundle

WHOLE, VIEW, REGIONS, SPOTS = "Whole slide", "Current view", "Drawn regions", "Measured spots"
_SPECIES = ("human", "mouse", "rat", "zebrafish")


class PredictDock(Dock):
    """Choose, preview, run."""

    def __init__(self, viewer: napari.viewer.Viewer) -> None:
        super().__init__(viewer)
        self._bundle: Bundle | None = None
        self._wanted: str | None = None  # name or path of the bundle that is loading or loaded
        self._grid: Grid | None = None
        self._cost: Estimate | None = None
        self._run: Task | None = None
        self._had_outline = False  # before the preview showed it
        self._planned = 0  # number of the last plan; answers to earlier ones are dropped
        self.predictor = PredictorBox()
        self.predictor.chosen.connect(self._model_chosen)
        self.predictor.opened.connect(self.load)
        self.body.addWidget(self.predictor)
        self.fit = FitBox(self, self._measured, self._loaded, lambda: self.stain.chosen)
        self.body.addWidget(self.fit)
        self.body.addWidget(self._slide_box())
        self.body.addWidget(self._area_box())
        self.live = LiveBox(self, self._live_ready)
        self.body.addWidget(self.live)
        self.slide_result = SlideResultBox(self)
        self.body.addWidget(self.slide_result)
        self.body.addWidget(self._more())
        note = QLabel(keys.RESEARCH_USE)
        note.setWordWrap(True)
        self.body.addWidget(note)
        self.run_button = self.add_button("Predict", "Start; the map fills in while it runs", self.start)
        self.run_button.setEnabled(False)
        self.listen(self.session.selection_changed, self._slide_selected)
        self.listen(self.session.slide_changed, self._changed)
        self.listen(self.session.regions_changed, self._changed)
        self.listen(self.session.result_added, self._result_added)

    def _slide_box(self) -> QGroupBox:
        box = QGroupBox("This slide")
        self.organ = SearchCombo("Organ or tissue of the slide; a predictor trained on another one is pointed out")
        self.species = Combo("Species of the slide; a predictor trained on another one is pointed out")
        self.species.addItems(["not stated", *_SPECIES])
        self.organ.addItem("not stated")
        self.doubt = QLabel()
        self.doubt.setWordWrap(True)
        self.doubt.hide()
        for combo in (self.organ, self.species):
            combo.currentIndexChanged.connect(lambda _: self._show_doubts())
        form = QFormLayout(box)
        form.addRow("Organ", self.organ)
        form.addRow("Species", self.species)
        form.addRow(self.doubt)
        return box

    def _area_box(self) -> QGroupBox:
        box = QGroupBox("Where")
        self.area = Combo("What to predict")
        self.area.addItems([WHOLE, VIEW, REGIONS, SPOTS])
        self.area.currentTextChanged.connect(self._changed)
        self.draw_button = QPushButton("Draw")
        self.draw_button.setToolTip("Draw regions on the slide: click corners, double-click to close")
        self.draw_button.clicked.connect(lambda *_: self._draw())
        self.update_button = QPushButton("Update")
        self.update_button.setToolTip("Take the part of the slide that is on screen now")
        self.update_button.clicked.connect(self._changed)
        self.pitch = QDoubleSpinBox()
        self.pitch.setRange(1, 2000)
        self.pitch.setDecimals(1)
        self.pitch.setSuffix(" µm")
        self.pitch.setKeyboardTracking(False)
        self.pitch.setToolTip("Distance between neighbouring predictions; the predictor's own is the one to trust")
        self.pitch.setValue(100)
        self.pitch.valueChanged.connect(self._changed)
        self.preview = QCheckBox("Show tiles")
        self.preview.setToolTip("Preview which tiles will be predicted, and the outline of the tissue")
        self.preview.toggled.connect(self._preview)
        self.cost = QLabel()
        self.cost.setWordWrap(True)
        row = QHBoxLayout()
        row.addWidget(self.area, 1)
        row.addWidget(self.draw_button)
        row.addWidget(self.update_button)
        form = QFormLayout(box)
        form.addRow("Area", row)
        form.addRow("Every", self.pitch)
        form.addRow(self.preview)
        form.addRow(self.cost)
        return box

    def _more(self) -> QCollapsible:
        box = QCollapsible("More options")
        self.device = Combo("Where the model runs; auto takes a graphics card if there is one")
        self.device.addItems(["auto", "cpu", "cuda", "mps"])
        self.device.currentTextChanged.connect(self._costs_changed)
        self.keep = QCheckBox("Keep on disk, to go on after a stop")
        self.keep.setToolTip("Whole-slide runs are written to the cache folder; the same run goes on where it ended")
        content = QWidget()
        form = QFormLayout(content)
        self.stain = StainPanel(self)
        self.stain.changed.connect(self._costs_changed)
        form.addRow("Device", self.device)
        form.addRow("Stain", self.stain)
        form.addRow(self.keep)
        box.addWidget(content)
        return box

    # --- predictors

    def opened(self) -> None:
        """List the predictors and load the first one, with the model code."""
        self.run(prediction.list_models, name="Listing predictors", quiet=True, on_done=self._list)
        self._slide_selected()

    def _list(self, rows: list[dict[str, Any]]) -> None:
        organs = sorted({organ for row in rows for organ in row["organs"]})
        self.organ.addItems(organs)
        self.predictor.add_rows(rows)
        if self._wanted is None:
            self._model_chosen()

    def load(self, name_or_path: str) -> None:
        """Load a trained predictor by name, or from its folder."""
        self._wanted = name_or_path
        self._set_bundle(None)
        self.run(
            prediction.load_bundle,
            name_or_path,
            name=f"Loading {Path(name_or_path).name}",
            on_done=lambda loaded: self._loaded(*loaded) if self._wanted == name_or_path else None,
        )

    def _model_chosen(self) -> None:
        row = self.predictor.row
        if row is None:
            return
        self.predictor.show_card(row)
        self.fit.show_system(row)
        if row["kind"] == "bundle":
            self.load(row["path"])
            return
        self._wanted = row["slug"]
        self._set_bundle(None)
        if row["fitted"] == "slide":
            self.say(f"{row['title']} learns from spots measured on this slide.")
        else:
            self.say(f"{row['title']} has to be trained first: he2st train {row['slug']} --help shows how.")

    def _loaded(self, bundle: Bundle, row: dict[str, Any]) -> None:
        self.predictor.add_rows([row])
        self.predictor.choose(bundle.id)
        self._set_bundle(bundle)
        self.say(f"{bundle.manifest.title} is ready.")

    def _set_bundle(self, bundle: Bundle | None) -> None:
        self._bundle = bundle
        self._forget_cost()
        if bundle is not None:
            self.predictor.show_card(self.predictor.row_of(bundle.id), bundle.manifest)
            self.pitch.setValue(bundle.manifest.pitch_um)
            self.stain.choose(bundle.manifest.stain or None)
        self._show_doubts()
        self._changed()

    def _stated(self, combo: Combo) -> str:
        return combo.currentText() if combo.currentIndex() > 0 else ""

    def _doubts(self) -> list[str]:
        item = self.session.current_slide
        if self._bundle is None or item is None:
            return []
        organ, species = self._stated(self.organ), self._stated(self.species)
        return prediction.doubts(self._bundle.manifest, item.slide, organ, species)

    def _show_doubts(self) -> None:
        doubts = self._doubts()
        self.doubt.setText("⚠ " + " ".join(doubts) if doubts else "")
        self.doubt.setVisible(bool(doubts))

    # --- where, and what it costs

    def _slide_selected(self) -> None:
        self.fit.show_ready()
        self.stain.draw()
        self._show_doubts()
        self._changed()

    def _result_added(self, name: str) -> None:
        self.fit.show_ready()
        if self.area.currentText() == SPOTS and self.session.results[name].kind == "measured":
            self._changed()

    def _draw(self) -> None:
        if self.session.slide is not None:
            self.area.setCurrentText(REGIONS)
            self.layers.draw_regions(self.session.slide)

    def _changed(self, *_: Any) -> None:
        """Forget the plan; a moment later, or after the run that goes on, there is a new one."""
        if self.predicting:
            return
        self._planned += 1
        self._grid = None
        self.draw_button.setVisible(self.area.currentText() == REGIONS)
        self.update_button.setVisible(self.area.currentText() == VIEW)
        self.pitch.setEnabled(self.area.currentText() != SPOTS)
        self._show_state()
        self._plan_soon()

    @qdebounced(timeout=150)
    def _plan_soon(self) -> None:
        item = self.session.current_slide
        if item is None or self._bundle is None or self.predicting:
            return
        if self.area.currentText() == SPOTS:
            grid = self._measured_grid()
            if grid is not None:
                self._plan_ready(grid)
        elif self._regions(item.name) != []:
            self.with_mask(item, self._plan)

    def _plan(self, mask: TissueMask) -> None:
        item, number = self.session.current_slide, self._planned
        if item is None:
            return
        self.run(
            prediction.plan,
            item.slide,
            mask,
            self.pitch.value(),
            self._regions(item.name),
            name="Laying out tiles",
            quiet=True,
            on_done=lambda grid: self._plan_ready(grid) if number == self._planned else None,
        )

    def _regions(self, slide: str) -> list[Region] | None:
        if self.area.currentText() == VIEW:
            return [self.layers.current_view(slide)]
        return self.session.regions[slide] if self.area.currentText() == REGIONS else None

    def _measured(self) -> tuple[SlideItem, Result] | None:
        """The current slide and what is measured on it: the current result, or the first one."""
        item = self.session.current_slide
        if item is None:
            return None
        on_slide = [r for r in self.session.results.values() if r.slide == item.name and r.kind == "measured"]
        current = self.session.current_result
        result = current if current in on_slide else next(iter(on_slide), None)
        return None if result is None else (item, result)

    def _measured_grid(self) -> Grid | None:
        """Spots of the measured result to predict at."""
        found = self._measured()
        return None if found is None else found[1].grid

    def _plan_ready(self, grid: Grid) -> None:
        self._grid = grid
        self._show_tiles()
        self._show_state()
        item = self.session.current_slide
        whole = self._bundle is not None and prediction.sees_bag(self._bundle)
        if len(grid) and self._cost is None and item is not None and self._bundle is not None and not whole:
            probe = Run(self._bundle, item.slide, grid, self.device.currentText(), stain=self.stain.chosen)
            self.run(probe.cost, name="Timing tiles", quiet=True, on_done=partial(self._timed, self._bundle))

    def _timed(self, bundle: Bundle, cost: Estimate) -> None:
        if bundle is self._bundle:
            self._cost = cost
            self._show_state()

    def _forget_cost(self) -> None:
        self._cost = None

    def _costs_changed(self) -> None:
        self._forget_cost()
        self._changed()

    def _preview(self, on: bool) -> None:
        slide = self.session.slide
        if slide is not None:
            self._had_outline = self.layers.mask_shown(slide) if on else self._had_outline
            self.layers.show_mask(slide, on or self._had_outline)
        self._show_tiles()

    def _show_tiles(self) -> None:
        self.layers.show_tiles(self._grid if self.preview.isChecked() else None)

    def _show_state(self) -> None:
        """What would happen on Predict, or what is missing for it."""
        ready = self._grid is not None and len(self._grid) > 0 and not self.predicting
        self.run_button.setEnabled(ready)
        self.live.show_ready()
        if self.session.current_slide is None:
            self.cost.setText("Open a slide first, in the Slide dock.")
        elif self._bundle is None:
            self.cost.setText("Choose a trained predictor.")
        elif self._regions(self.session.current_slide.name) == []:
            self.cost.setText("Draw a region over tissue.")
        elif self.area.currentText() == SPOTS and self._measured_grid() is None:
            self.cost.setText("Load measured expression first, in the Slide dock.")
        elif self._grid is None:
            self.cost.setText("Laying out tiles …")
        elif not len(self._grid):
            self.cost.setText("There is no tissue here.")
        else:
            self.cost.setText(self._cost_text(self._grid))

    def _cost_text(self, grid: Grid) -> str:
        n_bytes = len(grid) * len(self._bundle.manifest.genes) * 4 if self._bundle is not None else 0
        size = f"{n_bytes / 2**20:,.0f} MiB" if n_bytes >= 2**20 else f"{n_bytes / 2**10:,.0f} KiB"
        if self._bundle is not None and prediction.sees_bag(self._bundle):
            return "One result for the whole slide, and a map of what it rests on."
        if self._cost is None:
            return f"{len(grid):,} tiles, {size}; timing a few of them …"
        seconds = self._cost.seconds / max(self._cost.tiles, 1) * len(grid)
        return f"{len(grid):,} tiles, about {duration(seconds)}, {size} in memory (and on disk, if kept)"

    def _live_ready(self) -> tuple[Bundle, SlideItem, float, str, str | None] | None:
        """What predicts live: once the model has run on this slide, and while no other run goes on."""
        item = self.session.current_slide
        if item is None or self._bundle is None or self._cost is None or self.predicting:
            return None
        return self._bundle, item, self.pitch.value(), self.device.currentText(), self.stain.chosen

    # --- the run

    @property
    def predicting(self) -> bool:
        """Whether a prediction goes on."""
        return self._run is not None and self._run.running

    def start(self) -> None:
        """Predict what is planned."""
        item, bundle, grid = self.session.current_slide, self._bundle, self._grid
        if item is None or bundle is None or grid is None or self.predicting:
            return
        if prediction.sees_bag(bundle):
            self._run = self.slide_result.predict(
                bundle, item, self.device.currentText(), self.stain.chosen, self._doubts()
            )
            self._show_state()
            return
        from napari_he2st.engine.results import result_facts

        whole = self.area.currentText() == WHOLE
        stain = self.stain.chosen
        kept = whole and self.keep.isChecked()
        store = prediction.store_folder(bundle, item.slide, grid.pitch_um, stain) if kept else None
        order = "raster" if whole else "centre"
        work = Run(bundle, item.slide, grid, self.device.currentText(), order, store, stain)
        self.preview.setChecked(False)
        self.live.toggle.setChecked(False)
        facts = {**result_facts(bundle), "warnings": self._doubts()}
        result = self.session.begin_result(bundle.id, item.name, grid, bundle.genes, **facts)
        for doubt in result.warnings:
            self.warn(doubt)
        control = Control()
        self._run = self.run(
            work.chunks,
            name=f"Predicting {item.name}",
            can_pause=True,
            control=control,
            ask_on_close=whole,
            on_yield=partial(self._fill, result.name),
            on_end=partial(self._ended, work, result, control),
        )
        self._show_state()

    def _fill(self, name: str, chunk: Chunk) -> None:
        self.session.fill(name, chunk)
        if name not in self.session.results and self._run is not None:
            self._run.cancel()  # nobody waits for it any more

    def _ended(self, work: Run, result: Result, control: Control) -> None:
        """Complete, stopped or failed: what is done stays, and can be exported."""
        done, total = control.done, len(work.grid)
        if done < total:
            result.warnings.append(f"Stopped after {done:,} of {total:,} tiles; the others are unknown.")
        self._changed()
        self.run(
            work.adata,
            result,
            name="Completing the result",
            on_done=partial(self._finished, result.name, f"{done:,} of {total:,} tiles are predicted."),
        )

    def _finished(self, name: str, text: str, adata: Any) -> None:
        self.session.finish(name, adata)
        self.say(text)

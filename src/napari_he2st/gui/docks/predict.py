"""Predict dock: choose a predictor and where, see what it will cost, run it and watch the map fill."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from qtpy.QtWidgets import QCheckBox, QFormLayout, QLabel, QWidget
from superqt import QCollapsible

from napari_he2st.core import keys
from napari_he2st.core.errors import He2stError
from napari_he2st.core.progress import Control
from napari_he2st.core.types import Chunk, Grid
from napari_he2st.engine.session_items import Made, Result
from napari_he2st.engine.store import disk_bytes
from napari_he2st.gui import prediction
from napari_he2st.gui.docks.base import Dock
from napari_he2st.gui.docks.fit_box import FitBox
from napari_he2st.gui.docks.live_box import LiveBox
from napari_he2st.gui.docks.origin_box import OriginBox
from napari_he2st.gui.docks.slide_result_box import SlideResultBox
from napari_he2st.gui.docks.where_box import SPOTS, WhereBox
from napari_he2st.gui.prediction import Run
from napari_he2st.gui.stain_panel import StainPanel
from napari_he2st.gui.widgets.combo import Combo
from napari_he2st.gui.widgets.predictor_box import PredictorBox
from napari_he2st.gui.widgets.sampling_form import SamplingForm
from napari_he2st.gui.widgets.status import duration
from napari_he2st.gui.worker import Task

if TYPE_CHECKING:
    import napari.viewer

    from napari_he2st.engine.estimate import Estimate
    from napari_he2st.engine.session_items import SlideItem
    from napari_he2st.engine.shards import Precision
    from napari_he2st.zoo.bundle import Bundle


class PredictDock(Dock):
    """Choose, preview, run."""

    def __init__(self, viewer: napari.viewer.Viewer) -> None:
        super().__init__(viewer)
        self._bundle: Bundle | None = None
        self._kind: prediction.Kind | None = None  # of the bundle
        self._wanted: str | None = None  # name or path of the bundle that is loading or loaded
        self._cost: Estimate | None = None
        self._run: Task | None = None
        self.predictor = PredictorBox()
        self.predictor.chosen.connect(self._model_chosen)
        self.predictor.opened.connect(self.load)
        self.fit = FitBox(self, self._measured, self._loaded, lambda: self.stain.chosen)
        self.origin = OriginBox(self.session, lambda: self._bundle)
        self.where = WhereBox(self, self._measured)
        self.where.changed.connect(self._show_state)
        self.where.planned.connect(self._planned)
        self.live = LiveBox(self, self._live_ready)
        self.slide_result = SlideResultBox(self)
        for box in (self.predictor, self.fit, self.origin, self.where, self.live, self.slide_result, self._more()):
            self.body.addWidget(box)
        note = QLabel(keys.RESEARCH_USE)
        note.setWordWrap(True)
        self.body.addWidget(note)
        self.run_button = self.add_button("Predict", "Start; the map fills in while it runs", self.start)
        self.run_button.setEnabled(False)
        self.listen(self.session.predictor_added, self._trained)
        self.listen(self.session.selection_changed, self._slide_selected)
        self.listen(self.session.slide_changed, self._changed)
        self.listen(self.session.nuclei_changed, self._changed)
        self.listen(self.session.regions_changed, self._changed)
        self.listen(self.session.result_added, self._result_added)

    def _more(self) -> QCollapsible:
        box = QCollapsible("More options")
        self.device = Combo(
            "Where the model runs; auto takes a graphics card if there is one, openvino is the CPU made faster"
        )
        self.device.addItems(["auto", "cpu", "openvino", "cuda", "mps"])
        self.device.currentTextChanged.connect(self._costs_changed)
        self.keep = QCheckBox("Keep on disk, to go on after a stop")
        self.keep.setToolTip("Whole-slide runs are written to the cache folder; the same run goes on where it ended")
        self.precision = Combo("Of the values on disk; float16 takes half the space and keeps three digits")
        self.precision.addItems(["float32", "float16"])
        self.precision.setEnabled(False)
        self.keep.toggled.connect(self.precision.setEnabled)
        self.keep.toggled.connect(lambda _: self._show_state())
        self.precision.currentTextChanged.connect(lambda _: self._show_state())
        content = QWidget()
        form = QFormLayout(content)
        self.stain = StainPanel(self)
        self.stain.changed.connect(self._costs_changed)
        form.addRow("Device", self.device)
        self.sampling = SamplingForm()
        self.sampling.changed.connect(self._costs_changed)
        form.addRow("Stain", self.stain)
        form.addRow(self.keep)
        form.addRow("Kept as", self.precision)
        self._options = form
        form.addRow(self.sampling)
        box.addWidget(content)
        return box

    # --- predictors

    def opened(self) -> None:
        """List the predictors and load the first one, with the model code."""
        self.run(prediction.list_models, name="Listing predictors", quiet=True, on_done=self._list)
        self._slide_selected()

    def _trained(self, folder: str) -> None:
        """List what another dock trained."""
        from napari_he2st.zoo.catalogue import bundle_row
        from napari_he2st.zoo.manifest import read_manifest

        manifest = read_manifest(Path(folder))
        self.predictor.add_rows([{**bundle_row(manifest.name, manifest), "path": folder}])

    def _list(self, rows: list[dict[str, Any]]) -> None:
        self.origin.organ.addItems(sorted({organ for row in rows for organ in row["organs"]}))
        self.predictor.add_rows(rows)
        for folder in self.session.predictors:
            self._trained(folder)
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
        self._bundle, self._cost = bundle, None
        self._kind = None if bundle is None else prediction.kind_of(bundle)
        if bundle is not None:
            self.predictor.show_card(self.predictor.row_of(bundle.id), bundle.manifest)
            self.stain.choose(bundle.manifest.stain or None)
        self.origin.show_doubts()
        self.live.setVisible(self._kind in (None, "spots"))
        for row in (self.keep, self.precision):
            self._options.setRowVisible(row, self._kind != "slide")
        self.sampling.show_model(None if bundle is None else bundle.members[0])
        self.where.show_kind(self._kind, None if bundle is None else bundle.manifest.pitch_um)

    # --- what would happen

    def _slide_selected(self) -> None:
        self.fit.show_ready()
        self.stain.draw()
        self.origin.show_doubts()
        self.where.plan()

    def _changed(self, *_: Any) -> None:
        self.where.plan()

    def _result_added(self, name: str) -> None:
        self.fit.show_ready()
        if self.where.area.currentText() == SPOTS and self.session.results[name].kind == "measured":
            self.where.plan()

    def _measured(self) -> tuple[SlideItem, Result] | None:
        """The current slide and what is measured on it: the current result, or the first one."""
        item = self.session.current_slide
        if item is None:
            return None
        on_slide = [r for r in self.session.results.values() if r.slide == item.name and r.kind == "measured"]
        current = self.session.current_result
        result = current if current in on_slide else next(iter(on_slide), None)
        return None if result is None else (item, result)

    def _planned(self) -> None:
        self._show_state()
        item, grid, bundle = self.session.current_slide, self.where.grid, self._bundle
        if item is None or bundle is None or not grid or self._cost is not None or self._kind == "slide":
            return
        try:
            probe = self._run_of(bundle, item, grid)
        except He2stError as error:  # an option that is being typed
            self.where.cost.setText(str(error))
            return
        self.run(probe.cost, name="Timing tiles", quiet=True, on_done=partial(self._timed, bundle))

    def _run_of(self, bundle: Bundle, item: SlideItem, grid: Grid, **how: Any) -> Run:
        """A run by what is chosen now."""
        device, stain = self.device.currentText(), self.stain.chosen
        sampling = self.sampling.values()
        how["precision"] = self._precision
        return Run(bundle, item.slide, grid, device, stain=stain, nuclei=item.nuclei, sampling=sampling, **how)

    def _told(self) -> dict[str, Any]:
        """What a run by what is chosen now is told beside where, see :class:`Made`."""
        chosen = self.predictor.row or {}
        how = {"stain": self.stain.chosen, "device": self.device.currentText(), **self.sampling.values()}
        return {"bundle": chosen.get("path", self._wanted), **how}

    def _timed(self, bundle: Bundle, cost: Estimate) -> None:
        if bundle is self._bundle:
            self._cost = cost
            self._show_state()

    def _costs_changed(self) -> None:
        self._cost = None
        self.where.plan()

    def _show_state(self) -> None:
        """What would happen on Predict, or what is missing for it."""
        grid = self.where.grid
        self.run_button.setEnabled(bool(grid) and not self.predicting)
        self.live.show_ready()
        if grid is not None:
            self.where.cost.setText(self._cost_text(grid) if len(grid) else f"There is no {self._unit} here.")
        else:
            self.where.cost.setText(self.where.missing() or "Laying out tiles …")

    @property
    def _unit(self) -> str:
        return "nucleus" if self._kind == "cells" else "tissue"

    def _cost_text(self, grid: Grid) -> str:
        if self._kind == "slide" or self._bundle is None:
            return "One result for the whole slide, and a map of what it rests on."
        shape = len(grid), len(self._bundle.manifest.genes)
        size = _size(shape[0] * shape[1] * 4)
        what = f"{len(grid):,} {'cells' if self._kind == 'cells' else 'tiles'}"
        if self._cost is None:
            return f"{what}, {size}; timing a few of them …"
        seconds = self._cost.seconds / max(self._cost.tiles, 1) * len(grid)
        disk = f", {_size(disk_bytes(*shape, precision=self._precision))} on disk" if self._kept else ""
        return f"{what}, about {duration(seconds)}, {size} in memory{disk}"

    @property
    def _kept(self) -> bool:
        """Whether a run that is started now is kept on disk."""
        return self.where.whole and self.keep.isChecked()

    @property
    def _precision(self) -> Precision:
        return cast("Precision", self.precision.currentText())

    def _live_ready(self) -> tuple[Bundle, SlideItem, float, str, str | None] | None:
        """What predicts live: once the model has run on this slide, and while no other run goes on."""
        item = self.session.current_slide
        if item is None or self._bundle is None or self._cost is None or self.predicting or self._kind != "spots":
            return None
        return self._bundle, item, self.where.pitch.value(), self.device.currentText(), self.stain.chosen

    # --- the run

    @property
    def predicting(self) -> bool:
        """Whether a prediction goes on."""
        return self._run is not None and self._run.running

    def start(self) -> None:
        """Predict what is planned."""
        item, bundle, grid = self.session.current_slide, self._bundle, self.where.grid
        if item is None or bundle is None or grid is None or self.predicting:
            return
        self.where.preview.setChecked(False)
        self.live.toggle.setChecked(False)
        doubts = self.origin.doubts()
        for doubt in doubts:
            self.warn(doubt)
        if self._kind == "slide":
            device = self.device.currentText()
            self._run = self.slide_result.predict(bundle, item, device, self.stain.chosen, doubts, self._run_over)
        else:
            self._run = self._start(bundle, item, grid, doubts)
        self.where.busy = True
        self._show_state()

    def _start(self, bundle: Bundle, item: SlideItem, grid: Grid, doubts: list[str]) -> Task:
        from napari_he2st.engine.results import result_facts

        whole = self.where.whole
        how = grid.pitch_um, self.stain.chosen, self.sampling.values(), self._precision
        store = prediction.store_folder(bundle, item.slide, *how) if self._kept else None
        work = self._run_of(bundle, item, grid, order="raster" if whole else "centre", store=store)
        facts = {**result_facts(bundle), "warnings": doubts, "nuclei": work.cells}
        told = {**self.where.told(item.name), **self._told()}
        made = Made("predict_slide", told) if self._kind == "spots" else None
        result = self.session.begin_result(bundle.id, item.name, grid, bundle.genes, made=made, **facts)
        control = Control()
        return self.run(
            work.chunks,
            name=f"Predicting {item.name}",
            can_pause=True,
            control=control,
            ask_on_close=whole,
            on_yield=partial(self._fill, result.name),
            on_end=partial(self._ended, work, result, control),
        )

    def _fill(self, name: str, chunk: Chunk) -> None:
        self.session.fill(name, chunk)
        if name not in self.session.results and self._run is not None:
            self._run.cancel()  # nobody waits for it any more

    def _run_over(self) -> None:
        self.where.busy = False
        self.where.plan()

    def _ended(self, work: Run, result: Result, control: Control) -> None:
        """Complete, stopped or failed: what is done stays, and can be exported."""
        done, total = control.done, len(work.grid)
        tiles = "cells" if work.cells is not None else "tiles"
        if done < total:
            result.warnings.append(f"Stopped after {done:,} of {total:,} {tiles}; the others are unknown.")
        result.warnings.extend(f"{note}." for note in control.notes)
        self._run_over()
        self.run(
            work.adata,
            result,
            control.notes,
            name="Completing the result",
            on_done=partial(self._finished, result.name, f"{done:,} of {total:,} {tiles} are predicted."),
        )

    def _finished(self, name: str, text: str, adata: Any) -> None:
        self.session.finish(name, adata)
        self.say(text)


def _size(n_bytes: int) -> str:
    return f"{n_bytes / 2**20:,.0f} MiB" if n_bytes >= 2**20 else f"{n_bytes / 2**10:,.0f} KiB"

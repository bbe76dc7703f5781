"""The part of the Predict dock that predicts what is on screen, as long as it is switched on."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from qtpy.QtWidgets import QCheckBox, QGroupBox, QLabel, QVBoxLayout
from superqt.utils import qdebounced

from napari_he2st.core import keys
from napari_he2st.core.progress import Control
from napari_he2st.core.types import Chunk
from napari_he2st.gui.worker import Task

if TYPE_CHECKING:
    from collections.abc import Iterator

    from napari_he2st.core.types import Region
    from napari_he2st.data.slides import Slide
    from napari_he2st.data.slides.tissue import TissueMask
    from napari_he2st.engine.live import LiveMap
    from napari_he2st.engine.session_items import SlideItem
    from napari_he2st.gui.docks.base import Dock
    from napari_he2st.zoo.bundle import Bundle

    _Ready = tuple[Bundle, SlideItem, float, str, str | None]
    _Key = tuple[str, str, float, str]

_VIEW_ONLY = "view only"
_VIEW_ONLY_TEXT = "View only: the spots of this predictor see each other, so these values belong to what is on screen."
_KEPT_TEXT = "Values are kept: returning costs nothing."
_MOVED_MS = 200


class LiveBox(QGroupBox):
    """A switch: while it is on, what the window shows is predicted, and moving on brings the next.

    Parameters
    ----------
    dock
        The Predict dock; its work is run through it.
    ready
        What would predict, on which slide, every how many micrometres, where the model runs, how the stain is
        normalised; None while one of the first two is missing.
    """

    def __init__(self, dock: Dock, ready: Callable[[], _Ready | None]) -> None:
        super().__init__("Live")
        self._dock, self._ready = dock, ready
        self._maps: dict[_Key, tuple[LiveMap, str]] = {}  # with the name of the result that shows it
        self._result = ""  # that is being filled
        self._task: Task | None = None
        self._again = False
        self.toggle = QCheckBox("Predict what is on screen")
        self.toggle.setToolTip("Predict the part of the slide in sight, the middle first, and follow pan and zoom")
        self.toggle.toggled.connect(self._toggled)
        self.state = QLabel()
        self.state.setWordWrap(True)
        self.state.hide()
        layout = QVBoxLayout(self)
        layout.addWidget(self.toggle)
        layout.addWidget(self.state)
        camera = dock.viewer.scene.camera
        camera.events.center.connect(self._moved)
        camera.events.zoom.connect(self._moved)
        dock.destroyed.connect(lambda *_: camera.events.disconnect(self._moved))

    @property
    def watching(self) -> bool:
        """Whether a view is being predicted."""
        return self._task is not None and self._task.running

    def show_ready(self) -> None:
        """Let the switch be used once everything is there; what is on follows a new slide or predictor."""
        ready = self._ready()
        self.toggle.setEnabled(ready is not None)
        if ready is None:
            self.stop()
        elif self.toggle.isChecked():
            self._moved()

    def stop(self) -> None:
        """Stop within one batch; what is there stays."""
        self._again = False
        if self._task is not None:
            self._task.cancel()

    def _toggled(self, on: bool) -> None:
        self.state.setVisible(on)
        if on:
            self._look()
        else:
            self.stop()

    def _moved(self, *_: Any) -> None:
        if self.toggle.isChecked():
            self._look_soon()

    @qdebounced(timeout=_MOVED_MS)
    def _look_soon(self) -> None:
        self._look()

    def _look(self) -> None:
        """Predict the present view, after whatever is being predicted has stopped."""
        ready = self._ready()
        if ready is None or not self.toggle.isChecked():
            return
        if self.watching:
            self._again = True
            if self._task is not None:
                self._task.cancel()
            return
        self._dock.with_mask(ready[1], partial(self._with_mask, *ready))

    def _with_mask(
        self, bundle: Bundle, item: SlideItem, pitch_um: float, device: str, stain: str | None, mask: TissueMask
    ) -> None:
        if not self.toggle.isChecked() or self.watching:
            return
        known = self._maps.get((bundle.sha256, item.name, pitch_um, stain or keys.AS_STORED))
        if known is not None and known[1] in self._dock.session.results:
            live, result = known
            if live.view_only:
                self._dock.session.forget(result)
            self._show_state(live, pitch_um)
            self._result = result
            self._watch(live, item.name, device)
            return
        self._dock.run(
            _new_map,
            bundle,
            item.slide,
            mask,
            pitch_um,
            stain or keys.AS_STORED,
            name="Laying out the live map",
            quiet=True,
            on_done=partial(self._begin, item, pitch_um, device),
        )

    def _begin(self, item: SlideItem, pitch_um: float, device: str, live: LiveMap) -> None:
        """Give the map a result of its own, so that genes can be chosen as in any other."""
        from napari_he2st.engine.results import result_facts

        session = self._dock.session
        if session.slides.get(item.name) is not item:
            return
        self._watch(live, item.name, device)  # it begins while the layer is made; what it sends waits in the queue
        self._show_state(live, pitch_um)
        warnings = [_VIEW_ONLY_TEXT] if live.view_only else []
        stain = "" if live.stain in (None, keys.AS_STORED) else f", {live.stain}"
        name = f"{live.bundle.id} live{stain}" + (f" ({_VIEW_ONLY})" if live.view_only else "")
        gene = session.gene
        facts = result_facts(live.bundle)
        result = session.begin_result(name, item.name, live.grid, live.bundle.genes, warnings=warnings, **facts)
        self._result = result.name
        if gene in result.genes:
            session.select(gene=gene)
        self._maps[live.bundle.sha256, item.name, pitch_um, str(live.stain)] = (live, result.name)

    def _show_state(self, live: LiveMap, pitch_um: float) -> None:
        finest = live.grid.pitch_um
        coarser = "" if finest == pitch_um else f" Every {finest:g} µm, to fit into memory."
        self.state.setText((_VIEW_ONLY_TEXT if live.view_only else _KEPT_TEXT) + coarser)

    def _watch(self, live: LiveMap, slide: str, device: str) -> None:
        self._task = self._dock.run(
            _chunks,
            live,
            self._dock.layers.current_view(slide),
            device,
            name="Predicting what is on screen",
            quiet=True,
            control=Control(),
            on_yield=self._fill,
            on_error=lambda _: self.toggle.setChecked(False),
            on_end=self._ended,
        )

    def _fill(self, chunk: Chunk) -> None:
        self._dock.session.fill(self._result, chunk)
        if self._result not in self._dock.session.results:  # the user removed it
            self.toggle.setChecked(False)

    def _ended(self) -> None:
        if self._again:
            self._again = False
            self._look()


def _new_map(bundle: Bundle, slide: Slide, mask: TissueMask, pitch_um: float, stain: str) -> LiveMap:
    from napari_he2st.engine.live import LiveMap

    return LiveMap.over(bundle, slide, mask, pitch_um, stain)


def _chunks(live: LiveMap, view: Region, device: str, *, control: Control) -> Iterator[Chunk]:
    yield from live.look(view, device=device, control=control)

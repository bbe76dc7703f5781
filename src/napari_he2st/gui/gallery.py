"""Maps of several genes beside each other, which show the part of the slide that the canvas shows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any
from weakref import WeakMethod

import numpy as np
from numpy.typing import NDArray
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QCheckBox, QDialog, QHBoxLayout, QLabel, QPushButton, QVBoxLayout, QWidget
from superqt.utils import qdebounced

from napari_he2st.core import keys
from napari_he2st.core.geometry import bounds_of, um_from_px
from napari_he2st.core.types import Grid
from napari_he2st.gui.gene_map import robust_limits
from napari_he2st.gui.rasters import Raster, raster_of
from napari_he2st.gui.smooth_raster import smooth_raster
from napari_he2st.gui.widgets.thumbnails import Thumbnail, ThumbnailSheet
from napari_he2st.gui.worker import Task, run

if TYPE_CHECKING:
    from napari_he2st.engine.session_items import Result
    from napari_he2st.gui.layers import SlideLayers

MOST = 24
"""Maps that are shown at most."""

_LONGER_PX = 200
"""Pixels of the longer side of a map."""


class GalleryDialog(QDialog):
    """Small maps of the genes that the list shows; a click makes one the current gene.

    Parameters
    ----------
    layers
        Of the viewer whose camera is followed.
    listed
        Gives the names that the list of genes shows now.
    parent
        The widget it belongs to.

    Attributes
    ----------
    sheet
        The maps.
    genes
        What they are of.
    """

    def __init__(self, layers: SlideLayers, listed: Callable[[], Sequence[str]], parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        self.setWindowTitle("Several maps")
        self.layers, self.session = layers, layers.session
        self._listed = listed
        self.genes: list[str] = []
        self._result: Result | None = None
        self._raster: Raster | None = None
        self._columns: dict[str, NDArray[np.float32]] = {}
        self._task: Task | None = None
        self.note = QLabel(wordWrap=True)
        self.sheet = ThumbnailSheet()
        self.sheet.chosen.connect(lambda gene: self.session.select(gene=gene))
        self.same = QCheckBox("&Same range for all")
        self.same.setToolTip("One colour range for all maps, so that they compare; otherwise each gene has its own")
        self.same.toggled.connect(lambda _: self._paint())
        self.refill = QPushButton("&Take genes of the list")
        self.refill.setToolTip(f"Show the first {MOST} genes of the list in the dock, as it is sorted and filtered now")
        self.refill.clicked.connect(lambda _: self.take())
        row = QHBoxLayout()
        row.addWidget(self.refill)
        row.addWidget(self.same)
        row.addStretch(1)
        layout = QVBoxLayout(self)
        layout.addWidget(self.note)
        layout.addWidget(self.sheet, 1)
        layout.addLayout(row)
        events = layers.viewer.scene.camera.events
        self._followed = [events.zoom, events.center]
        for event in self._followed:
            event.connect(self._moved)
        self.session.selection_changed.connect(self._selection_changed)
        self.session.result_filled.connect(self._filled)
        self.finished.connect(self._stop)
        self.destroyed.connect(partial(_let_go, self._followed, WeakMethod(self._moved)))
        self.take()

    def take(self) -> None:
        """Show the genes that are listed now."""
        self.genes = list(self._listed())[:MOST]
        self._load()

    def _selection_changed(self) -> None:
        if self.session.current_result is not self._result:
            self.take()
        else:
            self.sheet.show_maps(self.sheet.thumbnails, self.session.gene)

    def _filled(self, name: str, rows: NDArray[np.intp]) -> None:
        if self._result is not None and name == self._result.name:
            self._load_soon()

    @qdebounced(timeout=500)
    def _load_soon(self) -> None:
        self._load()

    def _load(self) -> None:
        """Take the genes out of the result in a thread."""
        result = self.session.current_result
        if result is not self._result:
            self._raster, self._columns = None, {}
        self._result = result
        if result is None or not self.genes:
            self.note.setText("There is no gene to show.")
            self.sheet.show_maps([], None)
            return
        told = f"{result.title}: the part of the slide that is in view."
        self.note.setText(f"{told} {keys.RESEARCH_USE}" if result.kind == "predicted" else told)
        if self._task is not None:
            self._task.cancel()
        self._task = run(
            _columns, result, list(self.genes), self._raster, name="Taking genes", owner=self, on_done=self._loaded
        )

    def _loaded(self, found: tuple[Raster, dict[str, NDArray[np.float32]]]) -> None:
        self._raster, self._columns = found
        self._paint()

    def _moved(self, event: Any = None) -> None:
        self._paint_soon()

    @qdebounced(timeout=40)
    def _paint_soon(self) -> None:
        self._paint()

    def _paint(self) -> None:
        result, raster = self._result, self._raster
        if result is None or raster is None or result.slide not in self.session.slides:
            return
        gene_map = self.layers.gene_map(result.name)
        if gene_map is None:
            return
        view = bounds_of(self.layers.current_view(result.slide).polygon)
        spots = spots_in_view(raster, result.grid, view)
        limits = {gene: robust_limits(values, *gene_map.percentiles) for gene, values in self._columns.items()}
        if gene_map.mode == "locked":
            limits = dict.fromkeys(limits, gene_map.limits)
        elif self.same.isChecked() and limits:
            low, high = np.transpose(list(limits.values()))
            limits = dict.fromkeys(limits, (float(low.min()), float(high.max())))
        colours = (255 * np.asarray(gene_map.colormap.colors)).astype(np.uint8)
        colours[:, 3] = 255
        thumbnails = []
        for gene, values in self._columns.items():
            low, high = limits[gene]
            about = f"{gene}: {low:.2f} to {high:.2f}, {result.unit(gene)} ({result.kind}). Click to show it"
            thumbnails.append(Thumbnail(gene, about, coloured(values, spots, limits[gene], colours)))
        self.sheet.show_maps(thumbnails, self.session.gene)

    def _stop(self, *_: Any) -> None:
        _let_go(self._followed, WeakMethod(self._moved))
        self.session.selection_changed.disconnect(self._selection_changed, missing_ok=True)
        self.session.result_filled.disconnect(self._filled, missing_ok=True)


def spots_in_view(raster: Raster, grid: Grid, view: tuple[float, float, float, float]) -> NDArray[np.intp]:
    """Spot at each pixel of a small picture of a part of the slide, (height, width); the number of spots is none.

    Parameters
    ----------
    raster
        Where the spots lie.
    grid
        The spots.
    view
        Left, top, width and height, level-0 pixels.
    """
    left, top, width, height = (float(um_from_px(px, grid.mpp)) for px in view)
    step = max(width, height, 1e-6) / _LONGER_PX
    shape = max(1, round(height / step)), max(1, round(width / step))
    places = (
        (start + (np.arange(n) + 0.5) * step - origin) / scale
        for start, n, origin, scale in zip((top, left), shape, raster.translate_um, raster.scale_um, strict=True)
    )
    rows, columns = (np.rint(place).astype(np.intp) for place in places)
    inside = ((rows >= 0) & (rows < raster.shape[0]))[:, None] & ((columns >= 0) & (columns < raster.shape[1]))
    flat = np.clip(rows, 0, raster.shape[0] - 1)[:, None] * raster.shape[1] + np.clip(columns, 0, raster.shape[1] - 1)
    return np.where(inside, raster.source[flat], len(grid))


def coloured(
    values: NDArray[np.float32], spots: NDArray[np.intp], limits: tuple[float, float], colours: NDArray[np.uint8]
) -> NDArray[np.uint8]:
    """Colours of a small picture, RGBA (height, width, 4), transparent where nothing is known."""
    here = np.append(values, np.float32(np.nan))[spots]
    share = np.clip((here - limits[0]) / (limits[1] - limits[0]), 0, 1)
    known = np.isfinite(here)
    level = np.round(np.where(known, share, 0) * (len(colours) - 1)).astype(np.intp)
    pixels: NDArray[np.uint8] = np.ascontiguousarray(colours[level])
    pixels[~known] = 0
    return pixels


def _columns(result: Result, genes: list[str], raster: Raster | None) -> tuple[Raster, dict[str, NDArray[np.float32]]]:
    """Where the spots of a result lie, and the values of some genes."""
    if raster is None:
        dense = result.grid.lattice == "square" and result.kind == "predicted"
        raster = raster_of(result.grid) if dense else smooth_raster(result.grid)
    return raster, {gene: np.ascontiguousarray(result.column(gene)) for gene in genes}


def _let_go(events: list[Any], method: WeakMethod, *_: Any) -> None:
    slot = method()
    if slot is not None:
        for event in events:
            event.disconnect(slot)

"""Measured | predicted | difference in one canvas, with one camera.

napari cuts its grid by position in the layer list, hidden layers counted. So the three pairs of H&E and map
come first in the list, all other layers lie above them and are hidden, and :meth:`SideBySide.leave` puts
everything back.
"""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING, Any, Literal
from weakref import ref

import numpy as np
from napari.layers import Image, Points
from qtpy.QtCore import QTimer

from napari_he2st.core.geometry import bounds_of, px_from_um, world_from_level0
from napari_he2st.engine.session_items import Result
from napari_he2st.gui.colours import DIFFERENCE
from napari_he2st.gui.gene_map import UNITS, GeneMap, robust_limits

if TYPE_CHECKING:
    from napari.layers import Layer
    from napari.viewer import Viewer

    from napari_he2st.engine.compare import Comparison

SPACING_PX = 6
_FILL = 0.95  # of a cell, by the spots
_BAR_PX, _FONT_PT = (12, 90), 8
_SETTLE_MS = 300  # the grid's cells have their size after its first draw


class SideBySide:
    """The three maps of a viewer; they come and go as one.

    Parameters
    ----------
    viewer
        Held weakly.
    """

    def __init__(self, viewer: Viewer) -> None:
        self._viewer = ref(viewer)
        self._comparison: Comparison | None = None
        self._maps: list[GeneMap] = []
        self._layers: list[Layer] = []
        self._hidden: list[Layer] = []
        self._before: dict[str, Any] = {}

    @property
    def comparison(self) -> Comparison | None:
        """What is shown, or None."""
        return self._comparison

    @property
    def gene(self) -> str:
        """The gene that is shown."""
        return self._maps[0].label if self._maps else ""

    @property
    def limits(self) -> list[tuple[float, float]]:
        """Colour limits of measured, predicted and difference."""
        return [gene_map.limits for gene_map in self._maps]

    def enter(self, comparison: Comparison, slide_layer: Image, gene: str | None = None) -> None:
        """Show a comparison over three copies of a slide's layer that share its pyramid; replaces what is shown."""
        self.leave()
        viewer = self._viewer()
        if viewer is None:
            return
        grid = viewer.canvas.grid
        self._hidden = [layer for layer in viewer.layers if layer.visible]
        self._before = {
            "camera": (viewer.scene.camera.center, viewer.scene.camera.zoom),
            "grid": (grid.enabled, grid.stride, grid.shape, grid.spacing),
            "active": viewer.layers.selection.active,
        }
        self._comparison = comparison
        for position, title in enumerate(("measured", "predicted", "difference")):
            slide = Image(
                slide_layer.data,
                rgb=True,
                multiscale=True,
                scale=slide_layer.scale,
                units=UNITS,
                name=f"H&E under {title}",
            )
            gene_map = GeneMap(_result(comparison, title), as_points=True)
            _label(gene_map.layer)
            viewer.layers.insert(2 * position, slide)
            viewer.layers.insert(2 * position + 1, gene_map.layer)
            self._maps.append(gene_map)
            self._layers += [slide, gene_map.layer]
        self._maps[2].set_colormap(DIFFERENCE.name)
        for layer in self._hidden:
            layer.visible = False
        grid.stride, grid.shape, grid.spacing = 2, (1, -1), SPACING_PX
        viewer.canvas.overlays.scale_bar.gridded = True
        grid.enabled = True
        if gene is not None:
            self.show_gene(gene)
        viewer.layers.selection.active = self._maps[1].layer
        self._fit()
        QTimer.singleShot(_SETTLE_MS, self._fit)

    def show_gene(self, gene: str) -> None:
        """Show a gene: one range for measured and predicted, a symmetric one for their difference."""
        comparison = self._comparison
        if comparison is None or gene not in comparison.genes or self.gene == gene:
            return
        column = comparison.genes.index(gene)
        measured, predicted = comparison.measured[:, column], comparison.predicted[:, column]
        difference = predicted - measured
        shared = robust_limits(np.concatenate([measured, predicted]))
        most = max(map(abs, robust_limits(difference)))
        ranges = (shared, shared, (-most, most))
        for gene_map, values, limits in zip(self._maps, (measured, predicted, difference), ranges, strict=True):
            gene_map.set_limits("locked", *limits)
            gene_map.show(values, gene)
            gene_map.layer.name = f"{gene}, {gene_map.result.name}"

    def leave(self) -> None:
        """Take the three maps away and put the viewer back as it was."""
        viewer = self._viewer()
        if viewer is None or self._comparison is None:
            return
        self._comparison = None
        grid = viewer.canvas.grid
        grid.enabled = False
        gc.freeze()  # napari collects garbage at each removal: 0.2 s in a large process, six times
        try:
            for layer in self._layers:
                if layer in viewer.layers:
                    viewer.layers.remove(layer)
        finally:
            gc.unfreeze()
        for layer in self._hidden:
            layer.visible = True
        enabled, grid.stride, grid.shape, grid.spacing = self._before["grid"]
        grid.enabled = enabled
        viewer.canvas.overlays.scale_bar.gridded = False
        viewer.scene.camera.center, viewer.scene.camera.zoom = self._before["camera"]
        if self._before["active"] in viewer.layers:
            viewer.layers.selection.active = self._before["active"]
        self._maps, self._layers, self._hidden, self._before = [], [], [], {}

    def _fit(self) -> None:
        """Let the spots fill each cell."""
        viewer, comparison = self._viewer(), self._comparison
        if viewer is None or comparison is None:
            return
        grid = comparison.grid
        x, y, width, height = bounds_of(grid.xy, margin_px=float(px_from_um(grid.pitch_um, grid.mpp)))
        (top, left), (bottom, right) = world_from_level0([(x, y), (x + width, y + height)], grid.mpp)
        cell_height, cell_width = viewer.canvas.viewbox_size(viewer.layers)
        viewer.scene.camera.center = ((top + bottom) / 2, (left + right) / 2)
        viewer.scene.camera.zoom = _FILL * min(cell_height / (bottom - top), cell_width / (right - left))


def _label(layer: Image | Points) -> None:
    """Name and colour bar, small enough for a third of a small canvas, in corners of their own."""
    layer.name_overlay.position = "top_left"
    bar = layer.face_colorbar if isinstance(layer, Points) else layer.colorbar
    bar.position, bar.size = "bottom_left", _BAR_PX
    layer.name_overlay.font_size = bar.font_size = _FONT_PT


def _result(comparison: Comparison, title: str) -> Result:
    """What a map is drawn from; its values come with each gene."""
    values = comparison.measured if title == "measured" else comparison.predicted
    scale = str(comparison.facts_measured["scale"])
    kind: Literal["measured", "predicted"] = "measured" if title == "measured" else "predicted"
    scores = np.full(len(comparison.genes), np.nan, dtype=np.float32)
    return Result(title, kind, "", comparison.grid, comparison.genes, values, scale, scores)

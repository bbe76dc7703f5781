"""Measured | predicted | difference in one canvas, with one camera.

napari cuts its grid by position in the layer list, hidden layers counted. So the three pairs of H&E and map
come first in the list, all other layers lie above them and are hidden, and :meth:`SideBySide.leave` puts
everything back.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from weakref import ref

import numpy as np
from napari.layers import Image
from numpy.typing import NDArray
from qtpy.QtCore import QTimer

from napari_he2st.core.types import Grid
from napari_he2st.engine.session import Result
from napari_he2st.gui.colours import DIFFERENCE
from napari_he2st.gui.gene_map import UNITS, GeneMap, robust_limits

if TYPE_CHECKING:
    from napari.layers import Layer
    from napari.viewer import Viewer

SPACING_PX = 6
_SETTLE_MS = 300  # the grid's cells have their size after its first draw


@dataclass(frozen=True)
class Pair:
    """A measured and a predicted result where they know the same spots.

    Attributes
    ----------
    measured, predicted
        The results.
    index_measured, index_predicted
        Rows of each that belong together, intp, shape (pairs,).
    """

    measured: Result
    predicted: Result
    index_measured: NDArray[np.intp]
    index_predicted: NDArray[np.intp]

    @property
    def grid(self) -> Grid:
        """The measured spots."""
        return self.measured.grid.take(self.index_measured)

    def column(self, gene: str) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Measured and predicted values of a gene, each of shape (pairs,)."""
        measured = self.measured.column(gene)[self.index_measured]
        return measured, self.predicted.column(gene)[self.index_predicted]


class SideBySide:
    """The three maps of a viewer; they come and go as one.

    Parameters
    ----------
    viewer
        Held weakly.
    """

    def __init__(self, viewer: Viewer) -> None:
        self._viewer = ref(viewer)
        self._pair: Pair | None = None
        self._maps: list[GeneMap] = []
        self._layers: list[Layer] = []
        self._hidden: list[Layer] = []
        self._before: dict[str, Any] = {}

    @property
    def pair(self) -> Pair | None:
        """What is shown, or None."""
        return self._pair

    @property
    def gene(self) -> str:
        """The gene that is shown."""
        return self._maps[0].label if self._maps else ""

    @property
    def limits(self) -> list[tuple[float, float]]:
        """Colour limits of measured, predicted and difference."""
        return [gene_map.limits for gene_map in self._maps]

    def enter(self, pair: Pair, slide_layer: Image, gene: str | None = None) -> None:
        """Show a pair over three copies of a slide's layer that share its pyramid; replaces what is shown."""
        self.leave()
        viewer = self._viewer()
        if viewer is None or not len(pair.index_measured):
            return
        self._hidden = [layer for layer in viewer.layers if layer.visible]
        self._before = {
            "camera": (viewer.camera.center, viewer.camera.zoom),
            "grid": (viewer.grid.enabled, viewer.grid.stride, viewer.grid.shape, viewer.grid.spacing),
            "active": viewer.layers.selection.active,
        }
        self._pair, grid = pair, pair.grid
        for position, title in enumerate(("measured", "predicted", "difference")):
            slide = Image(
                slide_layer.data,
                rgb=True,
                multiscale=True,
                scale=slide_layer.scale,
                units=UNITS,
                name=f"H&E under {title}",
            )
            gene_map = GeneMap(_result(pair, grid, title), as_points=True)
            gene_map.layer.name_overlay.visible = True
            viewer.layers.insert(2 * position, slide)
            viewer.layers.insert(2 * position + 1, gene_map.layer)
            self._maps.append(gene_map)
            self._layers += [slide, gene_map.layer]
        self._maps[2].set_colormap(DIFFERENCE.name)
        for layer in self._hidden:
            layer.visible = False
        viewer.grid.stride, viewer.grid.shape, viewer.grid.spacing = 2, (1, -1), SPACING_PX
        viewer.canvas.overlays.scale_bar.gridded = True
        viewer.grid.enabled = True
        if gene is not None:
            self.show_gene(gene)
        viewer.layers.selection.active = self._maps[1].layer
        viewer.reset_view()
        QTimer.singleShot(_SETTLE_MS, self._settle)

    def show_gene(self, gene: str) -> None:
        """Show a gene: one range for measured and predicted, a symmetric one for their difference."""
        if self._pair is None or self.gene == gene:
            return
        measured, predicted = self._pair.column(gene)
        difference = predicted - measured
        shared = robust_limits(np.concatenate([measured, predicted]))
        most = max(map(abs, robust_limits(difference)))
        ranges = (shared, shared, (-most, most))
        for gene_map, values, limits in zip(self._maps, (measured, predicted, difference), ranges, strict=True):
            gene_map.set_limits("locked", *limits)
            gene_map.show(values, gene)
            gene_map.layer.name = f"{gene}, {gene_map.result.name}"
        self._maps[2].layer.name = f"{gene}, predicted − measured"

    def leave(self) -> None:
        """Take the three maps away and put the viewer back as it was."""
        viewer = self._viewer()
        if viewer is None or self._pair is None:
            return
        self._pair = None
        viewer.grid.enabled = False
        for layer in self._layers:
            if layer in viewer.layers:
                viewer.layers.remove(layer)
        for layer in self._hidden:
            layer.visible = True
        enabled, viewer.grid.stride, viewer.grid.shape, viewer.grid.spacing = self._before["grid"]
        viewer.grid.enabled = enabled
        viewer.canvas.overlays.scale_bar.gridded = False
        viewer.camera.center, viewer.camera.zoom = self._before["camera"]
        if self._before["active"] in viewer.layers:
            viewer.layers.selection.active = self._before["active"]
        self._maps, self._layers, self._hidden, self._before = [], [], [], {}

    def _settle(self) -> None:
        viewer = self._viewer()
        if viewer is not None and self._pair is not None:
            viewer.reset_view()


def _result(pair: Pair, grid: Grid, title: str) -> Result:
    """What a map is drawn from; its values come with each gene."""
    source = pair.measured if title == "measured" else pair.predicted
    return Result(title, source.kind, source.slide, grid, [], source.values[:0], source.scale, source.scores[:0])

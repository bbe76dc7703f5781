"""Two results, what they differ by, and a registered second slide, in one canvas with one camera.

napari cuts its grid by position in the layer list, hidden layers counted. So the groups of H&E, map and ring come
first in the list, all other layers lie above them and are hidden, and :meth:`SideBySide.leave` puts everything back.
"""

from __future__ import annotations

import gc
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal
from weakref import ref

import numpy as np
from napari.layers import Image, Points
from numpy.typing import NDArray
from qtpy.QtCore import QTimer

from napari_he2st.core.geometry import bounds_of, px_from_um, world_from_level0
from napari_he2st.core.types import Grid, Transform
from napari_he2st.engine.session_items import Result
from napari_he2st.gui.colours import DIFFERENCE, MAPS
from napari_he2st.gui.gene_map import UNITS, GeneMap, robust_limits

if TYPE_CHECKING:
    from napari.layers import Layer
    from napari.viewer import Viewer

    from napari_he2st.engine.compare import Comparison

SPACING_PX = 6
_FILL = 0.95  # of a cell, by the spots
_BAR_PX, _FONT_PT = (12, 90), 8
_SETTLE_MS = 300  # the grid's cells have their size after its first draw
_STRIDE = 3  # H&E, map, ring
_CLEARLY = 1.3  # so much larger have spots to be in two rows than in one

Third = Literal["difference", "residual", "agreement"]

THIRDS: dict[Third, str] = {
    "difference": "Predicted minus measured: red is predicted too high, blue too low",
    "residual": "What the regression line of the scatter leaves: red lies above the line, blue below",
    "agreement": "Correlation over all genes at each spot, whichever gene is shown",
}
"""What the third map can show."""


@dataclass(frozen=True)
class Second:
    """Another slide, registered onto the one that is compared on.

    Attributes
    ----------
    name
        Of the slide.
    layer
        Its layer.
    transform
        From micrometres (x, y) of this slide to micrometres of the one that is compared on.
    """

    name: str
    layer: Image
    transform: Transform


def third_values(
    comparison: Comparison, third: Third, gene: str
) -> tuple[NDArray[np.float32], tuple[float, float], str]:
    """Values of a third map at the common spots, its limits, and the name of its colour map."""
    if third == "agreement":
        values = comparison.spots["pcc"].to_numpy(dtype=np.float32)
        return values, robust_limits(values), MAPS[0].name
    values = comparison.difference(gene) if third == "difference" else comparison.residual(gene)
    most = max(map(abs, robust_limits(values)))
    return values, (-most, most), DIFFERENCE.name


def third_label(third: Third, gene: str) -> str:
    """What a third map is called."""
    return "r over genes, agreement" if third == "agreement" else f"{gene}, {third}"


class SideBySide:
    """The maps of a viewer; they come and go as one.

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
        self._rings: list[Points] = []
        self._third: Third = "difference"

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
        """Colour limits of reference, judged result and third map."""
        return [gene_map.limits for gene_map in self._maps]

    @property
    def third(self) -> Third:
        """What the third map shows."""
        return self._third

    def enter(
        self, comparison: Comparison, slide_layer: Image, gene: str | None = None, *, second: Second | None = None
    ) -> None:
        """Show a comparison over copies of a slide's layer that share its pyramid; replaces what is shown.

        Parameters
        ----------
        comparison
            What is shown.
        slide_layer
            Of the slide that it was made on.
        gene
            The gene to begin with.
        second
            A slide to be seen beside the maps, turned and shifted onto the first.
        """
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
        for title in (comparison.titles[1], comparison.titles[0], "third"):
            gene_map = GeneMap(panel_result(comparison, title), as_points=True)
            _label(gene_map.layer)
            self._maps.append(gene_map)
            self._add(viewer, _copy(slide_layer, f"H&E under {title}"), gene_map.layer, f"picked in {title}")
        if second is not None:
            layer = _copy(second.layer, f"{second.name}, registered", second.transform)
            layer.name_overlay.visible, layer.name_overlay.font_size = True, _FONT_PT
            spare = _ring(comparison.grid, f"over {second.name}")
            self._add(viewer, layer, spare, f"picked in {second.name}")
        for layer in self._hidden:
            layer.visible = False
        grid.stride, grid.spacing = _STRIDE, SPACING_PX
        grid.shape = grid_shape(viewer.canvas.viewbox_size(viewer.layers), self._extent(), len(self._rings))
        viewer.canvas.overlays.scale_bar.gridded = True
        grid.enabled = True
        if gene is not None:
            self.show_gene(gene)
        viewer.layers.selection.active = self._maps[1].layer
        self._fit()
        QTimer.singleShot(_SETTLE_MS, self._fit)

    def _add(self, viewer: Viewer, slide: Image, over: Layer, ring_name: str) -> None:
        """Put a group of three layers after those that are there."""
        ring = _ring(self._maps[0].result.grid, ring_name)
        for layer in (slide, over, ring):
            viewer.layers.insert(len(self._layers), layer)
            self._layers.append(layer)
        self._rings.append(ring)

    def show_gene(self, gene: str) -> None:
        """Show a gene: one range for both results, a symmetric one for what they differ by."""
        comparison = self._comparison
        if comparison is None or gene not in comparison.genes or self.gene == gene:
            return
        column = comparison.genes.index(gene)
        both = comparison.measured[:, column], comparison.predicted[:, column]
        shared = robust_limits(np.concatenate(both))
        for gene_map, values in zip(self._maps, both, strict=False):
            gene_map.set_limits("locked", *shared)
            gene_map.show(values, gene)
            gene_map.layer.name = f"{gene}, {gene_map.result.name}"
        self._show_third()

    def show_third(self, third: Third) -> None:
        """Choose what the third map shows."""
        self._third = third
        self._show_third()

    def mark(self, row: int | None) -> None:
        """Put a ring around a common spot in every panel; None around none."""
        if self._comparison is not None:
            grid = self._comparison.grid
            at = np.empty((0, 2)) if row is None else world_from_level0(grid.xy[[row]], grid.mpp)
            for ring in self._rings:
                ring.data = at

    def _show_third(self) -> None:
        comparison, gene = self._comparison, self.gene
        if comparison is None or not gene:
            return
        values, limits, colours = third_values(comparison, self._third, gene)
        third = self._maps[2]
        third.set_colormap(colours)
        third.set_limits("locked", *limits)
        third.show(values, gene)
        third.layer.name = third_label(self._third, gene)

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
        self._maps, self._layers, self._hidden, self._before, self._rings = [], [], [], {}, []

    def _extent(self) -> tuple[float, float, float, float]:
        """Top, left, bottom and right of the spots, world micrometres."""
        grid = self._maps[0].result.grid
        x, y, width, height = bounds_of(grid.xy, margin_px=float(px_from_um(grid.pitch_um, grid.mpp)))
        (top, left), (bottom, right) = world_from_level0([(x, y), (x + width, y + height)], grid.mpp)
        return float(top), float(left), float(bottom), float(right)

    def _fit(self) -> None:
        """Let the spots fill each cell."""
        viewer, comparison = self._viewer(), self._comparison
        if viewer is None or comparison is None:
            return
        top, left, bottom, right = self._extent()
        cell_height, cell_width = viewer.canvas.viewbox_size(viewer.layers)
        viewer.scene.camera.center = ((top + bottom) / 2, (left + right) / 2)
        viewer.scene.camera.zoom = _FILL * min(cell_height / (bottom - top), cell_width / (right - left))


def grid_shape(
    canvas_px: tuple[int, int], extent_um: tuple[float, float, float, float], panels: int
) -> tuple[int, int]:
    """Rows and columns of the grid: side by side, unless two rows show the spots clearly larger."""
    height_px, width_px = canvas_px
    top, left, bottom, right = extent_um

    def zoom(rows: int, columns: int) -> float:
        return min(height_px / rows / (bottom - top), width_px / columns / (right - left))

    return (2, 2) if zoom(2, 2) > _CLEARLY * zoom(1, panels) else (1, -1)


def _label(layer: Image | Points) -> None:
    """Name and colour bar, small enough for a third of a small canvas, in corners of their own."""
    layer.name_overlay.position = "top_left"
    bar = layer.face_colorbar if isinstance(layer, Points) else layer.colorbar
    bar.position, bar.size = "bottom_left", _BAR_PX
    layer.name_overlay.font_size = bar.font_size = _FONT_PT


def _copy(slide_layer: Image, name: str, transform: Transform | None = None) -> Image:
    """The same pyramid once more, moved by a transform of micrometres (x, y)."""
    affine = np.eye(3) if transform is None else transform.matrix
    swap = np.array([[0, 1, 0], [1, 0, 0], [0, 0, 1.0]])
    return Image(
        slide_layer.data,
        rgb=True,
        multiscale=True,
        scale=slide_layer.scale,
        affine=swap @ affine @ swap,  # napari's world is (y, x)
        units=UNITS,
        name=name,
    )


def _ring(grid: Grid, name: str) -> Points:
    """Where the picked spot is marked in a panel."""
    return Points(
        np.empty((0, 2)),
        size=1.4 * grid.spot_um,
        face_color="transparent",
        border_color="yellow",
        border_width=0.14,
        units=UNITS,
        name=name,
    )


def panel_result(comparison: Comparison, title: str) -> Result:
    """What a map is drawn from; its values come with each gene."""
    kind: Literal["measured", "predicted"] = "measured" if title == "measured" else "predicted"
    scores = np.full(len(comparison.genes), np.nan, dtype=np.float32)
    return Result(title, kind, "", comparison.grid, comparison.genes, comparison.predicted, comparison.scale, scores)

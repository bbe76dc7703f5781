"""What two results differ by, as one layer over the slide."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_he2st.gui.gene_map import GeneMap
from napari_he2st.gui.side_by_side import Third, panel_result, third_label, third_values

if TYPE_CHECKING:
    from napari.layers import Layer

    from napari_he2st.engine.compare import Comparison
    from napari_he2st.gui.layers import SlideLayers


class ComparisonMap:
    """One map of a comparison over its slide; made when it is first shown.

    Parameters
    ----------
    layers
        The layers of the viewer.
    """

    def __init__(self, layers: SlideLayers) -> None:
        self._layers = layers
        self._comparison: Comparison | None = None
        self._map: GeneMap | None = None
        self._hidden: list[Layer] = []

    @property
    def shown(self) -> str:
        """Name of the layer, or "" where it is not shown."""
        present = self._map is not None and self._map.layer in self._layers.viewer.layers
        return self._map.layer.name if self._map is not None and present else ""

    def show(self, comparison: Comparison, third: Third, gene: str) -> None:
        """Show a map of a comparison."""
        if comparison is not self._comparison or self._map is None:
            self.remove()
            self._comparison, self._map = comparison, GeneMap(panel_result(comparison, "third"), as_points=True)
        values, limits, colours = third_values(comparison, third, gene)
        self._map.set_colormap(colours)
        self._map.set_limits("locked", *limits)
        self._map.show(values, gene)
        self._map.layer.name = third_label(third, gene)
        layers = self._layers.viewer.layers
        if self._map.layer not in layers:
            active = layers.selection.active
            self._hide_results()
            self._layers.viewer.add_layer(self._map.layer)
            layers.selection.active = active or self._map.layer
        self._map.layer.visible = True

    def remove(self) -> None:
        """Take it away, and bring back what it stood in place of."""
        for layer in self._hidden:
            layer.visible = True
        self._hidden = []
        if self._map is not None and self._map.layer in self._layers.viewer.layers:
            self._layers.viewer.layers.remove(self._map.layer)
        self._comparison, self._map = None, None

    def _hide_results(self) -> None:
        """Maps and domains of results would be read as part of this one."""
        names = self._layers.session.results
        found = [show(name) for name in names for show in (self._layers.result_layer, self._layers.domains_layer)]
        self._hidden = [layer for layer in found if layer is not None and layer.visible]
        for layer in self._hidden:
            layer.visible = False

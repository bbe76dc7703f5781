"""Results as layers: one per result, recoloured in place when the gene changes."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING
from weakref import ref

import numpy as np
from napari.layers import Image, Labels, Points, Shapes
from numpy.typing import NDArray

from napari_he2st.engine.session import Session
from napari_he2st.engine.session_items import Result
from napari_he2st.gui.blend_map import BlendMap
from napari_he2st.gui.domain_map import DomainMap
from napari_he2st.gui.gene_map import GeneMap, Mode
from napari_he2st.gui.rasters import Raster
from napari_he2st.gui.side_by_side import SideBySide
from napari_he2st.gui.under_cursor import tell_spot

if TYPE_CHECKING:
    from napari.layers import Layer
    from napari.viewer import Viewer

_SPREAD_MAP = "magma"
"""Colours of standard deviations, unlike those of values."""


class ResultLayers:
    """Mirrors the results of a session, and their domains, in the layers of one viewer.

    Parameters
    ----------
    viewer
        Held weakly.
    session
        What is mirrored.

    Attributes
    ----------
    side_by_side
        Measured, predicted and difference beside each other, when the user asks for it.
    """

    def __init__(self, viewer: Viewer, session: Session) -> None:
        self._viewer = ref(viewer)
        self.session = session
        self.side_by_side = SideBySide(viewer)
        self._maps: dict[str, GeneMap] = {}
        self._blends: dict[str, BlendMap] = {}
        self._spreads: dict[str, GeneMap] = {}
        self._domains: dict[str, DomainMap] = {}
        self._waiting: set[str] = set()  # results whose domains are seen once their slide is chosen
        self._front: str | None = None  # the result that was last brought to the front
        self._hidden: list[Layer] = []
        session.result_added.connect(self._result_added)
        session.result_filled.connect(self._result_filled)
        session.result_finished.connect(self._result_finished)
        session.result_moved.connect(self._result_moved)
        session.result_removed.connect(self._result_removed)
        session.domains_changed.connect(self._domains_changed)
        session.selection_changed.connect(self._selection_changed)

    @property
    def viewer(self) -> Viewer:
        """The viewer; it outlives everything that can ask for it."""
        viewer = self._viewer()
        if viewer is None:
            message = "the viewer of these layers is closed"
            raise RuntimeError(message)
        return viewer

    def _put(self, layer: Layer) -> None:
        """Add a layer, or bring it back, without making it the active one."""
        active = self.viewer.layers.selection.active
        if layer not in self.viewer.layers:
            self.viewer.add_layer(layer)
        if active is not None:
            self.viewer.layers.selection.active = active

    def _drop(self, layer: Layer | None) -> None:
        if layer is not None and layer in self.viewer.layers:
            self.viewer.layers.remove(layer)

    # --- results

    def result_layer(self, result: str) -> Image | Points | None:
        """The layer of a result."""
        gene_map = self._maps.get(result)
        return None if gene_map is None else gene_map.layer

    def gene_map(self, result: str) -> GeneMap | None:
        """How a result is drawn."""
        return self._maps.get(result)

    def show_only(self, result: str) -> None:
        """Show the map of one result and hide the others of the same slide."""
        slide = self.session.results[result].slide
        for name, gene_map in self._maps.items():
            if gene_map.result.slide == slide:
                blend = self._blends.get(name)
                blended = blend is not None and bool(blend.parts)
                gene_map.layer.visible = name == result and not blended
                if blend is not None:
                    blend.layer.visible = name == result and blended

    def shown(self, result: str) -> str:
        """The gene or signature that a result's layer shows."""
        return self._maps[result].label

    def show_gene(self, result: str, gene: str) -> None:
        """Show a gene of a result; a gene out of its panel leaves the map empty."""
        self._maps[result].show(self.session.results[result].column(gene), gene)

    def show_values(self, result: str, values: NDArray, label: str) -> None:
        """Show one value per spot, such as a signature's score, under a label of its own."""
        self._maps[result].show(values, label)

    def spread_layer(self, result: str) -> Image | Points | None:
        """The layer of a result's standard deviations."""
        spread = self._spreads.get(result)
        return None if spread is None else spread.layer

    def show_spread(self, result: str, visible: bool) -> None:
        """Show or hide a second map: the standard deviation of the current gene over draws and members."""
        item = self.session.results[result]
        if item.std is None:
            return
        if visible and result not in self._spreads:
            self._spreads[result] = GeneMap(replace(item, values=item.std))
            self._spreads[result].set_colormap(_SPREAD_MAP)
        if result in self._spreads:
            self._spreads[result].layer.visible = visible
            if visible:
                self._put(self._spreads[result].layer)
                self._spread_follows(result)

    def _spread_follows(self, result: str) -> None:
        """What varies is the gene that the map shows, which need not be the current one."""
        spread, gene = self._spreads.get(result), self.shown(result)
        if spread is not None and spread.layer.visible and gene in spread.result.genes:
            spread.show(spread.result.column(gene), f"{gene} standard deviation")

    def blend(self, result: str) -> BlendMap | None:
        """Several genes of a result in one picture, or None where none was asked for."""
        return self._blends.get(result)

    def show_blend(self, result: str, labels: list[str]) -> None:
        """Show several genes of a result in place of its map; none of them brings the map back."""
        gene_map, blend = self._maps[result], self._blends.get(result)
        if not labels:
            if blend is not None:
                self._drop(self._blends.pop(result).layer)
        else:
            if blend is None:
                blend = self._blends[result] = BlendMap(gene_map)
                tell_spot(blend.layer, self.session, partial(_drawn_blend, blend))
            blend.show(labels)
            self._put(blend.layer)
            blend.layer.visible = True
        gene_map.layer.visible = not labels
        if self._front_layer(result) in self.viewer.layers:
            self.viewer.layers.selection.active = self._front_layer(result)

    def _front_layer(self, result: str) -> Image | Points:
        """The layer that shows a result: several genes in one picture, or its map."""
        blend = self._blends.get(result)
        return blend.layer if blend is not None and blend.parts else self._maps[result].layer

    def set_smooth(self, result: str, smooth: bool) -> None:
        """Draw a result as a smooth map or spot by spot."""
        before = self._maps[result]
        if before.can_smooth_in_place:
            before.set_smooth(smooth)
        elif before.smooth != smooth:
            gene_map = GeneMap(self.session.results[result], smooth=smooth)
            gene_map.look_like(before)
            self._keep(result, gene_map)
            name = gene_map.layer.name  # until both are in the list, which tells them apart by a number
            layers, active = self.viewer.layers, self.viewer.layers.selection.active
            layers.insert(layers.index(before.layer) if before.layer in layers else len(layers), gene_map.layer)
            self._drop(before.layer)
            gene_map.layer.name = name
            layers.selection.active = gene_map.layer if active is before.layer else active

    def limits(self, result: str) -> tuple[float, float]:
        """What the ends of a result's colour map stand for."""
        return self._maps[result].limits

    def set_limits(self, result: str, mode: Mode, low: float | None = None, high: float | None = None) -> None:
        """Choose limits by percentiles or lock them: see :meth:`GeneMap.set_limits`."""
        self._maps[result].set_limits(mode, low, high)

    def set_colormap(self, result: str, name: str) -> None:
        """Choose one of napari's colour maps for a result."""
        self._maps[result].set_colormap(name)

    def set_overlay_visible(self, visible: bool) -> None:
        """Hide everything that lies over the slide, or bring back what this has hidden."""
        if visible:
            for layer in self._hidden:
                layer.visible = True
            self._hidden = []
        elif not self._hidden:
            over = [gene_map.layer for gene_map in self._maps.values()]
            over += [blend.layer for blend in self._blends.values()]
            over += [domain_map.layer for domain_map in self._domains.values()]
            self._hidden = [layer for layer in over if layer.visible]
            for layer in self._hidden:
                layer.visible = False

    def _result_added(self, name: str) -> None:
        self.side_by_side.leave()  # a new layer would be a fourth cell
        gene_map = GeneMap(self.session.results[name])
        self._keep(name, gene_map)
        self.viewer.add_layer(gene_map.layer)

    def _keep(self, result: str, gene_map: GeneMap) -> None:
        """Make a map that of a result."""
        self._maps[result] = gene_map
        gene_map.layer.events.visible.connect(lambda *_: self._catch_up(result))
        tell_spot(gene_map.layer, self.session, partial(_drawn, gene_map))

    def _result_filled(self, name: str, rows: NDArray[np.intp]) -> None:
        if name in self._maps:
            self._maps[name].fill(rows)

    def _result_finished(self, name: str) -> None:
        if name in self._maps:
            self._maps[name].layer.refresh()
            self._spread_follows(name)
        if name in self._blends and self._blends[name].parts:
            self._blends[name].refresh()

    def _result_moved(self, name: str) -> None:
        self.side_by_side.leave()
        if name in self._maps:
            self._maps[name].moved()
        if name in self._blends:  # made anew when it is asked for
            self._drop(self._blends.pop(name).layer)
        if name in self._domains and name in self.session.domains:
            self._domains[name].moved(self.session.domains[name])

    def _result_removed(self, name: str) -> None:
        for maps in (self._domains, self._spreads, self._blends, self._maps):
            gone = maps.pop(name, None)
            if gone is not None:
                self._drop(gone.layer)

    def _selection_changed(self) -> None:
        """Bring the current result to the front; every visible map follows the current gene."""
        result = self.session.result
        if result in self._maps and result != self._front:
            self.side_by_side.leave()
            self.show_only(result)
        self._front = result
        current = self._maps.get(result or "")
        if current is not None:
            self._put(current.layer)
            layers = self.viewer.layers
            if self.side_by_side.comparison is None and not isinstance(layers.selection.active, Shapes):
                layers.selection.active = self._front_layer(
                    current.result.name
                )  # the status bar shows the active layer's value
        for name in self._maps:
            self._catch_up(name)

    def _catch_up(self, name: str) -> None:
        gene, gene_map = self.session.gene, self._maps.get(name)
        if gene is None or gene_map is None or not gene_map.layer.visible or gene_map.label == gene:
            return
        if gene_map.result.shows(gene):
            self.show_gene(name, gene)
            self._spread_follows(name)
            if name in self._domains:
                self._domains[name].layer.visible = False  # they would cover the gene that was asked for

    # --- domains

    def domains_layer(self, result: str) -> Labels | Points | None:
        """The layer of a result's domains."""
        domain_map = self._domains.get(result)
        return None if domain_map is None else domain_map.layer

    def _domains_changed(self, result: str) -> None:
        domains, gene_map = self.session.domains.get(result), self._maps.get(result)
        if domains is None or gene_map is None:
            return
        self.side_by_side.leave()
        if result in self._domains:
            self._domains[result].show(domains)
        else:
            self._domains[result] = DomainMap(gene_map, domains)
        self._put(self._domains[result].layer)
        here = self.session.results[result].slide == self.session.slide
        self._domains[result].layer.visible = here
        if not here:
            self._waiting.add(result)

    def _domains_follow(self, slide: str | None) -> None:
        """Hide the domains of other slides; those of the chosen one are seen again."""
        for name, domain_map in self._domains.items():
            if self.session.results[name].slide == slide:
                domain_map.layer.visible |= name in self._waiting
                self._waiting.discard(name)
            elif domain_map.layer.visible:
                domain_map.layer.visible = False
                self._waiting.add(name)


def _drawn(gene_map: GeneMap) -> tuple[Result, Raster | None, list[str]] | None:
    known = bool(gene_map.label) and gene_map.result.shows(gene_map.label)
    return (gene_map.result, gene_map.raster, [gene_map.label]) if known else None


def _drawn_blend(blend: BlendMap) -> tuple[Result, Raster | None, list[str]] | None:
    return (blend.result, blend.raster, [part.label for part in blend.parts]) if blend.parts else None

"""The border to napari: mirrors a session in layers. Only here level-0 pixels become world micrometres.

One layer per slide and one per result, not one per gene: a gene is what a result's layer shows at the moment.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any
from weakref import ref

import numpy as np
from napari.layers import Image, Labels, Points, Shapes
from numpy.typing import NDArray

from napari_he2st.core.geometry import level0_from_world, um_from_px
from napari_he2st.core.types import Grid, Region
from napari_he2st.engine.session import Session
from napari_he2st.gui.chosen_spots import ChosenSpots
from napari_he2st.gui.domain_map import DomainMap
from napari_he2st.gui.gene_map import METADATA, UNITS, GeneMap, Mode
from napari_he2st.gui.navigation import Navigator
from napari_he2st.gui.nuclei_layer import nuclei_layer
from napari_he2st.gui.rasters import outline_of, raster_of
from napari_he2st.gui.region_layer import RegionLayer
from napari_he2st.gui.ruler import Ruler
from napari_he2st.gui.side_by_side import SideBySide

if TYPE_CHECKING:
    from napari.layers import Layer
    from napari.viewer import Viewer

    from napari_he2st.data.slides import Slide

_SPREAD_MAP = "magma"
"""Colours of standard deviations, unlike those of values."""

_INKS = np.array([(0, 0, 0, 0), (0, 114, 178, 255), (86, 180, 233, 255)], dtype=np.uint8)
"""Of drawings: nothing, and two blues that H&E does not have."""


def warm_up(slide: Slide) -> Slide:
    """Do off the GUI thread what its layer would otherwise do there: hash it, read its coarsest level."""
    _ = slide.fingerprint, slide.drawn()[-1][...]
    return slide


def slide_layer_data(slide: Slide) -> tuple[Any, dict[str, Any], str]:
    """A slide as napari's layer data tuple: the pyramid in micrometres, with the slide in its metadata."""
    facts = {
        "name": slide.name,
        "rgb": True,
        "multiscale": True,
        "scale": (slide.mpp, slide.mpp),
        "units": UNITS,
        "metadata": {METADATA: {"slide": slide}},
    }
    return slide.drawn(), facts, "image"


class SlideLayers:
    """Mirrors a session in the layers of one viewer.

    Slides that a reader has put on screen are adopted. A layer that the user deletes comes back when its slide
    or result is selected again; nothing is lost with it.

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
    navigator, ruler
        Move the view, measure on it.
    """

    def __init__(self, viewer: Viewer, session: Session) -> None:
        self._viewer = ref(viewer)
        self.session = session
        self.side_by_side = SideBySide(viewer)
        self.navigator, self.ruler = Navigator(viewer), Ruler(viewer)
        self._chosen_spots = ChosenSpots(viewer, session)
        self._preview: Image | None = None
        self._behind: list[Layer] = []  # what the preview hides
        self._slides: dict[str, Image] = {}
        self._maps: dict[str, GeneMap] = {}
        self._spreads: dict[str, GeneMap] = {}
        self._domains: dict[str, DomainMap] = {}
        self._waiting: set[str] = set()  # results whose domains are seen once their slide is chosen
        self._masks: dict[str, Image] = {}
        self._regions: dict[str, RegionLayer] = {}
        self._nuclei: dict[str, Labels] = {}
        self._tiles: Image | None = None
        self._chosen: str | None = None  # the slide that was last shown
        self._front: str | None = None  # the result that was last brought to the front
        self._hidden: list[Layer] = []
        self._adopting: Image | None = None
        viewer.canvas.overlays.scale_bar.visible = True
        session.slide_added.connect(self._slide_added)
        session.slide_removed.connect(self._slide_removed)
        session.slide_changed.connect(self._slide_changed)
        session.nuclei_changed.connect(self._nuclei_changed)
        session.regions_changed.connect(self._regions_changed)
        session.result_added.connect(self._result_added)
        session.result_filled.connect(self._result_filled)
        session.result_finished.connect(self._result_finished)
        session.result_moved.connect(self._result_moved)
        session.result_removed.connect(self._result_removed)
        session.domains_changed.connect(self._domains_changed)
        session.selection_changed.connect(self._selection_changed)
        for layer in list(viewer.layers):
            self._adopt(layer)
        viewer.layers.events.inserted.connect(self._inserted)

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

    # --- slides

    def slide_layer(self, slide: str) -> Image | None:
        """The layer of a slide."""
        return self._slides.get(slide)

    def _inserted(self, event: Any) -> None:
        self._adopt(event.value)

    def _adopt(self, layer: Layer) -> None:
        """Take over a slide that a reader has opened."""
        slide = layer.metadata.get(METADATA, {}).get("slide")
        if slide is None or layer in self._slides.values():
            return
        self._adopting = layer
        self.session.add_slide(slide)
        self._adopting = None

    def _slide_added(self, name: str) -> None:
        if self._adopting is None:
            data, facts, _ = slide_layer_data(self.session.slides[name].slide)
            self._slides[name] = Image(data, **facts)
            self.viewer.add_layer(self._slides[name])
        else:
            self._slides[name] = self._adopting
        self.viewer.reset_view()

    def show_preview(self, slide: Slide | None) -> None:
        """Show a slide whose pixel size is not known yet, as if a pixel were 1 µm; None hides it."""
        self._drop(self._preview)
        self._preview = None
        for layer in self._behind:
            layer.visible = True
        self._behind = []
        if slide is not None:
            self._behind = [layer for layer in self.viewer.layers if layer.visible]
            for layer in self._behind:  # they are of another slide
                layer.visible = False
            self._preview = Image(
                slide.drawn(), rgb=True, multiscale=True, name=f"{slide.name} (scale unknown)", units=UNITS
            )
            self.viewer.add_layer(self._preview)
            self.viewer.reset_view()

    def show_colours(self, name: str, slide: Slide | None = None) -> None:
        """Draw a slide of the session in the colours of ``slide``, such as another stain; None is its own."""
        layer = self._slides.get(name)
        if layer is not None:
            layer.data = (self.session.slides[name].slide if slide is None else slide).drawn()

    def _slide_removed(self, name: str) -> None:
        for layers in (self._slides, self._masks, self._nuclei):
            self._drop(layers.pop(name, None))
        if name in self._regions:
            self._drop(self._regions.pop(name).layer)

    def _slide_changed(self, name: str) -> None:
        if name in self._masks:
            self._drop(self._masks.pop(name))
            self.show_mask(name)

    def show_mask(self, slide: str, visible: bool = True) -> None:
        """Show or hide the outline of the tissue, once it is known."""
        item = self.session.slides[slide]
        if item.mask is not None and slide not in self._masks and visible:
            step = float(um_from_px(item.mask.downsample, item.slide.mpp))
            outline = outline_of(item.mask.mask).astype(np.uint8)
            layer = _drawing(outline, f"Tissue of {slide}", step, (step - item.slide.mpp) / 2)
            self._masks[slide] = layer
        if slide in self._masks:
            if visible:
                self._put(self._masks[slide])
            self._masks[slide].visible = visible

    def mask_shown(self, slide: str) -> bool:
        """Whether the outline of the tissue is on screen."""
        return slide in self._masks and bool(self._masks[slide].visible)

    def _nuclei_changed(self, slide: str) -> None:
        self._drop(self._nuclei.pop(slide, None))
        self.show_nuclei(slide)

    def show_nuclei(self, slide: str, visible: bool = True) -> None:
        """Show or hide the outlines of a slide's nuclei, once they are found."""
        item = self.session.slides[slide]
        if item.nuclei is not None and slide not in self._nuclei and visible:
            self._nuclei[slide] = nuclei_layer(item.nuclei, f"Nuclei of {slide}", item.slide.mpp)
        if slide in self._nuclei:
            if visible:
                self._put(self._nuclei[slide])
            self._nuclei[slide].visible = visible

    def nuclei_shown(self, slide: str) -> bool:
        """Whether the outlines of a slide's nuclei are on screen."""
        return slide in self._nuclei and bool(self._nuclei[slide].visible)

    def show_tiles(self, grid: Grid | None) -> None:
        """Preview the spots of a square grid as a checkerboard of tiles; None hides it."""
        if grid is None or not len(grid):
            if self._tiles is not None:
                self._tiles.visible = False
            return
        raster = raster_of(grid)
        board = np.zeros(raster.shape, dtype=np.uint8)
        raster.paint(board, 1 + grid.index.sum(axis=1) % 2)
        if self._tiles is None:
            self._tiles = _drawing(board, "Tiles to predict", raster.scale_um, raster.translate_um, opacity=0.4)
        else:  # napari takes half a second to remove a layer
            self._tiles.data = _INKS[board]
            self._tiles.scale, self._tiles.translate = raster.scale_um, raster.translate_um
            self._tiles.visible = True
        self._put(self._tiles)

    def current_view(self, slide: str) -> Region:
        """The part of a slide that is on screen, or will be at the next drawing."""
        viewer, item = self.viewer, self.session.slides[slide].slide
        # down and across the screen, of the plane of the slide; a quarter turn swaps them
        shown = [axis - (viewer.dims.ndim - 2) for axis in viewer.dims.displayed[-2:]]
        if min(shown) < 0:  # a stack is seen from its side
            return Region.box(0, 0, float(item.size[0]), float(item.size[1]), "current view")
        middle, half = np.empty(2), np.empty(2)
        middle[shown] = viewer.scene.camera.center[-2:]
        half[shown] = np.asarray(viewer.canvas.viewbox_size(viewer.layers)) / viewer.scene.camera.zoom / 2
        low, high = (level0_from_world(middle + sign * half, item.mpp) for sign in (-1, 1))
        (left, top), (right, bottom) = np.clip([low, high], 0, item.size)
        return Region.box(float(left), float(top), float(right - left), float(bottom - top), "current view")

    def draw_regions(self, slide: str) -> Shapes:
        """The layer in which the user draws regions of a slide, active and ready for a polygon."""
        layer = self._region_layer(slide).layer
        self._put(layer)
        layer.visible = True
        self.viewer.layers.selection.active = layer
        layer.mode = "add_polygon"
        return layer

    def _region_layer(self, slide: str) -> RegionLayer:
        if slide not in self._regions:
            self._regions[slide] = RegionLayer(self.session, slide)
        return self._regions[slide]

    def _regions_changed(self, slide: str) -> None:
        if slide in self._regions or self.session.regions[slide]:
            self._region_layer(slide).follow()
            self._put(self._region_layer(slide).layer)

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
                gene_map.layer.visible = name == result

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
            over += [domain_map.layer for domain_map in self._domains.values()]
            self._hidden = [layer for layer in over if layer.visible]
            for layer in self._hidden:
                layer.visible = False

    def _result_added(self, name: str) -> None:
        self.side_by_side.leave()  # a new layer would be a fourth cell
        gene_map = GeneMap(self.session.results[name])
        self._maps[name] = gene_map
        self.viewer.add_layer(gene_map.layer)
        gene_map.layer.events.visible.connect(lambda *_: self._catch_up(name))

    def _result_filled(self, name: str, rows: NDArray[np.intp]) -> None:
        if name in self._maps:
            self._maps[name].fill(rows)

    def _result_finished(self, name: str) -> None:
        if name in self._maps:
            self._maps[name].layer.refresh()
            self._spread_follows(name)

    def _result_moved(self, name: str) -> None:
        self.side_by_side.leave()
        if name in self._maps:
            self._maps[name].moved()
        if name in self._domains and name in self.session.domains:
            self._domains[name].moved(self.session.domains[name])

    def _result_removed(self, name: str) -> None:
        for maps in (self._domains, self._spreads, self._maps):
            gone = maps.pop(name, None)
            if gone is not None:
                self._drop(gone.layer)

    def _choose(self, slide: str | None) -> None:
        """Show a slide that was chosen, and what lies on it; slides share their corner, so the others are hidden."""
        self._chosen = slide
        regions = {name: drawn.layer for name, drawn in self._regions.items()}
        for layers in (self._slides, self._masks, regions, self._nuclei):
            for name, layer in layers.items():
                if name != slide:
                    layer.visible = False
        if slide in self._slides:
            self._slides[slide].visible = True
        for gene_map in self._maps.values():
            if gene_map.result.slide != slide:
                gene_map.layer.visible = False
        for name, domain_map in self._domains.items():
            if self.session.results[name].slide == slide:
                domain_map.layer.visible |= name in self._waiting
                self._waiting.discard(name)
            elif domain_map.layer.visible:
                domain_map.layer.visible = False
                self._waiting.add(name)

    def _selection_changed(self) -> None:
        """Bring the current result to the front; every visible map follows the current gene."""
        slide = self._slides.get(self.session.slide or "")
        if slide is not None and slide not in self.viewer.layers:
            self.viewer.layers.insert(0, slide)
        if self.session.slide != self._chosen:
            self._choose(self.session.slide)
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
                layers.selection.active = current.layer  # the status bar shows the active layer's value
        for name in self._maps:
            self._catch_up(name)

    def _catch_up(self, name: str) -> None:
        gene, gene_map = self.session.gene, self._maps.get(name)
        if gene is None or gene_map is None or not gene_map.layer.visible or gene_map.label == gene:
            return
        if gene in gene_map.result.genes:
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


def _drawing(inks: NDArray[np.uint8], name: str, step_um: Any, at_um: Any, **facts: Any) -> Image:
    """A picture of :data:`_INKS`; as Labels it would be slower to make."""
    scale, translate = np.broadcast_to(step_um, 2), np.broadcast_to(at_um, 2)
    return Image(_INKS[inks], rgb=True, name=name, scale=scale, translate=translate, units=UNITS, **facts)

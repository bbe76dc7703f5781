"""The border to napari: mirrors a session in layers. Only here level-0 pixels become world micrometres.

One layer per slide and one per result, not one per gene: a gene is what a result's layer shows at the moment.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Image, Labels, Shapes
from numpy.typing import NDArray

from napari_he2st.core.geometry import level0_from_world, um_from_px
from napari_he2st.core.types import Grid, Region
from napari_he2st.engine.session import Session
from napari_he2st.gui.blend_map import BlendMap
from napari_he2st.gui.chosen_spots import ChosenSpots
from napari_he2st.gui.gene_map import METADATA, UNITS, GeneMap
from napari_he2st.gui.navigation import Navigator
from napari_he2st.gui.nuclei_layer import nuclei_layer
from napari_he2st.gui.rasters import outline_of, raster_of
from napari_he2st.gui.region_layer import RegionLayer
from napari_he2st.gui.result_layers import ResultLayers
from napari_he2st.gui.ruler import Ruler

if TYPE_CHECKING:
    from napari.layers import Layer
    from napari.viewer import Viewer

    from napari_he2st.data.slides import Slide

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


class SlideLayers(ResultLayers):
    """Mirrors a session in the layers of one viewer: its slides here, their results in :class:`ResultLayers`.

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
    navigator, ruler
        Move the view, measure on it.
    """

    def __init__(self, viewer: Viewer, session: Session) -> None:
        super().__init__(viewer, session)
        self.navigator, self.ruler = Navigator(viewer), Ruler(viewer)
        self._chosen_spots = ChosenSpots(viewer, session)
        self._preview: Image | None = None
        self._behind: list[Layer] = []  # what the preview hides
        self._slides: dict[str, Image] = {}
        self._masks: dict[str, Image] = {}
        self._regions: dict[str, RegionLayer] = {}
        self._nuclei: dict[str, Labels] = {}
        self._tiles: Image | None = None
        self._chosen: str | None = None  # the slide that was last shown
        self._adopting: Image | None = None
        viewer.canvas.overlays.scale_bar.visible = True
        session.slide_added.connect(self._slide_added)
        session.slide_removed.connect(self._slide_removed)
        session.slide_changed.connect(self._slide_changed)
        session.nuclei_changed.connect(self._nuclei_changed)
        session.regions_changed.connect(self._regions_changed)
        for layer in list(viewer.layers):
            self._adopt(layer)
        viewer.layers.events.inserted.connect(self._inserted)

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
        layer, slide = self._slides.get(name), self.session.slides[name].slide
        if layer is not None and layer.metadata[METADATA]["slide"] is not slide:
            layer.metadata[METADATA]["slide"] = slide
            self.show_colours(name)
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
        drawings: list[GeneMap | BlendMap] = [*self._maps.values(), *self._blends.values()]
        for drawn in drawings:
            if drawn.result.slide != slide:
                drawn.layer.visible = False
        self._domains_follow(slide)

    def _selection_changed(self) -> None:
        """Show the current slide, then the current result."""
        slide = self._slides.get(self.session.slide or "")
        if slide is not None and slide not in self.viewer.layers:
            self.viewer.layers.insert(0, slide)
        if self.session.slide != self._chosen:
            self._choose(self.session.slide)
        super()._selection_changed()


def _drawing(inks: NDArray[np.uint8], name: str, step_um: Any, at_um: Any, **facts: Any) -> Image:
    """A picture of :data:`_INKS`; as Labels it would be slower to make."""
    scale, translate = np.broadcast_to(step_um, 2), np.broadcast_to(at_um, 2)
    return Image(_INKS[inks], rgb=True, name=name, scale=scale, translate=translate, units=UNITS, **facts)

"""The layer of a result's domains, recoloured in place when they change."""

from __future__ import annotations

import numpy as np
from napari.layers import Labels, Points
from napari.utils.colormaps import CyclicLabelColormap
from numpy.typing import NDArray

from napari_he2st.core.geometry import world_from_level0
from napari_he2st.core.types import Domains
from napari_he2st.gui.colours import domain_colours
from napari_he2st.gui.gene_map import UNITS, GeneMap
from napari_he2st.gui.rasters import Raster


class DomainMap:
    """Domains on the spots of a gene map: Labels where that is an image, Points where it is points.

    Attributes
    ----------
    layer
        Labels count from 1; 0 is no domain.
    """

    def __init__(self, gene_map: GeneMap, domains: Domains) -> None:
        self._gene_map = gene_map
        raster = gene_map.raster
        self.layer: Labels | Points = self._points(domains) if raster is None else _labels(raster, domains)
        self.layer.name = f"Domains — {gene_map.result.title}"

    def _points(self, domains: Domains) -> Points:
        grid = self._gene_map.result.grid
        return Points(
            world_from_level0(grid.xy, grid.mpp),
            features={"domain": domains.names_of_spots()},
            face_color=_colours_of_spots(domains),
            size=grid.spot_um,
            border_width=0,
            units=UNITS,
        )

    def show(self, domains: Domains) -> None:
        """Show other domains of the same spots."""
        if self._gene_map.raster is not None:
            self.layer.colormap = _colours(domains)
            self.layer.data = _image(self._gene_map.raster, domains)
        else:
            self.layer.features = {"domain": domains.names_of_spots()}
            self.layer.face_color = _colours_of_spots(domains)

    def moved(self, domains: Domains) -> None:
        """Draw the spots where they lie now."""
        raster, grid = self._gene_map.raster, self._gene_map.result.grid
        if raster is None:
            self.layer.data = world_from_level0(grid.xy, grid.mpp)
            return
        self.layer.data = _image(raster, domains)
        self.layer.scale, self.layer.translate = raster.scale_um, raster.translate_um


def _labels(raster: Raster, domains: Domains) -> Labels:
    return Labels(
        _image(raster, domains),
        colormap=_colours(domains),
        scale=raster.scale_um,
        translate=raster.translate_um,
        units=UNITS,
    )


def _image(raster: Raster, domains: Domains) -> NDArray[np.uint16]:
    image = np.zeros(raster.shape, dtype=np.uint16)
    raster.paint(image, domains.labels + 1)
    return image


def _colours(domains: Domains) -> CyclicLabelColormap:
    """Cyclic, though it never comes around: napari compiles code, for a second or two, to map labels directly."""
    return CyclicLabelColormap(colors=["transparent", *(domain_colours(domains) or ["white"])])


def _colours_of_spots(domains: Domains) -> list[str]:
    colours = [*domain_colours(domains), "transparent"]  # label −1 takes the last
    return [colours[label] for label in domains.labels]

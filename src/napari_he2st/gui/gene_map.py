"""The layer of one result: a gene map, recoloured in place when the gene changes or the run goes on."""

from __future__ import annotations

from typing import Literal

import numpy as np
from napari.layers import Image, Points
from napari.utils.colormaps import Colormap
from numpy.typing import NDArray

from napari_he2st.core.expression import unit_of
from napari_he2st.core.geometry import world_from_level0
from napari_he2st.engine.session_items import Result
from napari_he2st.gui.colours import MAPS, colour_map
from napari_he2st.gui.rasters import Raster, raster_of, raster_of_nuclei, raster_of_outlines
from napari_he2st.gui.smooth_raster import SmoothRaster, smooth_raster

UNITS = ("um", "um")
METADATA = "napari_he2st"
"""Key of a layer's metadata under which we say what it shows."""

MAX_POINTS = 20_000
"""More spots than this are drawn as one image: a gene change of Points takes too long above."""

ROBUST = (1.0, 99.0)
"""Percentiles of the limits unless the user chooses others."""

Mode = Literal["robust", "locked"]

_SAMPLE = 50_000  # values that percentiles are taken from
_REFIT = 1.25  # growth of the finished part after which a filling map gets new limits
_VALUE = "value"  # the one feature column: a new name would freeze napari's colours


def legend(label: str, scale: str) -> str:
    """What is shown, with its unit unless that is its name: ``"ERBB2, log1p CP10k"``, ``"attention"``."""
    unit = unit_of(scale)
    return label if label.startswith(unit) else f"{label}, {unit}"


def robust_limits(values: NDArray, low: float = ROBUST[0], high: float = ROBUST[1]) -> tuple[float, float]:
    """Limits between two percentiles of the finite values; wider where these leave nothing between them.

    Genes seen in fewer spots than the upper percentile leaves out reach up to their maximum.
    """
    sample = values[:: len(values) // _SAMPLE + 1]
    sample = sample[np.isfinite(sample)]
    if not sample.size:
        return 0.0, 1.0
    bottom, top = (float(p) for p in np.percentile(sample, (low, high)))
    if top <= bottom:
        bottom, top = float(sample.min()), float(sample.max())
    return (bottom, top) if top > bottom else (bottom, bottom + 1.0)


def name_in_picture(layer: Image | Points) -> None:
    """Write the layer's name, gene and unit, into the picture, since the colour bar has no title."""
    layer.name_overlay.visible = True
    layer.name_overlay.position = "top_center"
    layer.name_overlay.font_size = 8


class GeneMap:
    """One result as one layer.

    Parameters
    ----------
    result
        What is drawn.
    as_points
        Draw up to :data:`MAX_POINTS` spots as Points even on a dense lattice, as in a comparison.
    smooth
        Draw a smooth map in place of spots.

    Attributes
    ----------
    result
        What is drawn.
    layer
        Points for up to :data:`MAX_POINTS` spots off a dense lattice, an Image with one value per spot
        otherwise; of cells with outlines, an Image of their shapes.
    raster
        Where the spots are in that image, or None.
    label
        Gene (or signature) that is shown.
    values
        What is shown, float32, shape (spots,).
    """

    def __init__(self, result: Result, *, as_points: bool = False, smooth: bool = False) -> None:
        self.result = result
        self.label = ""
        self.values = np.full(len(result.grid), np.nan, dtype=np.float32)
        self._mode: Mode = "robust"
        self._percentiles = ROBUST
        self._limits = (0.0, 1.0)
        self._known = 0
        self._threshold: float | None = None
        self._as_points, self.smooth = as_points, smooth
        self.raster = self._raster()
        self.layer: Image | Points = self._points() if self.raster is None else self._image(self.raster)

    def _raster(self) -> Raster | None:
        result, outlines = self.result, self.result.outlines
        if result.nuclei is not None and not self._as_points:
            return raster_of_nuclei(result.nuclei, result.grid)
        if outlines is not None and not self._as_points:
            return raster_of_outlines(outlines, result.grid)
        dense = result.kind == "predicted" and result.grid.lattice == "square" and not self._as_points
        if dense or len(result.grid) > MAX_POINTS:
            return raster_of(result.grid)
        return smooth_raster(result.grid) if self.smooth else None

    def _points(self) -> Points:
        grid = self.result.grid
        layer = Points(
            world_from_level0(grid.xy, grid.mpp),
            features={_VALUE: np.zeros(len(grid), dtype=np.float32)},
            face_color=_VALUE,
            face_colormap=MAPS[0].name,
            face_contrast_limits=self._limits,
            size=grid.spot_um,
            border_width=0,
            units=UNITS,
            name=self.result.title,
            metadata={METADATA: {"result": self.result.name}},
        )
        layer.face_colorbar.visible = True
        name_in_picture(layer)
        return layer

    def _image(self, raster: Raster) -> Image:
        layer = Image(
            raster.empty(),
            contrast_limits=self._limits,
            colormap=MAPS[0].name,
            interpolation2d="linear" if self.smooth else "nearest",
            opacity=0.85,
            scale=raster.scale_um,
            translate=raster.translate_um,
            units=UNITS,
            name=self.result.title,
            metadata={METADATA: {"result": self.result.name}},
        )
        layer.colorbar.visible = True
        name_in_picture(layer)
        return layer

    def show(self, values: NDArray, label: str) -> None:
        """Show other values under another label, within limits that suit them unless these are locked."""
        self.label = label
        self.values = np.asarray(values, dtype=np.float32)
        self._known = int(np.isfinite(self.values).sum())
        self._paint()
        self._fit_limits()
        self._redraw()
        unit = self.result.derived[label].unit if label in self.result.derived else self.result.scale
        self.layer.name = f"{legend(label, unit)} — {self.result.kind}"
        self.layer.metadata = {METADATA: {"result": self.result.name, "shows": label}}

    def fill(self, rows: NDArray[np.intp]) -> None:
        """Draw spots that a run has just completed."""
        if not self.result.shows(self.label):
            return
        values = self.result.column(self.label)[rows]
        self.values[rows] = values
        self._paint(rows)
        self._known = int(np.isfinite(self.values).sum())
        if self._known >= _REFIT * max(self._fitted, 1) or self._known == len(self.values):
            self._fit_limits()
        self._redraw()

    def moved(self) -> None:
        """Draw the spots where they lie now."""
        grid = self.result.grid
        self.raster = self._raster()
        if self.raster is None:
            self.layer.data = world_from_level0(grid.xy, grid.mpp)
            return
        self.layer.data = self.raster.empty()
        self.layer.scale, self.layer.translate = self.raster.scale_um, self.raster.translate_um
        self._paint()
        self._redraw()

    @property
    def drawn(self) -> NDArray[np.float32]:
        """The values that are drawn: NaN, and with that transparent, where they are unknown or below the threshold."""
        if self._threshold is None:
            return self.values
        return np.where(self.values >= self._threshold, self.values, np.float32(np.nan))

    def _paint(self, rows: NDArray[np.intp] | None = None) -> None:
        if isinstance(self.raster, SmoothRaster):  # the outline of what is above the threshold is smooth as well
            self.raster.paint(self.layer.data, self.values)
            if self._threshold is not None:
                self.layer.data[self.layer.data < self._threshold] = np.nan
        elif self.raster is not None:
            self.raster.paint(self.layer.data, self.drawn, rows)

    def _redraw(self) -> None:
        if self.raster is None:
            self.layer.features = {_VALUE: self.drawn}
        else:
            self.layer.refresh(thumbnail=False, highlight=False, extent=False)

    # --- limits and colours

    @property
    def threshold(self) -> float | None:
        """Value below which a spot is not drawn, or None."""
        return self._threshold

    def set_threshold(self, value: float | None) -> None:
        """Draw only spots of at least this value; None draws all."""
        self._threshold = value
        self._paint()
        self._redraw()

    @property
    def can_smooth_in_place(self) -> bool:
        """Whether smooth and per-spot display are two ways to draw the same image."""
        return self.raster is not None and not isinstance(self.raster, SmoothRaster)

    def set_smooth(self, smooth: bool) -> None:
        """Draw an image smoothly, or one pixel per spot; only where :attr:`can_smooth_in_place`."""
        self.smooth = smooth
        self.layer.interpolation2d = "linear" if smooth else "nearest"

    def look_like(self, other: GeneMap) -> None:
        """Show what another map of the same result shows, with its limits, colours and opacity."""
        self._mode, self._percentiles, self._limits = other.mode, other.percentiles, other.limits
        self._threshold = other.threshold
        self.set_colormap(other.colormap.name)
        self.layer.opacity, self.layer.visible = other.layer.opacity, other.layer.visible
        self.show(other.values, other.label)

    @property
    def limits(self) -> tuple[float, float]:
        """What the ends of the colour map stand for."""
        return self._limits

    @property
    def mode(self) -> Mode:
        """Whether limits follow each gene or are locked."""
        return self._mode

    @property
    def percentiles(self) -> tuple[float, float]:
        """Percentiles of the limits in the mode ``"robust"``."""
        return self._percentiles

    @property
    def colormap(self) -> Colormap:
        """The colour map."""
        return self.layer.face_colormap if self.raster is None else self.layer.colormap

    def set_limits(self, mode: Mode, low: float | None = None, high: float | None = None) -> None:
        """Choose limits.

        Parameters
        ----------
        mode
            ``"robust"``: percentiles of each gene; ``"locked"``: the same values for all genes.
        low, high
            Percentiles (default 1 and 99) or values (default: the present limits).
        """
        if mode == "robust":
            self._percentiles = (ROBUST[0] if low is None else low, ROBUST[1] if high is None else high)
        else:
            self._limits = (self._limits[0] if low is None else low, self._limits[1] if high is None else high)
        self._mode = mode
        self._fit_limits()

    def _fit_limits(self) -> None:
        self._fitted = self._known
        if self._mode == "robust":
            self._limits = robust_limits(self.values, *self._percentiles)
        if self.raster is None:
            self.layer.face_contrast_limits = self._limits
        else:
            self.layer.contrast_limits = self._limits

    def set_colormap(self, name: str) -> None:
        """Choose a colour map of napari or matplotlib."""
        if self.raster is None:
            self.layer.face_colormap = colour_map(name)
        else:
            self.layer.colormap = colour_map(name)

"""Outlines of nuclei, as fast for a hundred thousand as for a hundred: the label image itself, at several sizes."""

from __future__ import annotations

import numpy as np
from napari.layers import Labels
from napari.utils.colormaps import CyclicLabelColormap

from napari_he2st.core.types import Nuclei
from napari_he2st.gui.gene_map import UNITS

_COLOUR = "#00F0C8"
"""Reads on haematoxylin and on eosin."""

_SMALLEST_PX = 1024


def nuclei_layer(nuclei: Nuclei, name: str, slide_mpp: float) -> Labels:
    """A layer that draws the outlines of what is in sight; its value is the number of a nucleus.

    Parameters
    ----------
    nuclei
        What is drawn.
    name
        Of the layer.
    slide_mpp
        Pixel size of the slide under it.
    """
    levels = [nuclei.labels]
    while max(levels[-1].shape) > _SMALLEST_PX:
        levels.append(levels[-1][::2, ::2])  # views: no memory
    shift = (nuclei.mpp - slide_mpp) / 2  # napari counts from the middle of the first pixel
    layer = Labels(
        levels if len(levels) > 1 else np.asarray(nuclei.labels),
        multiscale=len(levels) > 1,
        colormap=CyclicLabelColormap(colors=["transparent", _COLOUR]),
        name=name,
        opacity=0.9,
        scale=(nuclei.mpp, nuclei.mpp),
        translate=(shift, shift),
        units=UNITS,
    )
    layer.contour = 1
    layer.editable = False
    return layer

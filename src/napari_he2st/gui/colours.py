"""Colours that can be read on H&E and by colour-blind people: maps of values, palette of domains."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from napari.utils.colormaps import Colormap, ensure_colormap
from numpy.typing import NDArray


class Map(NamedTuple):
    """A colour map that is offered, and what it is good for."""

    name: str
    advice: str


MAPS = (
    Map(
        "viridis",
        "Perceptually uniform and safe for colour-blind readers; high values stand out from H&E pink and purple",
    ),
    Map("YlGn_r", "Dark green to pale yellow: no colour of it occurs in H&E; safe for colour-blind readers"),
    Map("cividis", "Perceptually uniform, made for colour-blind readers; low values are close to nuclei"),
    Map("inferno", "Perceptually uniform; its middle is close to eosin: best without the H&E under it"),
    Map("magma", "Perceptually uniform; its middle is close to eosin: best without the H&E under it"),
    Map("gray", "For print; close to haematoxylin"),
)
"""Colour maps for values, the ones that read on H&E first."""

DIFFERENCE = Map("RdBu_r", "Blue: predicted too low, red: predicted too high, white: no difference")
"""Diverging colour map of differences; safe for colour-blind readers."""

# Okabe and Ito (2008), the two that come closest to H&E last.
_OKABE_ITO = ("#0072B2", "#F0E442", "#009E73", "#D55E00", "#56B4E9", "#E69F00", "#404040", "#CC79A7")


def colour_map(name: str) -> Colormap:
    """The napari colour map of a name, matplotlib's included."""
    return ensure_colormap(name)


def palette(n: int) -> NDArray[np.float32]:
    """RGB colours in [0, 1] of ``n`` domains, shape (n, 3).

    Notes
    -----
    The first eight are those of Okabe and Ito, which colour-blind people can tell apart; the next ones are
    their dark and then their pale shades, after which they repeat.
    """
    base = np.array([[int(c[i : i + 2], 16) for i in (1, 3, 5)] for c in _OKABE_ITO], dtype=np.float32) / 255
    shades = np.concatenate([base, base * 0.55, base + (1 - base) * 0.6])
    return shades[np.arange(n) % len(shades)]

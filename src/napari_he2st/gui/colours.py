"""Colours that can be read on H&E and by colour-blind people: maps of values, palette of domains."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from napari.utils.colormaps import Colormap, ensure_colormap

from napari_he2st.core.types import Domains, Region


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

DOMAIN_COLOURS = (
    "#0072B2", "#F0E442", "#009E73", "#D55E00", "#56B4E9", "#E69F00", "#332288", "#CC79A7",
    "#44AA99", "#999933", "#882255", "#DDCC77", "#117733", "#88CCEE", "#AA4499", "#661100",
)  # fmt: skip
"""Okabe and Ito's colours (the one closest to H&E last), then Tol's muted ones: colour-blind people can tell
them apart. Beyond 16 domains they repeat."""


def colour_map(name: str) -> Colormap:
    """The napari colour map of a name, matplotlib's included."""
    return ensure_colormap(name)


def domain_colours(domains: Domains) -> list[str]:
    """Colour of each domain: the user's, or that of the palette."""
    if domains.colours is not None:
        return list(domains.colours)
    return [domain_colour(label) for label in range(domains.n_domains)]


def domain_colour(label: int) -> str:
    """Colour of domain 0, 1, … as a hex string."""
    return DOMAIN_COLOURS[label % len(DOMAIN_COLOURS)]


UNCLASSED = "#D55E00"
"""Colour of regions without a class."""

_RING = "#F0E442"
"""Close to the rings around chosen spots."""


def colour_regions(regions: Sequence[Region]) -> list[Region]:
    """The same regions, each in the colour of its class: one that a region of it has, else one that is free."""
    chosen = {region.kind: region.colour for region in reversed(regions) if region.kind and region.colour}
    free = iter(colour for colour in DOMAIN_COLOURS if colour not in (UNCLASSED, _RING, *chosen.values()))
    for region in regions:
        if region.kind and region.kind not in chosen:
            chosen[region.kind] = next(free, UNCLASSED)
    return [replace(region, colour=chosen.get(region.kind)) for region in regions]

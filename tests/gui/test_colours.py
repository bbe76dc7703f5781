"""Colours that are offered can be told apart, on H&E too."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from napari.utils.colormaps import Colormap
from skimage.color import deltaE_ciede2000, rgb2lab

from napari_he2st.core.types import Region
from napari_he2st.gui.colours import DIFFERENCE, DOMAIN_COLOURS, MAPS, colour_map, colour_regions, domain_colour

# Centres of six clusters of stained pixels of a HER2+ breast section.
HE = np.array([[232, 198, 223], [156, 138, 179], [133, 118, 165], [109, 96, 147], [180, 158, 194], [77, 70, 124]]) / 255


def lab(rgb: np.ndarray) -> np.ndarray:
    return rgb2lab(np.asarray(rgb, dtype=float)[:, None])[:, 0]


def distance_to_he(rgb: np.ndarray) -> np.ndarray:
    each = [deltaE_ciede2000(lab(rgb), np.broadcast_to(stain, (len(rgb), 3))) for stain in lab(HE)]
    return np.min(each, axis=0)


@pytest.mark.parametrize("name", [m.name for m in (*MAPS, DIFFERENCE)])
def test_every_map_can_be_had(name):
    assert isinstance(colour_map(name), Colormap)


@pytest.mark.parametrize("name", [m.name for m in MAPS])
def test_value_maps_grow_steadily_in_lightness(name):
    lightness = lab(colour_map(name).colors[:, :3])[:, 0]
    steps = np.diff(lightness) * np.sign(lightness[-1] - lightness[0])
    assert (steps > -0.2).all()


def test_high_values_of_the_first_maps_do_not_look_like_tissue():
    for name in (MAPS[0].name, MAPS[1].name):
        upper = colour_map(name).colors[128:, :3]
        assert distance_to_he(upper).min() > 30


def test_domain_colours_differ():
    rgb = np.array([[int(c[i : i + 2], 16) for i in (1, 3, 5)] for c in DOMAIN_COLOURS]) / 255
    pairs = lab(rgb)
    apart = [deltaE_ciede2000(pairs[i], pairs[j]) for i in range(8) for j in range(i)]
    assert min(apart) > 15
    assert domain_colour(16) == domain_colour(0)


def test_regions_of_a_class_share_a_colour_that_no_other_class_has():
    square = Region.box(0, 0, 1, 1)
    given = [
        replace(square, kind="Tumor"),
        replace(square, kind="Stroma", colour="#0072B2"),
        replace(square, kind="Tumor"),
        square,
        replace(square, kind="Stroma"),
    ]
    tumour, stroma, again, none, other = (region.colour for region in colour_regions(given))
    assert tumour == again != stroma
    assert stroma == other == "#0072B2"
    assert none is None

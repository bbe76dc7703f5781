"""Inks add up, and what is not expressed is transparent."""

from __future__ import annotations

import numpy as np

from napari_he2st.gui.blend_map import INKS, Part, blend


def test_inks_add_and_the_highest_gene_decides_how_opaque_a_spot_is():
    blue, yellow = Part("A", INKS[0], 0.0, 2.0), Part("B", INKS[1], 1.0, 3.0)
    a = np.array([2.0, 0.0, 2.0, 1.0, np.nan], dtype=np.float32)
    b = np.array([1.0, 3.0, 3.0, 1.0, np.nan], dtype=np.float32)
    colours = blend([a, b], [blue, yellow])
    assert tuple(colours[0]) == (*INKS[0].rgb, 255)
    assert tuple(colours[1]) == (*INKS[1].rgb, 255)
    assert tuple(colours[2]) == (255, 255, 255, 255)
    assert tuple(colours[3][:3]) == INKS[0].rgb
    assert colours[3][3] == 127
    assert colours[4][3] == 0


def test_no_genes_no_spots():
    assert blend([], []).shape == (0, 4)

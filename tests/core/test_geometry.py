"""Polygons on pixels."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from napari_he2st.core.geometry import inside_polygon, polygon_pixels


@given(
    st.lists(st.lists(st.tuples(st.floats(-4, 14), st.floats(-4, 11)), min_size=3, max_size=8), min_size=1, max_size=4)
)
def test_pixels_whose_centres_lie_in_polygons(polygons):
    rings = [np.array([*corners, corners[0]]) for corners in polygons]
    owner = np.repeat(np.arange(len(rings)), [len(ring) for ring in rings])
    pixels, of = polygon_pixels(np.concatenate(rings), owner, (7, 10))
    y, x = np.divmod(np.arange(70), 10)
    centres = np.stack([x, y], axis=1) + 0.5
    assert (np.diff(of) >= 0).all()
    for number, ring in enumerate(rings):
        found = np.zeros(70, dtype=bool)
        found[pixels[of == number]] = True
        for point in np.flatnonzero(found != inside_polygon(centres, ring[:-1])):  # only on an edge itself
            assert _distance(centres[point], ring) < 1e-6


def _distance(point, ring):
    a, b = ring[:-1], ring[1:]
    along = ((point - a) * (b - a)).sum(axis=1) / np.maximum(((b - a) ** 2).sum(axis=1), 1e-300)
    return np.hypot(*(a + np.clip(along, 0, 1)[:, None] * (b - a) - point).T).min()

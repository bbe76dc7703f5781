"""Counting points in hexagons."""

from __future__ import annotations

import numpy as np

from napari_he2st.analysis.hexbin import hexbin


def test_every_point_is_counted_in_the_nearest_hexagon() -> None:
    x, y = np.random.default_rng(0).uniform(0, [[2], [5]], size=(2, 3_000))
    centres, counts = hexbin(x, y, 20)
    assert counts.sum() == 3_000
    scale = np.array([np.ptp(x), np.ptp(y)])
    distance = np.linalg.norm((np.stack([x, y], 1)[:, None] - centres) / scale, axis=2)
    np.testing.assert_array_equal(np.bincount(distance.argmin(axis=1), minlength=len(centres)), counts)


def test_points_on_one_spot_are_one_hexagon() -> None:
    centres, counts = hexbin(np.ones(10), np.full(10, 3.0))
    np.testing.assert_allclose(centres, [[1, 3]])
    assert counts.tolist() == [10]

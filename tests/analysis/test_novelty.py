"""Distances to training tiles: those of their kind are within 1, others beyond."""

from __future__ import annotations

import numpy as np
import pytest

from napari_he2st.analysis.novelty import FeatureSummary, outside
from napari_he2st.core.errors import SchemaError


@pytest.fixture
def features() -> np.ndarray:
    rng = np.random.default_rng(0)
    return rng.normal(size=(600, 5)) @ rng.normal(size=(5, 60)) + 0.1 * rng.normal(size=(600, 60)) + 3


def test_tiles_of_the_same_kind_are_inside(features):
    summary = FeatureSummary.of(features[:500])
    assert outside(summary.distance(features[:500])) <= 0.01
    assert outside(summary.distance(features[500:])) < 0.1


def test_a_shift_within_and_beside_the_known_directions_is_seen(features):
    summary = FeatureSummary.of(features)
    along = features + 12 * summary.components[0] * summary.scale[0]
    assert outside(summary.distance(along)) > 0.9
    beside = features + 5 * np.linalg.svd(summary.components)[2][-1]
    assert outside(summary.distance(beside)) > 0.9


def test_unreadable_tiles_are_unknown(features):
    summary = FeatureSummary.of(features)
    some = features[:4].copy()
    some[1] = np.nan
    distance = summary.distance(some)
    assert np.isnan(distance).tolist() == [False, True, False, False]
    assert np.isnan(outside(distance[1:2]))


def test_it_survives_storage_and_says_what_is_missing(features):
    summary = FeatureSummary.of(features)
    again = FeatureSummary.from_dict({**summary.as_dict(), "encoder": "x"})
    np.testing.assert_array_equal(again.distance(features), summary.distance(features))
    with pytest.raises(SchemaError, match="incomplete"):
        FeatureSummary.from_dict({"mean": 1})
    with pytest.raises(SchemaError, match="fit together"):
        FeatureSummary.from_dict({**summary.as_dict(), "scale": summary.scale[1:]})


def test_constant_features_are_no_reason_to_fail():
    summary = FeatureSummary.of(np.ones((10, 4)))
    assert (summary.distance(np.ones((2, 4))) <= 1).all()
    assert np.isfinite(summary.distance(np.zeros((2, 4)))).all()
    with pytest.raises(SchemaError, match="too few"):
        FeatureSummary.of(np.ones((2, 4)))

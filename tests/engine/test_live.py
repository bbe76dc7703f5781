"""The live map: what is seen comes first, and comes once."""

from __future__ import annotations

import numpy as np
import pytest
from tests.tiny import predictors
from tests.tiny.predictors import bundle_of

from napari_he2st.core.errors import ModelError
from napari_he2st.core.progress import Cancelled, Control
from napari_he2st.core.types import Region
from napari_he2st.data.slides.grid import square_grid
from napari_he2st.data.slides.tissue import tissue_mask
from napari_he2st.engine import live
from napari_he2st.engine.live import LiveMap
from napari_he2st.engine.predict import predict

VIEW = Region.box(200, 150, 240, 180)


@pytest.fixture
def live_map(slide) -> LiveMap:
    bundle = bundle_of(predictors.Colour)
    return LiveMap(bundle, slide, square_grid(slide, 10.0))


def test_a_coarse_map_comes_first_and_then_every_spot_of_the_view(live_map, slide) -> None:
    inside = (live_map.grid.xy >= [200, 150]).all(axis=1) & (live_map.grid.xy < [440, 330]).all(axis=1)
    values = np.full((len(live_map.grid), 3), np.nan, dtype=np.float32)
    covered = None
    for chunk in live_map.look(VIEW):
        values[chunk.index] = chunk.mean
        if covered is None and np.isfinite(values[inside]).all():
            covered = int(live_map.known.sum())
    assert covered is not None
    assert covered < inside.sum() / 4, "the coarse map covers the view long before all spots are known"
    assert live_map.known[inside].all()
    own = predict(live_map.bundle, slide, live_map.grid)
    expected = np.concatenate([chunk.mean for chunk in own])
    np.testing.assert_allclose(values[live_map.known], expected[live_map.known], atol=1e-5)


def test_returning_costs_nothing_and_panning_only_what_is_new(live_map) -> None:
    list(live_map.look(VIEW))
    before = live_map.known.copy()
    assert list(live_map.look(VIEW)) == []
    new = np.concatenate([chunk.index for chunk in live_map.look(Region.box(240, 150, 240, 180))])
    assert len(new)
    assert not before[new].any()


def test_the_middle_of_the_view_is_seen_first(live_map) -> None:
    first = next(live_map.look(VIEW))
    distance = np.linalg.norm(live_map.grid.xy - [320, 240], axis=1)
    assert distance[first.index].mean() < 80


def test_looking_elsewhere_stops_within_a_batch(live_map) -> None:
    control = Control()
    chunks = live_map.look(VIEW, control=control)
    next(chunks)
    known = live_map.known.sum()
    control.cancel()
    with pytest.raises(Cancelled):
        list(chunks)
    assert live_map.known.sum() <= known + 8


def test_spots_that_see_each_other_are_for_this_view_only(slide) -> None:
    seen = LiveMap(bundle_of(predictors.Nearby), slide, square_grid(slide, 10.0))
    assert seen.view_only
    rows = np.concatenate([chunk.index for chunk in seen.look(VIEW)])
    again = np.concatenate([chunk.index for chunk in seen.look(VIEW)])
    np.testing.assert_array_equal(rows, again)
    assert not seen.known.any()


def test_dense_predictors_are_kept_too(slide) -> None:
    seen = LiveMap(bundle_of(predictors.DenseColour), slide, square_grid(slide, 2.0))
    assert not seen.view_only
    assert list(seen.look(VIEW))
    assert list(seen.look(VIEW)) == []


def test_a_map_that_would_not_fit_is_coarser(slide, monkeypatch) -> None:
    bundle = bundle_of(predictors.Colour)
    mask = tissue_mask(slide)
    assert LiveMap.over(bundle, slide, mask).grid.pitch_um == 20.0
    monkeypatch.setattr(live, "MAX_BYTES", 500)
    assert LiveMap.over(bundle, slide, mask).grid.pitch_um > 20.0
    with pytest.raises(ModelError, match="whole slide"):
        LiveMap.over(bundle_of(predictors.BagMean), slide, mask)

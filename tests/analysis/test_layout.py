"""The map of alike spots against the library that published the method."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from sklearn.manifold import trustworthiness

from napari_he2st.analysis.domains.layout import alikeness, umap_layout
from napari_he2st.core.errors import He2stError
from napari_he2st.core.progress import Cancelled, Control


@pytest.fixture
def points():
    rng = np.random.default_rng(0)
    return (2 * rng.normal(size=(6, 20))[np.arange(240) % 6] + rng.normal(size=(240, 20))).astype(np.float32)


def test_neighbours_stay_neighbours_and_the_seed_decides(points):
    layout = umap_layout(points, seed=3)
    assert trustworthiness(points, layout, n_neighbors=10) > 0.95
    np.testing.assert_array_equal(layout, umap_layout(points, seed=3))


@pytest.mark.slow
def test_weights_and_trust_are_those_of_umap_learn(points):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from umap import UMAP
        from umap.umap_ import fuzzy_simplicial_set

        theirs, *_ = fuzzy_simplicial_set(points, 15, np.random.RandomState(0), "euclidean")
        layout = UMAP(random_state=0, n_jobs=1).fit_transform(points)
    ours = alikeness(points.astype(np.float64))
    assert np.abs(ours.toarray() - theirs.toarray()).max() < 2e-3
    trust = [trustworthiness(points, found, n_neighbors=10) for found in (umap_layout(points), layout)]
    assert trust[0] > trust[1] - 0.01


def test_spots_in_one_place_and_spots_without_values(points):
    points[:30] = points[0]
    points[40] = np.nan
    layout = umap_layout(points)
    assert np.isfinite(np.delete(layout, 40, axis=0)).all()
    assert np.isnan(layout[40]).all()


def test_too_few_spots_and_cancelling(points):
    with pytest.raises(He2stError, match="3 spots are too few"):
        umap_layout(points[:3])
    control = Control()
    control.cancel()
    with pytest.raises(Cancelled):
        umap_layout(points, control=control)

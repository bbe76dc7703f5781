"""How far a slide is from what a predictor was trained on."""

from __future__ import annotations

import numpy as np
import pytest
from tests.engine.test_training_units import section_at
from tests.tiny import predictors
from tests.tiny.predictors import bundle_of

from napari_he2st.analysis.novelty import outside
from napari_he2st.core.errors import ModelError
from napari_he2st.core.types import Region
from napari_he2st.data.slides.grid import square_grid
from napari_he2st.engine.train import train
from napari_he2st.engine.trust import SUMMARY, distance_to_training, knows_its_training
from napari_he2st.zoo.bundle import Bundle


@pytest.fixture
def grid(slide):
    return square_grid(slide, 12.0, region=Region.box(200, 150, 180, 160))


def test_training_tiles_are_inside_and_glass_is_not(slide, slide_path, grid, tmp_path):
    counts = np.random.default_rng(0).poisson(5, size=(len(grid), 3)).astype(np.float32)
    bundle = train("mean", [section_at(grid, slide_path, counts)], panel="all")
    assert bundle.members[0].extras[SUMMARY]["encoder"] == "colour-texture"
    again = Bundle.load(bundle.save(tmp_path / "mean"))
    assert knows_its_training(again)
    inside = distance_to_training(again, slide, grid, device="cpu")
    assert inside.shape == (len(grid),)
    assert outside(inside) < 0.2
    width, height = slide.size
    glass = square_grid(slide, 12.0, region=Region.box(0, 0, 40, 40))
    far = distance_to_training(again, slide, glass, device="cpu")
    assert np.nanmedian(far) > 2 * np.nanmedian(inside)


def test_a_bundle_without_a_summary_says_so(slide, grid):
    bundle = bundle_of(predictors.Colour)
    assert not knows_its_training(bundle)
    with pytest.raises(ModelError, match="no summary"):
        distance_to_training(bundle, slide, grid)


def test_the_starter_knows_its_training():
    from napari_he2st.zoo.catalogue import load

    bundle = load("starter")
    assert knows_its_training(bundle)
    assert bundle.members[0].extras[SUMMARY]["n"] == sum(s["spots"] for s in bundle.manifest.training)

"""What a prediction by retrieval was made of."""

from __future__ import annotations

import numpy as np
import pytest
from tests.engine.test_training_units import section_at
from tests.tiny import predictors
from tests.tiny.lookup import lookup_bundle
from tests.tiny.predictors import bundle_of

from napari_he2st.core.errors import ModelError, UnknownNameError
from napari_he2st.core.types import Region
from napari_he2st.data.slides.grid import square_grid
from napari_he2st.data.slides.pictures import PICTURE_PX
from napari_he2st.engine.predict import predict_slide
from napari_he2st.engine.reference import embeddings, looks_up, matches
from napari_he2st.engine.segment import segment
from napari_he2st.engine.train import train
from napari_he2st.zoo.bundle import Bundle


@pytest.fixture
def grid(slide):
    return square_grid(slide, 12.0, region=Region.box(200, 150, 180, 160))


def test_a_spot_of_the_reference_finds_itself(slide, grid) -> None:
    bundle = lookup_bundle(slide, grid)
    found = matches(bundle, slide, grid, 3, n=4, device="cpu")
    np.testing.assert_allclose(found.similarity[0], 1.0, atol=1e-5)
    assert (np.diff(found.similarity) <= 0).all()
    assert found.measure == "cosine similarity"
    assert found.sections == ["S1"] * 4
    np.testing.assert_array_equal(found.xy[0], grid.xy[3])
    assert found.expression[0].tolist() == [9, 10, 11]
    np.testing.assert_array_equal(found.query, found.pictures[0])
    assert found.query.shape == (PICTURE_PX, PICTURE_PX, 3)


def test_the_reference_survives_the_bundle_s_folder(slide, grid, tmp_path) -> None:
    bundle = lookup_bundle(slide, grid)
    again = Bundle.load(bundle.save(tmp_path / "lookup"))
    before, after = (matches(b, slide, grid, 5, n=3, device="cpu") for b in (bundle, again))
    for name in ("similarity", "xy", "expression", "pictures"):
        np.testing.assert_array_equal(getattr(before, name), getattr(after, name))


def test_the_nearest_alone_gives_back_the_reference(slide, grid) -> None:
    predicted = predict_slide(lookup_bundle(slide, grid), slide, grid=grid, options={"rule": "nearest"}, device="cpu")
    assert predicted.X.tolist() == np.arange(3 * len(grid)).reshape(-1, 3).tolist()


def test_training_describes_its_reference(slide, slide_path, grid) -> None:
    counts = np.random.default_rng(0).poisson(5, size=(len(grid), 3)).astype(np.float32)
    arguments = {"trunk": "resnet10", "dim": 8, "tile_px": 32, "imagenet": False}
    bundle = train("bleep", [section_at(grid, slide_path, counts)], panel="all", arguments=arguments, epochs=1)
    bank = bundle.members[0].extras["reference"]
    np.testing.assert_array_equal(bank["xy"], grid.xy)
    assert bank["picture"].shape == (len(grid), PICTURE_PX, PICTURE_PX, 3)
    assert matches(bundle, slide, grid, 0, n=2, device="cpu").sections == ["X", "X"]


def test_spots_are_grouped_by_what_a_retrieval_model_sees(slide, slide_path, grid, tmp_path) -> None:
    bundle = lookup_bundle(slide, grid)
    adata = section_at(grid, slide_path, np.ones((len(grid), 3), np.float32)).adata
    seen = embeddings(bundle, slide, grid, device="cpu")
    np.testing.assert_allclose(seen, bundle.members[0].extras["reference"]["embedding"], atol=1e-5)
    folder = bundle.save(tmp_path / "lookup")
    found = [
        segment(adata, method, n_domains=2, on=on, slide=slide, device="cpu")
        for method, on in (("kmeans", bundle), ("kmeans", str(folder)), ("mixture", bundle))
    ]
    np.testing.assert_array_equal(found[0].labels, found[1].labels)
    assert found[2].n_domains == 2
    assert found[0].params["on"] == f"features of {bundle.id}"
    with pytest.raises(ModelError, match="does not embed what spots look like"):
        segment(adata, "kmeans", n_domains=2, on=bundle_of(predictors.DenseColour), slide=slide)
    with pytest.raises(UnknownNameError):
        segment(adata, "kmeans", n_domains=2, on="no-such-encoder", slide=slide)


def test_other_predictors_look_nothing_up(slide, grid) -> None:
    bundle = bundle_of(predictors.DenseColour)
    assert not looks_up(bundle)
    with pytest.raises(ModelError, match="does not look up"):
        matches(bundle, slide, grid, 0)

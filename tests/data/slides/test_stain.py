"""Stain normalisation: known stains are found, colours move to the target, glass stays."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.tiny.slides import write_slide

from napari_he2st.core.errors import SlideError
from napari_he2st.data.slides import Slide
from napari_he2st.data.slides.stain import (
    MACENKO_TARGET,
    Macenko,
    Reinhard,
    Stains,
    fit_colours,
    fit_stains,
    normalised,
    sample,
)

PINK = Stains(np.array([[0.65, 0.10], [0.70, 0.95], [0.29, 0.30]]), np.array([1.5, 1.0]))


def stained(stains: Stains, shape=(400, 500), *, seed: int = 0) -> np.ndarray:
    """Two stains at random densities, with a margin of glass: uint8 (h, w, 3)."""
    rng = np.random.default_rng(seed)
    vectors = stains.vectors / np.linalg.norm(stains.vectors, axis=0)
    amount = np.stack([rng.beta(1, 3, shape), rng.beta(1, 2, shape)], axis=-1) * stains.strongest
    amount[rng.random(shape) < 0.3, 0] = 0
    amount[:30] = 0
    return np.clip(256 * np.exp(-(amount @ vectors.T)) - 1, 0, 255).round().astype(np.uint8)


def test_the_stains_of_a_picture_are_found() -> None:
    found = fit_stains(stained(PINK).reshape(-1, 3))
    wanted = PINK.vectors / np.linalg.norm(PINK.vectors, axis=0)
    assert (np.sum(found.vectors * wanted, axis=0) > np.cos(np.deg2rad(6))).all()


def test_macenko_gives_the_stains_of_the_target() -> None:
    image = stained(PINK)
    done = Macenko(fit_stains(image.reshape(-1, 3)))(image)
    found = fit_stains(done.reshape(-1, 3))
    wanted = MACENKO_TARGET.vectors / np.linalg.norm(MACENKO_TARGET.vectors, axis=0)
    assert (np.sum(found.vectors * wanted, axis=0) > np.cos(np.deg2rad(6))).all()
    assert np.allclose(found.strongest, MACENKO_TARGET.strongest, rtol=0.2)
    assert (done[:30] == image[:30]).all()  # glass


def test_a_slide_that_has_the_target_already_hardly_changes() -> None:
    image = stained(PINK)
    own = fit_stains(image.reshape(-1, 3))
    assert np.abs(Macenko(own, own)(image).astype(int) - image).mean() < 2


def test_reinhard_gives_mean_and_spread_of_the_target() -> None:
    image = stained(PINK)
    target = np.array([[140.0, 150.0, 110.0], [30.0, 8.0, 6.0]])
    done = Reinhard(fit_colours(image.reshape(-1, 3)), target)(image)
    assert np.abs(fit_colours(done[30:].reshape(-1, 3)) - target).max() < 4
    assert (done[:30] == image[:30]).all()


@pytest.mark.parametrize("fit", [fit_stains, fit_colours])
def test_glass_alone_has_no_stain(fit) -> None:
    with pytest.raises(SlideError, match="too little stained tissue"):
        fit(np.full((1000, 3), 250, np.uint8))


@pytest.mark.parametrize("shape", [(0, 8, 8, 3), (2, 8, 9, 3), (8, 9, 3)])
def test_any_number_of_patches(shape) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, shape, dtype=np.uint8)
    for way in (Macenko(PINK), Reinhard(np.array([[150.0, 140, 110], [30, 5, 5]]))):
        assert way(pixels).shape == shape


@pytest.fixture
def slide(tmp_path: Path):
    image = np.full((1400, 1400, 3), 245, np.uint8)
    image[100:1300, 100:1300] = stained(PINK, (1200, 1200))
    with Slide.open(write_slide(tmp_path / "a.tif", image, tile=256)) as opened:
        yield opened


@pytest.mark.parametrize("method", ["macenko", "reinhard"])
def test_a_slide_changes_the_same_way_everywhere(slide: Slide, method: str) -> None:
    other = normalised(slide, method)
    assert (other.colours, other.fingerprint) == (method, slide.fingerprint)
    whole = other.read(0, 0, 1400, 1400, mpp=0.5)
    assert np.abs(whole.astype(int) - slide.read(0, 0, 1400, 1400, mpp=0.5)).mean() > 5
    (batch,) = other.read_tiles([[300, 400], [1200, 1200]], 100, 0.5)
    assert (batch.tiles[0] == whole[350:450, 250:350]).all()
    assert (np.asarray(other.pyramid()[0]) == whole).all()
    assert (sample(slide) == sample(slide)).all()


def test_nothing_asked_is_nothing_done(slide: Slide) -> None:
    assert normalised(slide, None) is slide


def test_the_method_is_one_of_two(slide: Slide) -> None:
    with pytest.raises(SlideError, match="macenko or reinhard"):
        normalised(slide, "vahadane")


@pytest.mark.needs_data
@pytest.mark.parametrize("method", ["macenko", "reinhard"])
def test_a_real_pair(he2st_data: Path, method: str) -> None:
    """The usual pair: a violet section and a pale blue one."""
    folder = he2st_data / "he_tiles" / "torchstain"
    pair = [np.asarray(Image.open(folder / f"{name}.png").convert("RGB")) for name in ("source", "target")]
    source, target = pair
    if method == "macenko":
        way = Macenko(*(fit_stains(p.reshape(-1, 3)) for p in pair))
    else:
        way = Reinhard(*(fit_colours(p.reshape(-1, 3)) for p in pair))
    done = way(source)
    wanted = fit_colours(target.reshape(-1, 3))[0]
    before, after = (np.abs(fit_colours(p.reshape(-1, 3))[0] - wanted) for p in (source, done))
    assert after.sum() < 0.7 * before.sum()

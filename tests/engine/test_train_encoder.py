"""Small transformers learn from slides alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from napari_he2st.core.errors import ModelError, UnknownNameError, WeightsError
from napari_he2st.data.slides import Slide
from napari_he2st.engine.train_encoder import train_encoder
from napari_he2st.zoo.encoders.build import build
from napari_he2st.zoo.encoders.dense import dense_encoder, dense_spec
from napari_he2st.zoo.weights import name_weights, overrides


@pytest.fixture(scope="module")
def slide(tmp_path_factory: pytest.TempPathFactory) -> Slide:
    """Stripes of two tissues, one finer than the other."""
    image = np.full((1600, 1600, 3), 244, np.uint8)
    fine = np.random.default_rng(0).integers(0, 90, (1472, 1472, 3))
    coarse = np.random.default_rng(1).integers(0, 90, (184, 184, 3)).repeat(8, 0).repeat(8, 1)
    left = np.arange(1472)[None, :, None] % 736 < 368
    image[64:-64, 64:-64] = np.where(left, fine + np.array((120, 60, 130)), coarse + np.array((150, 90, 120)))
    path = tmp_path_factory.mktemp("slide") / "stripes.png"
    Image.fromarray(image).save(path)
    return Slide.open(path, mpp=0.5)


def test_both_levels_learn_and_serve(slide: Slide, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HE2ST_WEIGHTS", str(tmp_path / "weights.toml"))
    with pytest.raises(WeightsError, match="hipt256-small"):
        train_encoder("hipt4k-small", [slide], tiles=512, epochs=1, device="cpu")
    for name, tiles, epochs in (("hipt256-small", 16, 2), ("hipt4k-small", 1024, 2)):
        trained = train_encoder(name, [slide], tiles=tiles, epochs=epochs, device="cpu")
        assert len(trained.losses) == epochs
        assert np.isfinite(trained.losses).all()
        save_file(trained.state, tmp_path / f"{name}.safetensors")
        name_weights(name, tmp_path / f"{name}.safetensors")
    assert set(overrides()) == {"hipt256-small", "hipt4k-small"}
    tiles = torch.randint(0, 256, (3, 3, 256, 256), dtype=torch.uint8)
    assert build("hipt256-small")(tiles).shape == (3, 96)
    spec = dense_spec("hipt-small")
    maps = dense_encoder("hipt-small", torch.device("cpu"))(tiles[0])
    assert maps.shape == (spec.dim, 16, 16)
    assert maps.isfinite().all()


def test_the_same_seed_gives_the_same_network(slide: Slide) -> None:
    first, again, other = (
        train_encoder("hipt256-small", [slide], tiles=8, epochs=1, seed=seed, device="cpu") for seed in (0, 0, 1)
    )
    assert first.losses == again.losses != other.losses
    assert all(torch.equal(value, again.state[key]) for key, value in first.state.items())


def test_what_cannot_be_trained_is_refused(slide: Slide) -> None:
    with pytest.raises(UnknownNameError):
        train_encoder("uni", [slide], device="cpu")
    with pytest.raises(ModelError, match="memory"):
        train_encoder("hipt256-small", [slide], tiles=10**8, device="cpu")
    with pytest.raises(ModelError, match="too few"):
        train_encoder("hipt256-small", [slide], tiles=1, epochs=1, device="cpu")

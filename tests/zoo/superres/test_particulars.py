"""What parity does not prove of super-resolution systems."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from napari_he2st.core.errors import ModelError, UnknownNameError, WeightsError
from napari_he2st.zoo.blocks.cells import CellsOfSpots
from napari_he2st.zoo.blocks.hipt import HIPT, ViT4K, ViT256
from napari_he2st.zoo.blocks.rasters import cell_positions, owner_mean
from napari_he2st.zoo.encoders.build import hipt_network
from napari_he2st.zoo.encoders.dense import HiptMaps, dense_encoder, dense_spec
from napari_he2st.zoo.superres.iscale import IScale
from napari_he2st.zoo.superres.istar import IStar
from napari_he2st.zoo.superres.miso import own_size
from napari_he2st.zoo.superres.transformerst import TransformerST, weigh_nearest

CPU = torch.device("cpu")


def _image(side: int) -> torch.Tensor:
    return torch.randint(0, 256, (3, side, side), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


@pytest.mark.parametrize("name", ["colour", "efficientnet-lite0"])
def test_cells_away_from_the_border_are_the_same_in_every_region(name: str) -> None:
    encode = dense_encoder(name, CPU)
    cell, margin = encode.spec.cell_px, encode.spec.margin
    image = _image((2 * margin + 8) * cell)
    whole = encode(image)
    assert whole.shape == (encode.spec.dim, 2 * margin + 8, 2 * margin + 8)
    shift = 4
    part = encode(image[:, shift * cell :, shift * cell :])
    inner = slice(margin + shift, margin + 8)
    theirs = whole[:, inner, inner]
    ours = part[:, margin : margin + 4, margin : margin + 4]
    assert float((ours - theirs).abs().max()) < 0.02 * float(theirs.std())


def test_small_hipt_gives_a_feature_per_cell() -> None:
    torch.manual_seed(0)
    hipt = HIPT(dim=24, depth=1, heads=2, region_dim=12, region_depth=1, region_heads=2).eval()
    with torch.inference_mode():
        plain, shifted = (HiptMaps(hipt, shifts=shifts)(_image(768) / 255) for shifts in (False, True))
    assert plain.shape == shifted.shape == (12 + 24 + 3, 48, 48)
    # Colour is neither shifted nor smoothed.
    torch.testing.assert_close(plain[-3:], shifted[-3:])


def test_hipt_reads_the_users_checkpoints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HE2ST_WEIGHTS", str(tmp_path / "weights.toml"))
    with pytest.raises(WeightsError, match="hipt256"):
        hipt_network()
    for name, network in (("a", ViT256()), ("b", ViT4K())):
        state = {f"module.backbone.{key}": value for key, value in network.state_dict().items()}
        state["module.head.mlp.0.weight"] = torch.zeros(1)
        torch.save({"teacher": state, "student": {}}, tmp_path / f"{name}.pth")
    (tmp_path / "weights.toml").write_text('hipt256 = "a.pth"\nhipt4k = "b.pth"\n')
    loaded = hipt_network().model4k.state_dict()
    assert all(torch.equal(value, loaded[key]) for key, value in network.state_dict().items())


def test_dense_encoders_that_do_not_exist() -> None:
    with pytest.raises(UnknownNameError):
        dense_spec("hipt5")
    with pytest.raises(ModelError, match="no vision transformer"):
        dense_spec("tokens:efficientnet-lite0")


def test_tokens_of_a_vision_transformer() -> None:
    name = "tokens:timm:vit_tiny_patch16_224?pretrained=no"
    spec = dense_spec(name)
    assert (spec.dim, spec.cell_px, spec.tile_px) == (192, 16, 224)
    encode = dense_encoder(name, CPU)
    image = _image(320)
    maps = encode(image)
    assert maps.shape == (192, 20, 20)
    torch.testing.assert_close(maps[:, :14, :14], encode(image[:, :224, :224]), rtol=1e-4, atol=1e-4)


def test_the_cells_of_a_spot_share_its_counts() -> None:
    torch.manual_seed(0)
    model = IStar(2, encoder="colour", dim=8, depth=1).eval()
    model.extras = {"scale": {"low": np.array([1.0, 0.0]), "span": np.array([9.0, 5.0])}, "cells_per_spot": 4}
    features = torch.rand(8, 12)
    owner = torch.tensor([0, 0, 0, 0, 1, 1, 1, 1])
    with torch.inference_mode():
        counts = owner_mean(model.predict(features=features), owner, 2) * 4
        scaled = owner_mean(model(features), owner, 2)
    torch.testing.assert_close(counts, scaled * torch.tensor([9.0, 5.0]) + torch.tensor([1.0, 0.0]))


class _Captures:
    """Two captures of one slide with a spot in common."""

    n_slides = 2

    def __len__(self) -> int:
        return 2

    def __iter__(self):
        for slide, left in enumerate((0.0, 200.0)):
            xy = torch.cat([cell_positions(torch.tensor([left + far, 100.0]), 3, 8.0) for far in (0.0, 200.0)])
            features = (xy[:, :1] / 400).expand(-1, 12).contiguous()
            expression = torch.tensor([[left / 400], [left / 400 + 0.5]])
            owner = torch.arange(2).repeat_interleave(9)
            targets = {"expression": expression, "owner": owner, "slide": torch.full((2,), slide)}
            yield targets, {"features": features, "xy": xy}


def test_captures_that_overlap_are_merged() -> None:
    batches = _Captures()
    known = CellsOfSpots.gather(batches)
    assert known.xy.tolist() == [[0.0, 100.0], [200.0, 100.0], [200.0, 100.0], [400.0, 100.0]]
    model = IScale(1, encoder="colour", dim=8, depth=1)
    seen: list[int] = []
    loss = model.loss
    model.loss = lambda targets, **prepared: seen.append(len(targets["expression"])) or loss(targets, **prepared)
    list(model.fit(batches, model.recipe.__class__("adam", epochs=1, batch_size=8)))
    assert seen == [3]


def test_transformerst_is_nearest_in_place_and_colour() -> None:
    model = TransformerST(1)
    spots = {
        "um": np.array([[0.0, 0.0], [100.0, 0.0], [0.0, 100.0], [100.0, 100.0], [50.0, 50.0], [900.0, 900.0]]),
        "colour": np.array([0.0, 0.0, 200.0, 200.0, 100.0, 100.0]),
        "expression": np.array([[1.0], [1.0], [5.0], [5.0], [3.0], [9.0]]),
    }
    model.extras["spots"] = {name: value.astype(np.float32) for name, value in spots.items()}
    here, dark, bright = ([0.0, 0.0], 0.0), ([50.0, 50.0], 0.0), ([50.0, 50.0], 200.0)
    um, colour = (torch.tensor([point[i] for point in (here, dark, bright)]) for i in (0, 1))
    at_spot, darker, brighter = model.predict(um=um, colour=colour)[:, 0].tolist()
    assert at_spot == pytest.approx(1.0, abs=1e-3)
    assert darker < 2.5 < 3.5 < brighter
    alone = model.predict(um=um[1:2], colour=colour[1:2])[0, 0]
    assert float(alone) == pytest.approx(darker, abs=1e-5)


def test_fewer_than_five_spots() -> None:
    found = weigh_nearest(torch.tensor([[1.0, 1.0]]), torch.tensor([[2.0], [4.0]]))
    assert found.tolist() == [[3.0]]


def test_transformerst_groups_spots() -> None:
    from anndata import AnnData

    rng = np.random.default_rng(0)
    x, y = np.meshgrid(np.arange(10), np.arange(8))
    left = (x < 5).ravel()
    counts = rng.poisson(np.where(left[:, None], [20, 1, 10], [1, 20, 10]), (80, 3)).astype(np.float32)
    section = AnnData(counts, obsm={"spatial": np.stack([x.ravel(), y.ravel()], axis=1) * 100.0})
    method = TransformerST(task="domains", epochs=30)
    first, again = (method.segment(section, n_domains=2, seed=0) for _ in range(2))
    assert (first.labels == again.labels).all()
    assert first.n_domains == 2
    assert first.params["seconds_per_epoch"] > 0
    untrained = TransformerST(task="domains", epochs=1).segment(section, n_domains=2, seed=0)
    assert first.params["loss"] < untrained.params["loss"]


def test_labels_of_miso_have_the_size_of_the_counts() -> None:
    measured = torch.tensor([[1.0, 2.0], [3.0, torch.nan], [5.0, 4.0]])
    assert own_size(measured.nan_to_num() / 10, measured).tolist() == pytest.approx([10.0, 10.0])
    assert own_size(-measured.nan_to_num(), measured).tolist() == [0.0, 0.0]

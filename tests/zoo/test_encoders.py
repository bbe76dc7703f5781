from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from skimage.color import hed_from_rgb
from torch import nn

from napari_he2st.core.errors import UnknownNameError, WeightsError
from napari_he2st.zoo.encoders.build import BUILDERS, build, spec_of, timm_network
from napari_he2st.zoo.encoders.colour import ColourTexture
from napari_he2st.zoo.encoders.fuse import fuse_conv_bn
from napari_he2st.zoo.encoders.table import encoders
from napari_he2st.zoo.guard import safe_import

TILES = torch.randint(0, 256, (2, 3, 96, 96), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


@pytest.mark.parametrize("name", encoders())
def test_every_row_of_the_table(name: str) -> None:
    spec = spec_of(name)
    assert spec.builder in BUILDERS
    assert sum(spec.parts) in (0, spec.dim)
    if spec.gated:
        pytest.skip("its weights are a file of the user's")
    if spec.weights is not None and spec.weights.package is None:
        pytest.skip("its weights have to be downloaded")
    encoder = build(name)
    features = encoder(TILES)
    assert features.shape == (2, spec.dim)
    assert features.dtype == torch.float32
    assert not features.requires_grad
    assert bool(features.isfinite().all())
    torch.testing.assert_close(encoder(TILES[1:]), features[1:], rtol=1e-4, atol=1e-4)


def test_bytes_and_shares_give_the_same() -> None:
    encoder = build("timm:mobilenetv3_small_050?pretrained=no")
    torch.testing.assert_close(encoder(TILES), encoder(TILES / 255))
    assert encoder.normalise(TILES).shape == (2, 3, 224, 224)


def test_resizing_is_antialiased() -> None:
    encoder = build("timm:mobilenetv3_small_050?pretrained=no")
    stripes = torch.zeros(1, 3, 896, 896)
    stripes[..., ::2] = 1
    inner = encoder.normalise(stripes)[0, 0, 10:-10, 10:-10] * encoder.spec.std[0] + encoder.spec.mean[0]
    torch.testing.assert_close(inner, torch.full_like(inner, 0.5), atol=0.02, rtol=0)


def test_random_weights_are_asked_for_and_always_the_same() -> None:
    first, second = build("timm:mobilenetv3_small_050?pretrained=no"), build("timm:mobilenetv3_small_050?pretrained=no")
    torch.testing.assert_close(first(TILES), second(TILES), rtol=0, atol=0)
    with pytest.raises(WeightsError, match="no weights to load for timm:mobilenetv3_small_050"):
        build("timm:mobilenetv3_small_050")


def test_a_timm_model_takes_the_users_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network = timm_network(spec_of("timm:mobilenetv3_small_050?pretrained=no"))
    torch.save(network.state_dict(), tmp_path / "w.pth")
    (tmp_path / "weights.toml").write_text('"timm:mobilenetv3_small_050" = "w.pth"\n')
    monkeypatch.setenv("HE2ST_WEIGHTS", str(tmp_path / "weights.toml"))
    torch.testing.assert_close(
        build("timm:mobilenetv3_small_050")(TILES), build("timm:mobilenetv3_small_050?pretrained=no")(TILES)
    )
    state = network.state_dict()
    del state["conv_stem.weight"]
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(WeightsError, match=r"lacks conv_stem\.weight"):
        build("timm:mobilenetv3_small_050")
    torch.save({"epoch": 3, "state_dict": state}, tmp_path / "w.pth")
    with pytest.raises(WeightsError, match=r"not a tensor: epoch, state_dict"):
        build("timm:mobilenetv3_small_050")


def test_unknown_names_get_a_hint() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean efficientnet-lite0"):
        build("efficientnet_lite0")
    with pytest.raises(UnknownNameError, match=r"Did you mean .*resnet18"):
        build("timm:resnt18?pretrained=no")


@pytest.mark.parametrize(
    ("architecture", "left"),
    [("tf_efficientnet_lite0", 0), ("resnet18", 0), ("densenet121", 62)],  # half of DenseNet's norms come first
)
def test_folding_batch_norm_changes_no_number(architecture: str, left: int) -> None:
    torch.manual_seed(0)
    network = safe_import("timm").create_model(architecture, num_classes=7).eval()
    for module in network.modules():  # as after training
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 2)
            module.weight.data.uniform_(0.5, 1.5)
    x = torch.randn(2, 3, 64, 64)
    fused = fuse_conv_bn(network, x)
    assert _n_norms(fused) == left
    wanted = network(x)
    torch.testing.assert_close(fused(x), wanted, rtol=0, atol=1e-4 * max(1, wanted.abs().max().item()))


def _n_norms(network: nn.Module) -> int:
    return sum(isinstance(module, nn.BatchNorm2d) for module in network.modules())


class Shared(nn.Module):
    """A convolution whose output is used beside its norm, too."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)
        self.norm.running_mean += 1

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.conv(x)
        return x + self.norm(x)


def test_a_pair_that_cannot_be_folded_is_left_alone() -> None:
    network, x = Shared().eval(), torch.randn(1, 3, 8, 8)
    torch.testing.assert_close(fuse_conv_bn(network, x)(x), network(x))


class TestColourTexture:
    network = ColourTexture()

    def _columns(self, tile: torch.Tensor) -> np.ndarray:
        return self.network(tile[None])[0].numpy()

    def test_a_flat_tile(self) -> None:
        flat = self._columns(torch.tensor([0.8, 0.5, 0.6]).view(3, 1, 1).expand(3, 224, 224))
        np.testing.assert_allclose(flat[:6], [0.8, 0.5, 0.6, 0, 0, 0], atol=1e-6)
        assert flat[22] == pytest.approx(0.3 / 0.8, abs=1e-6)
        assert np.isfinite(flat).all()
        assert flat[38:].tolist() == [0, 0]
        assert self._columns(torch.ones(3, 224, 224))[38:].tolist() == [1, 1]

    def test_stains_are_those_of_scikit_image(self) -> None:
        tile = torch.rand(3, 32, 32, generator=torch.Generator().manual_seed(1)).clamp(min=0.05)
        density = -np.log(tile.permute(1, 2, 0).numpy().reshape(-1, 3))
        stains = density @ hed_from_rgb
        found = self._columns(tile)
        np.testing.assert_allclose(found[6:8], stains.mean(0)[:2], rtol=1e-4)
        np.testing.assert_allclose(found[8:10], stains.std(0)[:2], rtol=1e-4)
        np.testing.assert_allclose(found[10:20:2], np.quantile(stains[::4, 0], [0.1, 0.25, 0.5, 0.75, 0.9]), rtol=1e-3)
        np.testing.assert_allclose(found[20:22], [stains[:, 2].mean(), stains[:, 2].std()], rtol=1e-4)

    def test_bands_tell_fine_from_coarse(self) -> None:
        ramp = torch.arange(224)
        fine = self._columns(((ramp % 2) * 0.5 + 0.3).expand(3, 224, 224))
        coarse = self._columns(((ramp // 8 % 2) * 0.5 + 0.3).expand(3, 224, 224))
        assert fine[26:30].argmax() == 0
        assert coarse[26:30].argmax() == 3
        assert coarse[35] == pytest.approx(1, abs=1e-3)  # all gradients point one way

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from skimage.color import hed_from_rgb
from torch import nn

from napari_he2st.core.errors import UnknownNameError, WeightsError
from napari_he2st.zoo.encoders.build import Encoder, build, network_of, published_network, spec_of
from napari_he2st.zoo.encoders.colour import ColourTexture
from napari_he2st.zoo.encoders.fuse import fuse_conv_bn
from napari_he2st.zoo.encoders.omiclip import OmiCLIP
from napari_he2st.zoo.encoders.table import encoders, present_file
from napari_he2st.zoo.guard import safe_import

TILES = torch.randint(0, 256, (2, 3, 96, 96), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


@pytest.mark.parametrize("name", encoders())
def test_every_row_is_the_network_that_was_published(name: str) -> None:
    spec = spec_of(name)
    assert sum(spec.parts) in (0, spec.dim)
    with torch.device("meta"):
        network = network_of(spec)
    millions = sum(parameter.numel() for parameter in network.parameters()) / 1e6
    assert millions == pytest.approx(spec.parameters_m, abs=0.011)


@pytest.mark.parametrize("name", [name for name, spec in encoders().items() if present_file(spec) is not None])
def test_every_encoder_whose_weights_are_here(name: str) -> None:
    encoder = build(name)
    features = encoder(TILES)
    assert features.shape == (2, encoder.spec.dim)
    assert features.dtype == torch.float32
    assert not features.requires_grad
    assert bool(features.isfinite().all())
    torch.testing.assert_close(encoder(TILES[1:]), features[1:], rtol=1e-4, atol=1e-4)


# One of each way from a published file to a feature; the networks are cut down, the ways are not.
CUT_DOWN = {
    "uni": {"depth": 1, "embed_dim": 192, "num_heads": 3},
    "virchow2": {"depth": 1, "embed_dim": 160, "num_heads": 2},
    "phikon": {"depth": 2, "embed_dim": 192, "num_heads": 3},
    "hibou-b": {"depth": 1, "embed_dim": 192, "num_heads": 3},
    "plip": {"depth": 2, "embed_dim": 192, "num_heads": 3},
    "quiltnet-b32": {"depth": 2, "embed_dim": 192, "num_heads": 3},
    "conch-v1.5": {"depth": 1},
    "omiclip": {"depth": 1, "width": 64, "heads": 2},
    "ctranspath": {},
    "remedis": {"units": (1, 1, 1, 1), "width": 1},
    "resnet50-trunc": {},
}
DIMS = {"uni": 192, "virchow2": 320, "phikon": 192, "hibou-b": 192, "remedis": 2048}


@pytest.mark.parametrize("name", CUT_DOWN)
def test_a_published_file_becomes_an_encoder(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    row = spec_of(name)
    spec = replace(row, arguments=dict(row.arguments) | CUT_DOWN[name], dim=DIMS.get(name, row.dim))
    monkeypatch.setitem(encoders(), name, spec)
    torch.manual_seed(0)
    network = network_of(spec).eval()
    state = network.state_dict()
    for key, value in state.items():
        if value.dim() > 1 and value.is_floating_point() and not key.endswith("attn_mask"):
            value.normal_(0, 0.1)
        if key == "head.bias":  # a CLIP projection has none
            value.zero_()
    published = PUBLISHED.get(name, dict)(state)
    torch.save(published, tmp_path / "w.pth")
    (tmp_path / "weights.toml").write_text(f'"{name}" = "w.pth"\n')
    monkeypatch.setenv("HE2ST_WEIGHTS", str(tmp_path / "weights.toml"))
    encoder = build(name)
    tiles = encoder.normalise(TILES)
    features = encoder(TILES)
    assert features.shape == (2, spec.dim)
    if row.feature == "projected" or row.builder != "timm":
        torch.testing.assert_close(features, network(tiles), rtol=1e-3, atol=1e-3)
    else:
        cls = network.forward_features(tiles)[:, 0]
        torch.testing.assert_close(features[:, : cls.shape[1]], cls)


def _split(state: dict, key: str) -> tuple[torch.Tensor, ...]:
    return state[key].chunk(3)


def _transformers(state: dict) -> dict:
    """A state dict in the names of the *transformers* library, its pooler included."""
    swiglu = any(".ls1." in key for key in state)
    names = {
        "cls_token": "embeddings.cls_token",
        "reg_token": "embeddings.register_tokens",
        "pos_embed": "embeddings.position_embeddings",
    }
    out = {"pooler.dense.weight": torch.zeros(2, 2), "embeddings.mask_token": torch.zeros(1)}
    for key, value in state.items():
        new = names.get(key) or re.sub(r"^patch_embed\.proj", "embeddings.patch_embeddings.projection", key)
        new = re.sub(r"^norm\.", "layernorm.", new)
        new = re.sub(r"^blocks\.", "encoder.layer.", new)
        new = re.sub(r"ls(\d)\.gamma", r"layer_scale\1.lambda1", new).replace("attn.proj", "attention.output.dense")
        if swiglu:
            new = new.replace("mlp.fc1", "mlp.weights_in").replace("mlp.fc2", "mlp.weights_out")
        else:
            new = new.replace("mlp.fc1", "intermediate.dense").replace("mlp.fc2", "output.dense")
            new = new.replace("norm1", "layernorm_before").replace("norm2", "layernorm_after")
        if "attn.qkv" in new:
            for part, third in zip(("query", "key", "value"), _split(state, key), strict=True):
                out[new.replace("attn.qkv", f"attention.attention.{part}")] = third
        else:
            out[new] = value
    return out


def _transformers_clip(state: dict) -> dict:
    out = {"text_model.embeddings.token_embedding.weight": torch.zeros(2, 2), "logit_scale": torch.zeros(())}
    for key, value in state.items():
        new = re.sub(r"^blocks\.", "encoder.layers.", key).replace("attn.proj", "self_attn.out_proj")
        new = re.sub(r"norm(\d)\.", r"layer_norm\1.", new).replace("norm_pre", "pre_layrnorm")
        new = re.sub(r"^norm\.", "post_layernorm.", new)
        if key == "head.bias":
            continue
        if key == "head.weight":
            out["visual_projection.weight"] = value
        elif key == "cls_token":
            out["vision_model.embeddings.class_embedding"] = value.flatten()
        elif key == "pos_embed":
            out["vision_model.embeddings.position_embedding.weight"] = value[0]
        elif key == "patch_embed.proj.weight":
            out["vision_model.embeddings.patch_embedding.weight"] = value
        elif "attn.qkv" in new:
            for part, third in zip("qkv", _split(state, key), strict=True):
                out["vision_model." + new.replace("attn.qkv", f"self_attn.{part}_proj")] = third
        else:
            out[f"vision_model.{new}"] = value
    return out


def _open_clip(state: dict) -> dict:
    out = {"token_embedding.weight": torch.zeros(2, 2)}
    for key, value in state.items():
        new = re.sub(r"^blocks\.", "transformer.resblocks.", key).replace("attn.proj", "attn.out_proj")
        new = new.replace("attn.qkv.", "attn.in_proj_").replace("mlp.fc1", "mlp.c_fc").replace("mlp.fc2", "mlp.c_proj")
        new = re.sub(r"norm(\d)\.", r"ln_\1.", new).replace("norm_pre", "ln_pre")
        new = re.sub(r"^norm\.", "ln_post.", new)
        if key == "head.bias":
            continue
        if key == "head.weight":
            out["visual.proj"] = value.mT.contiguous()
        elif key == "cls_token":
            out["visual.class_embedding"] = value.flatten()
        elif key == "pos_embed":
            out["visual.positional_embedding"] = value[0]
        elif key == "patch_embed.proj.weight":
            out["visual.conv1.weight"] = value
        else:
            out[f"visual.{new}"] = value
    return out


PUBLISHED = {
    "omiclip": lambda state: {
        "state_dict": {f"visual.{key}": value for key, value in state.items()} | {"logit_scale": torch.zeros(1)}
    },
    "phikon": _transformers,
    "hibou-b": _transformers,
    "plip": _transformers_clip,
    "quiltnet-b32": _open_clip,
    "ctranspath": lambda state: {"model": {key: value for key, value in state.items() if "attn_mask" not in key}},
    "resnet50-trunc": lambda state: (
        state | {"fc.weight": torch.zeros(1000, 2048), "layer4.0.conv1.weight": torch.zeros(1)}
    ),
}
"""Name → what its authors' file holds where our network has a state dict."""


def test_omiclip_is_the_tower_that_open_clip_builds() -> None:
    VisionTransformer = pytest.importorskip("open_clip.transformer", reason="needs open-clip-torch").VisionTransformer

    sizes = {"image_size": 56, "patch_size": 14, "width": 64, "layers": 2, "heads": 2, "mlp_ratio": 4.0}
    pool = {"attentional_pool": True, "attn_pooler_heads": 4, "attn_pooler_queries": 256, "output_tokens": True}
    torch.manual_seed(0)
    theirs = VisionTransformer(**sizes, **pool, output_dim=32).eval()
    ours = OmiCLIP(px=56, width=64, depth=2, heads=2, dim=32, pool_heads=4).eval()
    ours.load_state_dict(theirs.state_dict())
    tiles = torch.randn(3, 3, 56, 56)
    torch.testing.assert_close(ours(tiles), theirs(tiles)[0], rtol=1e-5, atol=1e-5)


def test_a_tile_is_resized_before_its_middle_is_taken() -> None:
    spec = replace(spec_of("timm:mobilenetv3_small_050?pretrained=no"), px=64, resize_px=96)
    encoder = Encoder(spec, torch.nn.Identity())
    whole = Encoder(replace(spec, px=96, resize_px=0), torch.nn.Identity()).normalise(TILES)
    torch.testing.assert_close(encoder.normalise(TILES), whole[..., 16:80, 16:80])


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
    network = published_network(spec_of("timm:mobilenetv3_small_050?pretrained=no"))
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

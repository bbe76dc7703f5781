"""OpenVINO: the features that torch computes, and a word where it cannot."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from tests.tiny import predictors
from tests.tiny.predictors import bundle_of

from napari_he2st.core.errors import ModelError
from napari_he2st.engine import backend
from napari_he2st.engine.features import encode, encoder_on
from napari_he2st.engine.predict import predict, predict_slide
from napari_he2st.zoo import inputs as kinds

pytest.importorskip("openvino", reason="needs the extra openvino")
CPU = torch.device("cpu")


def tiles(n: int, px: int = 224) -> torch.Tensor:
    generator = torch.Generator().manual_seed(n)
    return torch.randint(0, 256, (n, px, px, 3), dtype=torch.uint8, generator=generator).permute(0, 3, 1, 2)


@pytest.mark.parametrize("name", ["efficientnet-lite0-early", "timm:vit_tiny_patch16_224?pretrained=no"])
def test_features_are_those_of_torch(name: str) -> None:
    compiled, plain = encoder_on(name, CPU, True), encoder_on(name, CPU)
    assert isinstance(compiled, backend.CompiledEncoder)
    assert compiled.spec is plain.spec
    batches = [tiles(n) for n in (1, 3, 2, 5)]
    with ThreadPoolExecutor(3) as pool:  # several threads, several sizes
        found = list(pool.map(lambda some: encode(compiled, some), batches))
    for some, features in zip(batches, found, strict=True):
        wanted = encode(plain, some)
        assert features.dtype == wanted.dtype == torch.float32
        np.testing.assert_allclose(features, wanted, atol=1e-4 * float(wanted.abs().max()))


def test_what_has_no_weights_stays_with_torch() -> None:
    assert encoder_on("colour-texture", CPU, True) is not None
    assert not isinstance(encoder_on("colour-texture", CPU, True), backend.CompiledEncoder)


def test_other_numbers_than_those_of_torch_are_refused(monkeypatch) -> None:
    monkeypatch.setattr(backend, "TOLERANCE", 1e-12)
    with pytest.raises(ModelError, match="other features than torch"):
        backend.CompiledEncoder(encoder_on("efficientnet-lite0-early", CPU))


class Encoded(predictors.Colour):
    """The first three numbers of a feature."""

    inputs = {"tiles": kinds.Features(encoder="efficientnet-lite0-early", px=224, mpp="native")}

    def forward(self, tiles):
        return tiles[:, :3]


def test_a_run_on_it_gives_what_one_on_the_cpu_gives_and_says_so(slide, grid) -> None:
    grid = grid.take(np.arange(20))
    plain, fast = (predict_slide(bundle_of(Encoded), slide, grid=grid, device=name) for name in ("cpu", "openvino"))
    assert fast.uns["he2st"]["device"] == "openvino"
    np.testing.assert_allclose(fast.X, plain.X, atol=1e-4 * np.abs(plain.X).max())
    assert not np.array_equal(fast.X, plain.X)


def test_a_store_is_not_filled_by_both(slide, grid, tmp_path) -> None:
    from napari_he2st.core.errors import StoreError

    grid = grid.take(np.arange(4))
    list(predict(bundle_of(Encoded), slide, grid, device="openvino", store=tmp_path / "run"))
    with pytest.raises(StoreError, match="device"):
        next(predict(bundle_of(Encoded), slide, grid, device="cpu", store=tmp_path / "run"))

"""InstanSeg and Cellpose themselves, with weights made here in place of those that they download."""

from __future__ import annotations

import ssl

import numpy as np
import pytest

from napari_he2st.analysis.nuclei import NUCLEI_METHODS, learned
from napari_he2st.core.errors import MissingExtraError

torch = pytest.importorskip("torch")


@pytest.fixture(autouse=True)
def _afresh():
    for cached in (learned._instanseg, learned._cellpose):
        cached.cache_clear()
    yield
    for cached in (learned._instanseg, learned._cellpose):
        cached.cache_clear()


@pytest.fixture
def image() -> np.ndarray:
    """Two dark squares of 20 px on light tissue."""
    pixels = np.full((96, 128, 3), 220, np.uint8)
    pixels[20:40, 30:50] = pixels[60:80, 90:110] = (90, 60, 130)
    return pixels


class _Halves(torch.nn.Module):
    """What is darker than the mean, numbered 1 in the left half and 2 in the right one; made for 0.5 µm per pixel."""

    def __init__(self) -> None:
        super().__init__()
        self.pixel_size, self.cells_and_nuclei = 0.5, False

    def forward(self, x: torch.Tensor, target_segmentation: torch.Tensor) -> torch.Tensor:
        number = 1 + (torch.arange(x.shape[-1], device=x.device) >= x.shape[-1] // 2).float()
        grey = x.mean(dim=1, keepdim=True)
        return (grey < grey.mean()).float() * number


@pytest.mark.parametrize("mpp", [0.5, 0.25])
def test_instanseg_gives_labels_of_the_image_at_its_pixel_size(image, mpp, tmp_path, monkeypatch):
    pytest.importorskip("instanseg", reason="needs the extra nuclei")
    import json
    from pkgutil import get_data

    monkeypatch.setenv("INSTANSEG_BIOIMAGEIO_PATH", str(tmp_path))
    index = json.loads(get_data("instanseg", "bioimageio_models/model-index.json"))
    version = next(model["version"] for model in index if model["name"] == "brightfield_nuclei")
    folder = tmp_path / "brightfield_nuclei" / version
    folder.mkdir(parents=True)
    torch.jit.script(_Halves()).save(folder / "instanseg.pt")
    labels = NUCLEI_METHODS["instanseg"].function(image, mpp)
    assert labels.dtype == np.int32
    assert labels.shape == image.shape[:2]
    dark = image[..., 0] < 128
    expected = dark * (1 + (np.arange(128) >= 64))
    assert (labels != expected).sum() <= (0 if mpp == 0.5 else 0.2 * dark.sum())  # edges move when it is resized
    assert set(np.unique(labels)) == {0, 1, 2}


def test_cellpose_gives_labels_of_the_image(image, tmp_path, monkeypatch):
    """A transformer a thousandth of the size of Cellpose's, whose last layer finds what is dark."""
    models = pytest.importorskip("cellpose.models", reason="needs the extra nuclei")
    from cellpose import vit
    from segment_anything.build_sam import _build_sam

    def small(checkpoint):
        return _build_sam(32, 1, 2, [0], checkpoint)

    monkeypatch.setitem(vit.sam_model_registry, "vit_l", small)
    monkeypatch.setattr(models, "MODEL_DIR", tmp_path)
    torch.manual_seed(0)
    torch.save(vit.CPSAM().state_dict(), tmp_path / "cpsam_v2")
    labels = NUCLEI_METHODS["cellpose"].function(image, 0.5, diameter_um=10.0)
    assert labels.dtype == np.int32
    assert labels.shape == image.shape[:2]


@pytest.mark.parametrize("name", ["instanseg", "cellpose"])
def test_weights_that_cannot_be_had(image, name, tmp_path, monkeypatch):
    pytest.importorskip(name, reason="needs the extra nuclei")

    def offline(*_, **__):
        ssl._create_default_https_context = ssl._create_unverified_context
        raise OSError("no route")

    monkeypatch.setenv("INSTANSEG_BIOIMAGEIO_PATH", str(tmp_path))
    if name == "instanseg":
        monkeypatch.setattr("requests.get", offline)
    else:
        monkeypatch.setattr("cellpose.models.MODEL_DIR", tmp_path)
        monkeypatch.setattr("cellpose.utils.urlopen", offline)
    with pytest.raises(MissingExtraError, match=rf"weights of {name} cannot be had \(no route\).*haematoxylin"):
        NUCLEI_METHODS[name].function(image, 0.5)
    assert ssl._create_default_https_context is not ssl._create_unverified_context

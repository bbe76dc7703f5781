"""Training of predictors that see the nuclei of a region together, and of those that see all nuclei of a slide."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tests.engine.test_training_units import section_at
from tests.tiny.predictors import GENES, Degree, RegionNuclei
from torch import Tensor, nn

from napari_he2st.core.errors import TruthError
from napari_he2st.core.types import Nuclei
from napari_he2st.engine.features import Given
from napari_he2st.engine.predict import predict_slide
from napari_he2st.engine.train import train
from napari_he2st.zoo import base

SHIFT = 0.3


class Shifted(RegionNuclei):
    """The colour of each nucleus, plus what is learned."""

    targets = {"expression": base.Expression("counts")}
    recipe = base.Recipe("adam", lr=0.05, epochs=40, batch_size=3)
    seen: set[int] = set()

    def __init__(self) -> None:
        super().__init__()
        self.shift = nn.Parameter(torch.zeros(3))

    def forward(self, image: Tensor, nuclei: Tensor) -> Tensor:
        return super().forward(image, nuclei) + self.shift

    def loss(self, targets: dict[str, Tensor], **prepared: Tensor) -> Tensor:
        found, owner = self(**prepared), targets["owner"]
        self.seen.add(len(prepared["image"]))
        assert len(found) == len(owner)
        return (found - targets["expression"][owner]).square().mean()


@pytest.fixture
def learned(monkeypatch, slide, slide_path, nuclei, pixels):
    """Train on some of the nuclei, each measured as its own colour plus a constant."""

    def run(cls: type, rows: np.ndarray, **options):
        labels = np.kron(nuclei.labels, np.ones((2, 2), dtype=int))
        colours = np.stack([pixels[labels == n].mean(axis=0) for n in nuclei.numbers[rows]])
        grid = nuclei.grid(slide.mpp).take(rows)
        section = section_at(grid, slide_path, (colours + SHIFT).astype(np.float32))
        section.adata.uns["he2st"]["lattice"] = "irregular"
        monkeypatch.setattr("napari_he2st.engine.train.system", lambda name: cls)
        given = Given(nuclei=nuclei)
        return train("mean", [section], panel="all", given=given, device="cpu", **options), section, given

    return run


def test_a_constant_is_learned_from_nuclei_of_regions(learned, slide, nuclei, pixels):
    Shifted.seen.clear()
    bundle, section, given = learned(Shifted, np.arange(0, len(nuclei.numbers), 2))
    assert bundle.genes == list(GENES)
    assert max(Shifted.seen) == 3  # regions go together
    np.testing.assert_allclose(bundle.members[0].shift.detach(), SHIFT, atol=0.01)
    assert bundle.manifest.history[-1]["loss"] < 1e-3
    adata = predict_slide(bundle, slide, given=given)
    np.testing.assert_allclose(adata.X[::2], section.adata.X, atol=0.02)


def test_nuclei_have_to_be_there_and_to_fit(learned, slide, nuclei, monkeypatch):
    _, section, _ = learned(Shifted, np.arange(4), epochs=1)
    with pytest.raises(TruthError, match="needs segmented nuclei"):
        train("mean", [section], panel="all", device="cpu")
    elsewhere = np.zeros_like(nuclei.labels)
    elsewhere[-4:, -4:] = 1
    with pytest.raises(TruthError, match="No nucleus lies in a spot"):
        train("mean", [section], panel="all", given=Given(nuclei=Nuclei.of(elsewhere, nuclei.mpp)), device="cpu")


def test_all_nuclei_of_a_slide_are_one_batch(learned, nuclei):
    sizes = []

    class Whole(Degree):
        outputs = {"expression": base.Output(per="cell")}
        targets = {"expression": base.Expression("counts")}
        recipe = base.Recipe("adam", lr=0.05, epochs=2, batch_size=1)

        def __init__(self) -> None:
            super().__init__()
            self.shift = nn.Parameter(torch.zeros(3))

        def forward(self, edges: Tensor, um: Tensor) -> Tensor:
            sizes.append(len(um))
            return torch.zeros(len(um), 3) + self.shift

        def loss(self, targets: dict[str, Tensor], **prepared: Tensor) -> Tensor:
            return (self(**prepared) - targets["expression"][targets["owner"]]).square().mean()

    learned(Whole, np.arange(30))
    assert set(sizes) == {30}

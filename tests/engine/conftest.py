"""A small slide of textured tissue, and awkward predictors that need no weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from napari_he2st.core.noise import Noise
from napari_he2st.core.types import Grid, Nuclei
from napari_he2st.data.slides import Slide
from napari_he2st.data.slides.grid import square_grid
from napari_he2st.zoo.base import Predictor
from napari_he2st.zoo.base import Slide as WholeSlide
from napari_he2st.zoo.bundle import Bundle
from napari_he2st.zoo.inputs import Positions, Tiles
from napari_he2st.zoo.manifest import Manifest

GENES = ("RED", "GREEN", "BLUE")


class Colour(Predictor):
    """Predicts the mean colour of the tile."""

    inputs = {"tiles": Tiles(px=32, mpp="native")}

    def forward(self, tiles: Tensor) -> Tensor:
        return tiles.float().mean((2, 3)) / 255


class NotFinite(Colour):
    """Fails on dark tiles."""

    def forward(self, tiles: Tensor) -> Tensor:
        return super().forward(tiles) * float("nan")


class TooWide(Colour):
    """Returns a gene too many."""

    def forward(self, tiles: Tensor) -> Tensor:
        colour = super().forward(tiles)
        return torch.cat([colour, colour[:, :1]], dim=1)


class Hungry(Colour):
    """Runs out of memory above four tiles."""

    largest = 0

    def forward(self, tiles: Tensor) -> Tensor:
        if len(tiles) > 4:
            raise torch.OutOfMemoryError("no room")
        self.largest = max(self.largest, len(tiles))
        return super().forward(tiles)


class Random(Colour):
    """Adds noise."""

    draws = 1

    def predict(self, *, noise: Noise | None = None, **prepared: Any) -> Tensor:
        colour = super().predict(**prepared)
        assert noise is not None
        return colour + torch.from_numpy(noise.normal(3))


class Place(Predictor):
    """Predicts the array position of each spot, and how many spots it sees."""

    unit = WholeSlide()
    inputs = {"position": Positions(kind="grid", bins=16)}
    max_spots = 150

    def forward(self, position: Tensor) -> Tensor:
        n = torch.full((len(position), 1), float(len(position)))
        return torch.cat([position.float(), n], dim=1)


@pytest.fixture
def bundle_of() -> Callable[[type[Predictor]], Bundle]:
    def make(cls: type[Predictor], n_members: int = 1) -> Bundle:
        members = [cls() for _ in range(n_members)]
        for member in members:
            member.genes = list(GENES)
        manifest = Manifest(
            name="colour",
            title="Colour",
            system="mean",
            arguments={},
            genes=GENES,
            scale="log1p_cp10k",
            tile_px=32,
            mpp=0.5,
            pitch_um=20.0,
            scores={"pcc": (0.5, None, 0.1)},
            training=({"section": "X", "patient": "X", "fingerprint": "abc", "spots": 3},),
        )
        return Bundle(members, manifest)

    return make


@pytest.fixture(scope="session")
def slide_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A PNG of 640 × 480 px with a pink ellipse whose red rises from left to right."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:480, :640]
    pixels = np.full((480, 640, 3), 243, dtype=np.uint8)
    tissue = ((x - 320) / 240) ** 2 + ((y - 240) / 180) ** 2 < 1
    pixels[tissue] = np.stack([120 + x / 6, 80 + y / 8, np.full(x.shape, 170)], axis=-1)[tissue].astype(np.uint8)
    pixels[tissue & (rng.random((480, 640)) < 0.1)] = (90, 60, 140)
    path = tmp_path_factory.mktemp("slide") / "tissue.png"
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture
def slide(slide_path: Path) -> Iterator[Slide]:
    with Slide.open(slide_path, mpp=0.5) as opened:
        yield opened


@pytest.fixture
def grid(slide: Slide) -> Grid:
    return square_grid(slide, 20.0)


@pytest.fixture
def predictors() -> SimpleNamespace:
    """The awkward predictors by name."""
    return SimpleNamespace(
        Colour=Colour, NotFinite=NotFinite, TooWide=TooWide, Hungry=Hungry, Random=Random, Place=Place
    )


@pytest.fixture
def pixels(slide: Slide) -> np.ndarray:
    """The whole slide: float32 (480, 640, 3), 0 … 1."""
    return slide.read(0, 0, *slide.size, mpp=slide.mpp).astype(np.float32) / 255


@pytest.fixture
def nuclei(slide: Slide) -> Nuclei:
    """Squares of 6 pixels, every 16 pixels, on a label image of twice the pixel size."""
    labels = np.zeros((240, 320), dtype=np.int32)
    number = 0
    for y in range(60, 180, 16):
        for x in range(60, 260, 16):
            number += 2  # labels have gaps
            labels[y : y + 6, x : x + 6] = number
    return Nuclei.of(labels, 2 * slide.mpp)

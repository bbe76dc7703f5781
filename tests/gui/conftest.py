"""A small session to show: a slide without a file, measured spots, a dense prediction."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

from napari_he2st.core.schema import provenance
from napari_he2st.core.types import Grid


@dataclass(eq=False)
class PlainSlide:
    """What the window uses of a slide, over an array."""

    name: str = "section"
    mpp: float = 0.5
    size: tuple[int, int] = (800, 600)
    path: Path = Path("section.png")
    format: str = "PNG"
    mpp_source: str = "given"
    profiled: bool | None = None
    closed: bool = False
    pixels: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        width, height = self.size
        self.pixels = np.full((height, width, 3), 240, dtype=np.uint8)
        self.pixels[100:500, 100:700] = (200, 120, 170)
        self.fingerprint = f"{self.name}-{self.size}"

    @property
    def original(self) -> PlainSlide:
        return self

    def drawn(self) -> list[np.ndarray]:
        return [self.pixels, self.pixels[::2, ::2], self.pixels[::4, ::4]]

    def thumbnail(self, max_px: int) -> np.ndarray:
        return self.pixels[:: max(1, max(self.size) // max_px), :: max(1, max(self.size) // max_px)]

    def close(self) -> None:
        self.closed = True


def square_grid(rows: int = 5, columns: int = 7, *, pitch_um: float = 50.0, mpp: float = 0.5) -> Grid:
    """A square lattice whose first spot is at level-0 pixel (100, 150)."""
    index = np.stack(np.meshgrid(np.arange(rows), np.arange(columns), indexing="ij"), -1).reshape(-1, 2)
    xy = np.array([100.0, 150.0]) + index[:, ::-1] * (pitch_um / mpp)
    n = len(xy)
    return Grid(xy, pitch_um, "square", pitch_um, mpp, index.astype(np.intp), (rows, columns), np.ones(n, bool))


def scattered_grid(n: int = 60, *, mpp: float = 0.5) -> Grid:
    """Spots anywhere on the slide."""
    xy = np.random.default_rng(0).uniform(100, 500, (n, 2))
    index = np.stack([np.arange(n), np.zeros(n, int)], 1).astype(np.intp)
    return Grid(xy, 100.0, "irregular", 55.0, mpp, index, (n, 1), np.ones(n, bool))


def measured(grid: Grid, values: np.ndarray, genes: list[str]) -> AnnData:
    """Measured expression on a grid, in the schema."""
    obs = pd.DataFrame(index=[f"spot{i}" for i in range(len(grid))])
    adata = AnnData(values.astype(np.float32), obs=obs, var=pd.DataFrame(index=genes))
    adata.obsm["spatial"] = grid.xy
    facts = {"pitch_um": grid.pitch_um, "spot_um": grid.spot_um, "lattice": grid.lattice, "library": "spots"}
    adata.uns["he2st"] = provenance("measured", mpp=grid.mpp, scale="log1p_cp10k", **facts)
    return adata


@pytest.fixture
def slide() -> PlainSlide:
    return PlainSlide()


@pytest.fixture(name="square_grid")
def square_grid_fixture():
    return square_grid


@pytest.fixture(name="scattered_grid")
def scattered_grid_fixture():
    return scattered_grid


@pytest.fixture(name="measured")
def measured_fixture():
    return measured


@pytest.fixture(scope="session")
def slide_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A PNG of 1000 × 800 px with a textured pink piece of tissue; it states no pixel size."""
    from PIL import Image

    rng = np.random.default_rng(0)
    pixels = np.full((800, 1000, 3), 243, dtype=np.uint8)
    y, x = np.mgrid[:800, :1000]
    tissue = ((x - 500) / 350) ** 2 + ((y - 400) / 280) ** 2 < 1
    nuclei = rng.random((800, 1000)) < 0.2
    pixels[tissue] = (215, 140, 190)
    pixels[tissue & nuclei] = (110, 70, 150)
    path = tmp_path_factory.mktemp("slide") / "tissue.png"
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture
def tissue_slide(slide_file: Path):
    from napari_he2st.data.slides import Slide

    with Slide.open(slide_file, mpp=0.5) as opened:
        yield opened


@pytest.fixture(scope="session")
def bundle():
    """A predictor of three genes, each of which is the same everywhere: it needs no weights and no time."""
    from napari_he2st.zoo.guard import preload

    preload()
    import torch

    from napari_he2st.zoo.bundle import Bundle
    from napari_he2st.zoo.catalogue import system
    from napari_he2st.zoo.manifest import Manifest

    member = system("mean")(n_genes=3)
    member.mean.copy_(torch.tensor([1.0, 2.0, 3.0]))
    member.genes = ["ERBB2", "GAPDH", "CD3E"]
    manifest = Manifest(
        name="three-means",
        title="Three means",
        system="mean",
        arguments={"n_genes": 3},
        genes=("ERBB2", "GAPDH", "CD3E"),
        scale="log1p_cp10k",
        tile_px=112,
        mpp=0.5,
        pitch_um=25.0,
        organs=("breast",),
        species=("human",),
        scores={"pcc": (0.5, 0.3, 0.1)},
    )
    return Bundle([member], manifest)


@pytest.fixture(scope="session")
def bundle_folder(bundle, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bundle.save(tmp_path_factory.mktemp("bundle") / "three-means")

"""Square and hexagonal grids: distances, numbering, masks and regions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.spatial import cKDTree

from napari_he2st.core.errors import SlideError
from napari_he2st.core.types import Grid, Region
from napari_he2st.data.slides import Slide
from napari_he2st.data.slides import grid as grids
from napari_he2st.data.slides.grid import hexagonal_grid, square_grid
from napari_he2st.data.slides.tissue import TissueMask

MPP = 2.0


@pytest.fixture
def slide(tmp_path: Path) -> Slide:
    Image.new("RGB", (1000, 600), "white").save(tmp_path / "a.png")
    return Slide.open(tmp_path / "a.png", mpp=MPP)


def raster_order(grid: Grid) -> bool:
    return grid.index.tolist() == sorted(grid.index.tolist())


def test_square(slide: Slide) -> None:
    grid = square_grid(slide, 100)  # 50 px
    assert grid.shape == (12, 20)
    assert len(grid) == 240
    assert (grid.lattice, grid.pitch_um, grid.spot_um, grid.mpp) == ("square", 100, 100, MPP)
    assert grid.xy[0].tolist() == [25, 25]
    assert (grid.xy == (grid.index[:, ::-1] + 0.5) * 50).all()
    assert raster_order(grid)
    assert grid.in_tissue.all()


def test_hexagonal_has_six_neighbours_at_the_pitch(slide: Slide) -> None:
    grid = hexagonal_grid(slide, 100)
    assert grid.lattice == "hexagonal"
    assert grid.spot_um == pytest.approx(55)
    assert raster_order(grid)
    distances, _ = cKDTree(grid.xy).query(grid.xy, k=7)
    inner = (np.abs(grid.xy - [500, 300]) < [400, 200]).all(axis=1)
    assert distances[inner, 1:] == pytest.approx(50)
    assert (grid.xy >= 0).all()
    assert (grid.xy < [1000, 600]).all()


def test_hexagonal_is_numbered_as_visium(slide: Slide) -> None:
    """Array rows and columns as in Visium's tissue positions: row + column is even, neighbours differ by 2."""
    grid = hexagonal_grid(slide, 100)
    assert (grid.index.sum(axis=1) % 2 == 0).all()
    first, second = (grid.index[grid.index[:, 0] == row, 1] for row in (0, 1))
    assert first.tolist() == list(range(0, 40, 2))
    assert second[:3].tolist() == [1, 3, 5]
    assert (grid.index < grid.shape).all()
    odd = grid.xy[grid.index[:, 0] == 1][0]
    assert (odd - grid.xy[0]).tolist() == pytest.approx([25, 50 * np.sqrt(3) / 2])


@pytest.mark.parametrize("make", [square_grid, hexagonal_grid])
def test_only_spots_on_tissue_are_kept(slide: Slide, make) -> None:
    mask = np.zeros((60, 100), dtype=bool)
    mask[:, :50] = True
    grid = make(slide, 100, mask=TissueMask(mask, 10.0, 0.5, "made"))
    whole = make(slide, 100)
    assert grid.shape == whole.shape
    assert (grid.xy == whole.xy[whole.xy[:, 0] < 500]).all()


@pytest.mark.parametrize("make", [square_grid, hexagonal_grid])
def test_a_region_keeps_the_grid_in_place(slide: Slide, make) -> None:
    whole = make(slide, 100)
    part = make(slide, 100, region=Region.box(210, 130, 300, 200))
    inside = ((whole.xy > [210, 130]) & (whole.xy < [510, 330])).all(axis=1)
    assert len(part) > 10
    assert (part.xy == whole.xy[inside]).all()
    assert (part.index == whole.index[inside]).all()
    assert len(make(slide, 100, region=Region.box(5000, 5000, 10, 10))) == 0


@pytest.mark.parametrize("make", [square_grid, hexagonal_grid])
def test_a_slide_below_one_pitch_has_one_spot_in_the_middle(slide: Slide, make) -> None:
    assert make(slide, 5000).xy.tolist() == [[500, 300]]


@pytest.mark.parametrize("make", [square_grid, hexagonal_grid])
@pytest.mark.parametrize(
    "values", [{"pitch_um": 0}, {"pitch_um": -1}, {"pitch_um": np.nan}, {"spot_um": -5}, {"spot_um": 0}]
)
def test_bad_sizes(slide: Slide, make, values: dict) -> None:
    with pytest.raises(SlideError, match="above zero"):
        make(slide, **{"pitch_um": 100, **values})


@pytest.mark.parametrize("make", [square_grid, hexagonal_grid])
def test_too_fine_a_grid_is_refused(slide: Slide, make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grids, "MAX_SPOTS", 1000)
    with pytest.raises(SlideError, match=r"would have .* positions.*region"):
        make(slide, 20)
    assert len(make(slide, 20, region=Region.box(0, 0, 100, 100))) > 50

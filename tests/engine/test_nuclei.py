"""Nuclei of a slide: built-in method, tiles, borders."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from skimage.io import imread

from napari_he2st.analysis.nuclei import NUCLEI_METHODS
from napari_he2st.core.errors import MissingExtraError, SchemaError, UnknownNameError
from napari_he2st.core.types import Region
from napari_he2st.data.slides import Slide
from napari_he2st.engine import nuclei
from napari_he2st.engine.nuclei import find_nuclei

PITCH, RADIUS = 40, 7


def _tissue(width: int, height: int) -> np.ndarray:
    """Pink tissue in a rim of glass with a lattice of round purple nuclei."""
    image = np.full((height, width, 3), 244, np.uint8)
    image[30:-30, 30:-30] = (228, 170, 196)
    y, x = np.mgrid[:height, :width]
    disc = ((x % PITCH - PITCH / 2) ** 2 + (y % PITCH - PITCH / 2) ** 2) < RADIUS**2
    inner = np.zeros_like(disc)
    inner[PITCH:-PITCH, PITCH:-PITCH] = True
    image[disc & inner] = (92, 60, 140)
    return image


@pytest.fixture(scope="module")
def slide_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("nuclei") / "tissue.png"
    Image.fromarray(_tissue(640, 480)).save(path)
    return path


def test_every_nucleus_is_found_once_whatever_the_tiles(slide_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    n = (640 // PITCH - 2) * (480 // PITCH - 2)
    with Slide.open(slide_path, mpp=0.5) as slide:
        whole = find_nuclei(slide)
        monkeypatch.setattr(nuclei, "TILE_PX", 256)
        cut = find_nuclei(slide)
    assert len(whole.numbers) == len(cut.numbers) == n
    order = [np.lexsort(found.centres_px.round().T) for found in (whole, cut)]
    np.testing.assert_allclose(whole.centres_px[order[0]], cut.centres_px[order[1]], atol=1.0)
    area = np.bincount(cut.labels.ravel())[1:]
    assert area.min() > 0.6 * np.pi * RADIUS**2


def test_a_region_bounds_the_search(slide_path: Path) -> None:
    with Slide.open(slide_path, mpp=0.5) as slide:
        found = find_nuclei(slide, regions=[Region.box(300, 200, 120, 160)])
    assert len(found.numbers) == 3 * 4
    assert found.labels.shape == (480, 640)


def test_glass_has_none(tmp_path: Path) -> None:
    Image.fromarray(np.full((200, 200, 3), 244, np.uint8)).save(tmp_path / "glass.png")
    with Slide.open(tmp_path / "glass.png", mpp=0.5) as slide, pytest.raises(SchemaError, match="no nuclei"):
        find_nuclei(slide)


def test_methods_that_are_missing_are_named(slide_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "instanseg", None)
    with Slide.open(slide_path, mpp=0.5) as slide:
        with pytest.raises(UnknownNameError, match="haematoxylin"):
            find_nuclei(slide, "hematoxylin")
        with pytest.raises(MissingExtraError, match="pip install instanseg"):
            find_nuclei(slide, "instanseg")


def _f1(found: np.ndarray, real: np.ndarray) -> tuple[int, int, int]:
    """Nuclei that overlap by more than half of their union, found, and real."""
    pairs, counts = np.unique(np.stack([found.ravel(), real.ravel()]), axis=1, return_counts=True)
    size, other = np.bincount(found.ravel()), np.bincount(real.ravel())
    both = (pairs > 0).all(axis=0)
    union = size[pairs[0, both]] + other[pairs[1, both]] - counts[both]
    n_found, n_real = (len(np.unique(labels)) - 1 for labels in (found, real))
    return int((counts[both] / union > 0.5).sum()), n_found, n_real


def test_real_nuclei(he2st_data: Path) -> None:
    method = NUCLEI_METHODS["haematoxylin"].function
    hits = total = 0
    for path in sorted((he2st_data / "nuclei_tiles_dsb2018" / "images").glob("*.png"))[::10]:
        real = imread(path.parents[1] / "labels" / path.name)
        hit, found, known = _f1(method(imread(path)[..., :3], 0.4), real)
        hits, total = hits + 2 * hit, total + found + known
    assert hits / total > 0.55

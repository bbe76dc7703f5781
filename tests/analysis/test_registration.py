"""Generic registration of two images."""

from __future__ import annotations

import sys

import cv2
import numpy as np
import pytest

from napari_he2st.analysis.alignment import ALIGNMENT_METHODS
from napari_he2st.core.errors import He2stError, MissingExtraError


def tissue() -> np.ndarray:
    """A blotched piece of tissue without any symmetry on white."""
    rng = np.random.default_rng(0)
    blotches = cv2.GaussianBlur(rng.random((240, 260)).astype(np.float32), (0, 0), 2.5)
    image = np.ones((240, 260, 3))
    shape = np.zeros((240, 260), np.uint8)
    cv2.fillPoly(shape, [np.array([[60, 50], [190, 70], [200, 150], [120, 140], [100, 200], [50, 180]])], 1)
    image[shape > 0] = 0.3 + 0.5 * (blotches[shape > 0, None] - blotches.min()) / np.ptp(blotches)
    return image


def turned(image: np.ndarray, angle: float, flip: bool = False) -> tuple[np.ndarray, np.ndarray]:
    matrix = np.vstack([cv2.getRotationMatrix2D((130, 120), angle, 1.0), [0, 0, 1]])
    if flip:
        matrix = matrix @ np.array([[-1, 0, 259], [0, 1, 0], [0, 0, 1.0]])
    matrix[:2, 2] += (6, -4)
    return cv2.warpAffine(image, matrix[:2], (260, 240), borderValue=(1, 1, 1)), matrix


@pytest.mark.parametrize(
    "entry",
    [
        pytest.param(entry, id=entry.name, marks=[pytest.mark.slow] if entry.name == "elastix" else [])
        for entry in ALIGNMENT_METHODS
    ],
)
@pytest.mark.parametrize("angle", [0.0, 17.0])
def test_a_turned_image_is_brought_back(entry, angle):
    if entry.name == "elastix":
        pytest.importorskip("itk", reason="itk-elastix is an extra")
    image = tissue()
    moving, matrix = turned(image, angle)
    found = entry.function(moving, image, mpp=4.0)
    points = np.array([[70.0, 60.0], [180.0, 90.0], [80.0, 180.0]])
    there = points @ matrix[:2, :2].T + matrix[:2, 2]
    assert np.linalg.norm(found(there) - points, axis=1).max() < 4


def test_a_turned_over_section_is_found_where_that_is_allowed():
    image = tissue()
    moving, matrix = turned(image, 25.0, flip=True)
    found = ALIGNMENT_METHODS["phase"].function(moving, image, mpp=4.0, mirror=True)
    points = np.array([[70.0, 60.0], [180.0, 90.0]])
    there = points @ matrix[:2, :2].T + matrix[:2, 2]
    assert found.info["mirrored"] is True
    assert np.linalg.norm(found(there) - points, axis=1).max() < 5


@pytest.mark.slow
def test_elastix_finds_scale_and_shear_which_phase_does_not():
    pytest.importorskip("itk", reason="itk-elastix is an extra")
    image = tissue()
    matrix = np.array([[1.06, 0.05, -9.0], [-0.03, 0.95, 12.0], [0, 0, 1]])
    moving = cv2.warpAffine(image, matrix[:2], (260, 240), borderValue=(1, 1, 1))
    points = np.array([[70.0, 60.0], [180.0, 90.0], [80.0, 180.0]])
    there = points @ matrix[:2, :2].T + matrix[:2, 2]
    apart = {
        name: np.linalg.norm(ALIGNMENT_METHODS[name].function(moving, image, mpp=4.0)(there) - points, axis=1).max()
        for name in ("phase", "elastix")
    }
    assert apart["elastix"] < 1.5 < apart["phase"]


def test_without_elastix_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "itk", None)
    with pytest.raises(MissingExtraError, match=r"napari-he2st\[elastix\]"):
        ALIGNMENT_METHODS["elastix"].function(tissue(), tissue(), mpp=4.0)


def test_nothing_to_go_by():
    blank = np.ones((100, 120, 3))
    with pytest.raises(He2stError, match="no tissue"):
        ALIGNMENT_METHODS["phase"].function(blank, tissue(), mpp=4.0)
    with pytest.raises(He2stError, match="Only 0 features"):
        ALIGNMENT_METHODS["features"].function(blank, tissue(), mpp=4.0)

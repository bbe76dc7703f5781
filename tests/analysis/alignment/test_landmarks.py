"""Registration from landmarks."""

from __future__ import annotations

import numpy as np
import pytest

from napari_he2st.analysis.alignment.landmarks import KINDS, LEAST, fit_landmarks, match_landmarks
from napari_he2st.core.errors import TruthError
from napari_he2st.core.types import Transform

MOVING = np.array([(100, 80), (900, 120), (870, 640), (160, 700), (500, 300), (640, 560)], dtype=float)


def turned(xy, degrees=25.0, scale=1.7, shift=(300, -40), mirror=False):
    angle = np.deg2rad(degrees)
    matrix = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return (xy * ([-1, 1] if mirror else 1)) @ matrix.T + shift


@pytest.mark.parametrize("mirror", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_finds_a_similarity_again(kind, mirror):
    fit = fit_landmarks(MOVING, turned(MOVING, mirror=mirror), kind)
    assert fit.mirrored is mirror
    other = np.array([(400.0, 410.0), (10.0, 20.0)])
    np.testing.assert_allclose(fit.transform(other), turned(other, mirror=mirror), atol=1e-5)
    assert fit.rms_px < 1e-5


def test_two_pairs_tell_a_similarity():
    fit = fit_landmarks(MOVING[:2], turned(MOVING[:2]))
    np.testing.assert_allclose(fit.transform(MOVING), turned(MOVING))
    assert not fit.mirrored


def test_a_shear_needs_an_affine_map():
    shear = Transform(np.array([[1.2, 0.3, 5.0], [-0.1, 0.8, 9.0], [0, 0, 1]]))
    affine = fit_landmarks(MOVING, shear(MOVING), "affine")
    np.testing.assert_allclose(affine.transform.matrix, shear.matrix, atol=1e-9)
    assert fit_landmarks(MOVING, shear(MOVING)).rms_px > 20


def test_a_bend_needs_a_spline_whose_residuals_are_those_of_left_out_landmarks():
    grid = np.stack(np.meshgrid(np.linspace(0, 1000, 6), np.linspace(0, 1000, 6)), -1).reshape(-1, 2)
    bent = grid + 60 * np.sin(grid[:, ::-1] / 250)
    spline, affine = (fit_landmarks(grid, bent, kind) for kind in ("thin-plate spline", "affine"))
    np.testing.assert_allclose(spline.transform(grid), bent, atol=1e-3)
    assert 0 < spline.rms_px < affine.rms_px
    inner = np.array([[430.0, 520.0], [610.0, 380.0]])
    np.testing.assert_allclose(spline.transform(inner), inner + 60 * np.sin(inner[:, ::-1] / 250), atol=12)


def test_the_worst_landmark_has_the_largest_residual():
    fixed = turned(MOVING)
    fixed[3] += (80, 0)
    for kind in KINDS:
        assert np.argmax(fit_landmarks(MOVING, fixed, kind).residuals_px) == 3


@pytest.mark.parametrize("mirror", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_landmarks_in_any_order_are_paired(seed, mirror):
    rng = np.random.default_rng(seed)
    moving = rng.uniform(0, 1000, (rng.integers(4, 11), 2))
    fixed = turned(moving, degrees=rng.uniform(0, 360), mirror=mirror) + rng.normal(0, 4, moving.shape)
    shuffle = rng.permutation(len(moving))
    order = match_landmarks(moving, fixed[shuffle])
    np.testing.assert_array_equal(shuffle[order], np.arange(len(moving)))


@pytest.mark.parametrize("kind", KINDS)
def test_too_few(kind):
    n = LEAST[kind] - 1
    with pytest.raises(TruthError, match=f"needs {n + 1} pairs"):
        fit_landmarks(MOVING[:n], MOVING[:n], kind)


def test_what_cannot_be_registered_says_why():
    with pytest.raises(TruthError, match="3 landmarks on one and 2"):
        fit_landmarks(MOVING[:3], MOVING[:2])
    with pytest.raises(TruthError, match="no position"):
        fit_landmarks(MOVING, np.full_like(MOVING, np.nan))
    with pytest.raises(TruthError, match="on one point"):
        fit_landmarks(np.ones((4, 2)), MOVING[:4])
    with pytest.raises(TruthError, match="on a line"):
        fit_landmarks(np.arange(10.0).repeat(2).reshape(-1, 2), turned(MOVING[np.arange(10) % 6]), "affine")
    with pytest.raises(TruthError, match="3 to 20"):
        match_landmarks(MOVING[:2], MOVING[:2])

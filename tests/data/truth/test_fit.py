"""Spots on tissue, and the corrections that are proposed where they are not."""

from __future__ import annotations

import anndata
import numpy as np
import pytest

from napari_he2st.core.errors import TruthError
from napari_he2st.core.schema import provenance
from napari_he2st.data.slides.tissue import TissueMask
from napari_he2st.data.truth.fit import check_fit, correct
from napari_he2st.data.truth.fit_picture import fit_picture

WIDTH, HEIGHT, STEP = 1600, 1000, 10
SHIFTS = [(120.0, -80.0), (-150.0, 40.0)]


@pytest.fixture
def mask():
    """An L of tissue: no flip or turn maps it onto itself."""
    tissue = np.zeros((HEIGHT // STEP, WIDTH // STEP), dtype=bool)
    tissue[20:80, 30:60] = True
    tissue[55:80, 30:110] = True
    return TissueMask(tissue, float(STEP), float(tissue.mean()), "drawn")


@pytest.fixture
def on_tissue(mask):
    """Spots every 40 px wherever there is tissue."""
    xy = np.stack(np.meshgrid(np.arange(20.0, WIDTH, 40), np.arange(20.0, HEIGHT, 40)), -1).reshape(-1, 2)
    return xy[mask.contains(xy)]


def at(xy, mpp=2.5):
    adata = anndata.AnnData(np.ones((len(xy), 1), dtype=np.float32))
    adata.obsm["spatial"] = np.array(xy, dtype=float)
    adata.obsm["spatial_source"] = np.array(xy, dtype=float)
    adata.uns["he2st"] = provenance(
        "measured", mpp=mpp, scale="log1p_cp10k", pitch_um=100, spot_um=55, lattice="square", library="L"
    )
    return adata


def test_spots_on_tissue_give_no_warning(mask, on_tissue):
    fit = check_fit(at(on_tissue), mask)
    assert (fit.on_tissue, fit.outside, fit.correction, fit.message) == (1.0, 0.0, None, None)
    assert fit.contrast > 0.9


@pytest.mark.parametrize("mirror_y", [False, True])
@pytest.mark.parametrize("mirror_x", [False, True])
@pytest.mark.parametrize("transpose", [False, True])
def test_every_flip_is_noticed_and_undone(mask, on_tissue, transpose, mirror_x, mirror_y):
    xy = on_tissue.copy()
    if mirror_x:
        xy[:, 0] = WIDTH - xy[:, 0]
    if mirror_y:
        xy[:, 1] = HEIGHT - xy[:, 1]
    if transpose:
        xy = xy[:, ::-1]
    adata = at(xy)
    fit = check_fit(adata, mask)
    if not (transpose or mirror_x or mirror_y):
        assert fit.correction is None
        return
    assert fit.correction.on_tissue == 1.0
    assert fit.correction.said in fit.message
    correct(adata, fit.correction)
    np.testing.assert_allclose(adata.obsm["spatial"], on_tissue)
    assert check_fit(adata, mask).message is None


@pytest.mark.parametrize("shift", SHIFTS)
def test_a_shift_is_noticed_and_undone(mask, on_tissue, shift):
    adata = at(on_tissue + shift)
    fit = check_fit(adata, mask)
    assert "a shift of" in fit.correction.said
    correct(adata, fit.correction)
    np.testing.assert_allclose(adata.obsm["spatial"], on_tissue, atol=20)
    assert check_fit(adata, mask).message is None


def test_a_correction_is_on_record_and_leaves_the_vendors_positions(mask, on_tissue):
    source = on_tissue[:, ::-1]
    adata = at(source)
    adata.uns["he2st"]["transform"] = np.eye(3)
    correct(adata, check_fit(adata, mask).correction)
    np.testing.assert_array_equal(adata.obsm["spatial_source"], source)
    matrix = adata.uns["he2st"]["transform"]
    np.testing.assert_allclose(source @ matrix[:2, :2].T + matrix[:2, 2], adata.obsm["spatial"])
    assert adata.uns["he2st"]["corrections"] == ["x and y exchanged"]


def test_spots_of_another_image_get_a_warning_but_no_correction(mask):
    xy = np.random.default_rng(0).uniform((0, 0), (WIDTH, HEIGHT), (400, 2))
    fit = check_fit(at(xy), mask)
    assert fit.correction is None
    assert "another image" in fit.message


def test_spots_outside_the_image_are_counted(mask, on_tissue):
    far = on_tissue.copy()
    far[: len(far) // 2, 0] += 10 * WIDTH
    fit = check_fit(at(far), mask)
    assert fit.outside == pytest.approx(0.5, abs=0.01)
    assert "50% lie outside the image" in fit.message


def test_a_blank_image_is_said_to_be_blank(on_tissue):
    blank = TissueMask(np.zeros((100, 160), dtype=bool), 10.0, 0.0, "drawn")
    fit = check_fit(at(on_tissue), blank, warnings=["Barcodes differ."])
    assert fit.message.startswith("Barcodes differ. The image shows no tissue")
    assert fit.correction is None


def test_tissue_everywhere_says_nothing_of_flips(on_tissue):
    full = TissueMask(np.ones((100, 160), dtype=bool), 10.0, 1.0, "drawn")
    fit = check_fit(at(on_tissue), full)
    assert (fit.on_tissue, fit.correction, fit.message) == (1.0, None, None)


def test_no_spots(mask):
    with pytest.raises(TruthError, match="no spots"):
        check_fit(at(np.empty((0, 2))), mask)


def test_the_picture_shows_both_states(mask, on_tissue):
    overview = np.full((100, 160, 3), 240, dtype=np.uint8)
    good, bad = at(on_tissue), at(on_tissue[:, ::-1])
    one = fit_picture(good, mask, check_fit(good, mask), overview)
    two = fit_picture(bad, mask, check_fit(bad, mask), overview)
    assert two.shape[0] == one.shape[0]
    assert two.shape[1] == 2 * one.shape[1] + 8
    np.testing.assert_array_equal(two[:, -one.shape[1] :], one)
    assert (two[:, : one.shape[1]] != one).any()

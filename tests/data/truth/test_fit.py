"""Spots on tissue."""

from __future__ import annotations

from dataclasses import dataclass

import anndata
import numpy as np
import pytest

from napari_he2st.core.errors import TruthError
from napari_he2st.data.truth.fit import check_fit


@dataclass
class Mask:
    """The parts of a tissue mask that the check uses."""

    mask: np.ndarray
    downsample: float

    def contains(self, xy):
        column, row = np.floor(np.asarray(xy) / self.downsample).astype(int).T
        inside = (column >= 0) & (row >= 0) & (column < self.mask.shape[1]) & (row < self.mask.shape[0])
        return inside & self.mask[np.where(inside, row, 0), np.where(inside, column, 0)]


@pytest.fixture
def mask():
    """800 × 400 px, tissue in the right half."""
    tissue = np.zeros((40, 80), dtype=bool)
    tissue[:, 40:] = True
    return Mask(tissue, 10.0)


def _at(xy):
    adata = anndata.AnnData(np.ones((len(xy), 1), dtype=np.float32))
    adata.obsm["spatial"] = np.asarray(xy, dtype=float)
    return adata


def test_spots_on_tissue_give_no_warning(mask):
    fit = check_fit(_at([[500, 100], [600, 200], [700, 300], [410, 10], [100, 100]]), mask)
    assert (fit.on_tissue, fit.n, fit.message) == (0.8, 5, None)


def test_spots_beside_tissue_give_a_warning(mask):
    fit = check_fit(_at([[100, 100], [150, 200], [700, 300]]), mask)
    assert fit.on_tissue == pytest.approx(1 / 3)
    assert "Only 33% of 3 spots lie on tissue" in fit.message


def test_exchanged_axes_are_noticed(mask):
    fit = check_fit(_at([[100, 500], [200, 600], [300, 700]]), mask)
    assert "100% would with x and y exchanged" in fit.message


def test_spots_outside_the_image_are_noticed(mask):
    fit = check_fit(_at([[1500, 1100], [1600, 1200], [500, 100], [-5, 3]]), mask)
    assert "75% outside the image" in fit.message


def test_no_spots(mask):
    with pytest.raises(TruthError, match="no spots"):
        check_fit(_at(np.empty((0, 2))), mask)

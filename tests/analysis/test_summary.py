"""Per-gene summaries over the spots where a gene is known."""

from __future__ import annotations

import numpy as np
import pytest

from napari_he2st.analysis import summary
from napari_he2st.analysis.summary import extreme_rows, summarise_genes
from napari_he2st.core.progress import Cancelled, Control

VALUES = np.array([[0, 1, np.nan], [2, 3, np.nan], [np.nan, 0, np.nan]], dtype=np.float32)


def test_unmeasured_spots_do_not_count():
    found = summarise_genes(VALUES)
    np.testing.assert_allclose(found.mean, [1, 4 / 3, np.nan])
    np.testing.assert_allclose(found.detected, [0.5, 2 / 3, np.nan])


def test_blocks_do_not_change_the_result(monkeypatch):
    whole = summarise_genes(VALUES)
    monkeypatch.setattr(summary, "_BLOCK_VALUES", 3)
    control = Control()
    blocked = summarise_genes(VALUES, control=control)
    np.testing.assert_array_equal(whole.mean, blocked.mean)
    assert control.done == control.total == 3


def test_no_spots_give_nan():
    found = summarise_genes(np.empty((0, 2), np.float32))
    assert np.isnan(found.mean).all()


def test_it_can_be_cancelled():
    control = Control()
    control.cancel()
    with pytest.raises(Cancelled):
        summarise_genes(VALUES, control=control)


def test_sparse_values_are_summarised_the_same():
    from scipy.sparse import csc_matrix

    dense = np.random.default_rng(0).poisson(0.3, (50, 7)).astype(np.float32)
    expected, got = summarise_genes(dense), summarise_genes(csc_matrix(dense))
    np.testing.assert_allclose(got.mean, expected.mean, rtol=1e-6)
    np.testing.assert_allclose(got.detected, expected.detected)


def test_the_highest_and_the_lowest_rows():
    values = np.array([0, 3, np.nan, 0, 5, 1, 0], dtype=np.float32)
    highest, lowest = extreme_rows(values, 2)
    assert highest.tolist() == [4, 1]
    assert set(lowest.tolist()) < {0, 3, 6}
    assert len(extreme_rows(values, 20)[0]) == 6

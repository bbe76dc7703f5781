from __future__ import annotations

import numpy as np

from napari_he2st.engine.regions import pool_by_owner

VALUES = np.array([[1.0], [3.0], [5.0]], dtype=np.float32)
OWNER = np.array([0, 0, 2])


def test_a_spot_is_the_mean_of_its_cells() -> None:
    found = pool_by_owner(VALUES, OWNER, 3)
    np.testing.assert_array_equal(found[:, 0], [2.0, np.nan, 5.0])


def test_or_their_sum_where_they_share_its_counts() -> None:
    found = pool_by_owner(VALUES, OWNER, 3, "sum")
    np.testing.assert_array_equal(found[:, 0], [4.0, np.nan, 5.0])


def test_on_the_lattice_itself_nothing_changes() -> None:
    for pool in ("mean", "sum"):
        np.testing.assert_array_equal(pool_by_owner(VALUES, np.arange(3), 3, pool), VALUES)

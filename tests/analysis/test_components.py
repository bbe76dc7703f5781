from __future__ import annotations

import numpy as np

from napari_he2st.analysis.components import relabel_small


def test_an_island_takes_the_label_around_it() -> None:
    labels = np.zeros((6, 6), dtype=int)
    labels[2:4, 2:4] = 1
    assert (relabel_small(labels, 5) == 0).all()
    assert (relabel_small(labels, 4) == labels).all()


def test_background_neither_changes_nor_counts() -> None:
    labels = np.full((5, 5), -1)
    labels[2, 2] = 3
    assert (relabel_small(labels, 10) == labels).all()


def test_small_parts_join_one_after_the_other() -> None:
    labels = np.array([[0, 0, 0, 0, 1, 2, 2]])
    assert relabel_small(labels, 3).tolist() == [[0, 0, 0, 0, 0, 0, 0]]

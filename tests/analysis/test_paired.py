"""Tests between systems and against chance."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import wilcoxon

from napari_he2st.analysis.paired import holm, permuted_pcc, wilcoxon_pairs


def test_holm_on_the_textbook_example() -> None:
    np.testing.assert_allclose(holm(np.array([0.01, 0.04, 0.03, 0.005])), [0.03, 0.06, 0.06, 0.02])
    assert holm(np.empty(0)).shape == (0,)


def test_pairs_are_tested_where_both_are_known() -> None:
    rng = np.random.default_rng(0)
    first = rng.normal(size=30)
    better = first + 0.5 + 0.1 * rng.normal(size=30)
    better[3] = np.nan
    found = wilcoxon_pairs(np.stack([first, better, first]))
    assert [pair[:2] for pair in found] == [(0, 1), (0, 2), (1, 2)]
    known = np.isfinite(better)
    assert found[0][2] == pytest.approx(3 * wilcoxon(first[known] - better[known]).pvalue)
    assert found[1][2] == 1


def test_a_map_is_told_from_chance() -> None:
    rng = np.random.default_rng(1)
    measured = rng.normal(size=(60, 5))
    score, p = permuted_pcc(measured + rng.normal(size=(60, 5)), measured, 99)
    assert score > 0.5
    assert p == pytest.approx(0.01)
    assert permuted_pcc(rng.normal(size=(60, 5)), measured, 99)[1] > 0.05

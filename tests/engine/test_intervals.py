"""Intervals of correlations, and whether stated spreads are right."""

from __future__ import annotations

import numpy as np
import pytest

from napari_he2st.engine.intervals import N_DRAWS, bootstrap_pcc, calibration, interval

RNG = np.random.default_rng(0)
PLACES = np.stack(np.meshgrid(np.arange(20.0), np.arange(20.0)), -1).reshape(-1, 2)


def test_draws_of_single_blocks_are_the_correlation_of_what_was_drawn() -> None:
    x, y = (RNG.normal(size=(400, 3)).astype(np.float32) for _ in range(2))
    draws = bootstrap_pcc(x, y, PLACES, seed=3)
    _, block = np.unique(np.floor(PLACES / 4), axis=0, return_inverse=True)
    times = np.random.default_rng(3).multinomial(25, np.full(25, 1 / 25), size=N_DRAWS)[7]
    rows = np.concatenate([np.repeat(np.flatnonzero(block.ravel() == b), n) for b, n in enumerate(times)])
    expected = [np.corrcoef(x[rows, g], y[rows, g])[0, 1] for g in range(3)]
    assert draws.shape == (N_DRAWS, 3)
    np.testing.assert_allclose(draws[7], expected, atol=1e-6)


def test_the_interval_holds_the_truth_as_often_as_it_says() -> None:
    shared = RNG.normal(size=(400, 300))
    x, y = ((shared + RNG.normal(size=shared.shape)).astype(np.float32) for _ in range(2))  # true correlation 0.5
    low, high = interval(bootstrap_pcc(x, y, PLACES))
    assert np.mean((low < 0.5) & (high > 0.5)) == pytest.approx(0.93, abs=0.05)


def test_what_is_smooth_over_the_tissue_has_wider_intervals() -> None:
    field = np.sin(PLACES / 6).sum(1, keepdims=True) + 0.05 * RNG.normal(size=(400, 50))
    noise = RNG.normal(size=field.shape)
    smooth = bootstrap_pcc(field.astype(np.float32), (field + noise).astype(np.float32), PLACES)
    order = RNG.permutation(400)
    mixed = bootstrap_pcc(field[order].astype(np.float32), (field + noise)[order].astype(np.float32), PLACES)
    widths = [float(np.mean(np.subtract(*interval(draws)[::-1]))) for draws in (smooth, mixed)]
    assert widths[0] > 1.2 * widths[1]


def test_a_constant_prediction_has_no_interval() -> None:
    x = np.ones((400, 2), np.float32)
    x[:, 1] = RNG.normal(size=400)
    low, high = interval(bootstrap_pcc(x, x, PLACES))
    assert np.isnan([low[0], high[0]]).all()
    assert low[1] == pytest.approx(1)


def test_a_right_spread_is_found_right_and_a_small_one_is_named() -> None:
    truth = RNG.normal(size=(400, 20)).astype(np.float32)
    predicted = truth + 0.5 * RNG.normal(size=truth.shape).astype(np.float32)
    right = calibration(predicted, truth, np.full_like(truth, 0.5))
    small = calibration(predicted, truth, np.full_like(truth, 0.1))
    assert right["within_95"] == pytest.approx(0.95, abs=0.01)
    assert right["spread_factor"] == pytest.approx(1, abs=0.02)
    assert small["within_95"] < 0.4
    assert small["spread_factor"] == pytest.approx(5, rel=0.05)

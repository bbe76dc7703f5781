"""Frames of principal axes."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from napari_he2st.zoo.blocks.frames import in_frames


def _points() -> Tensor:
    return torch.randn(3, 7, 2, generator=torch.Generator().manual_seed(0))


def _as_set(projected: Tensor) -> Tensor:
    return projected.sort(1).values


def test_turning_and_moving_the_points_changes_nothing() -> None:
    angle = torch.tensor(0.7)
    turn = torch.tensor([[angle.cos(), -angle.sin()], [angle.sin(), angle.cos()]])
    before, _ = in_frames(_points())
    after, _ = in_frames(_points() @ turn.T + 5)
    torch.testing.assert_close(_as_set(before), _as_set(after), atol=1e-5, rtol=0)


def test_frames_come_in_opposite_pairs() -> None:
    projected, _ = in_frames(_points())
    assert float(projected.mean(1).abs().max()) < 1e-6
    lengths = projected.norm(dim=-1)
    torch.testing.assert_close(lengths[:, 0], lengths[:, 3])


def test_masked_points_have_no_influence() -> None:
    points = _points()
    mask = torch.ones(3, 7, dtype=torch.bool)
    mask[:, 5:] = False
    other = points.clone()
    other[:, 5:] += 100
    before, after = in_frames(points, mask)[0], in_frames(other, mask)[0]
    torch.testing.assert_close(before[:, :, :5], after[:, :, :5])
    torch.testing.assert_close(in_frames(points[:, :5])[0], before[:, :, :5])


def test_a_single_point_is_finite() -> None:
    projected, centre = in_frames(torch.tensor([[[3.0, 4.0]]]))
    assert projected.abs().max() == 0
    assert math.isclose(float(centre.norm()), 5.0)

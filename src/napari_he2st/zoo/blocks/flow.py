"""Flow matching along straight lines, with a network that predicts where the line ends (Liu et al., ICLR 2023)."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

from torch import Tensor


def between(start: Tensor, end: Tensor, time: Tensor) -> Tensor:
    """Where the line from ``start`` to ``end``, both (batch, …), is at ``time`` (batch,) in 0 … 1."""
    time = time.view(-1, *[1] * (start.ndim - 1))
    return start * (1 - time) + end * time


def step(x: Tensor, end: Tensor, duration: Tensor) -> Tensor:
    """One Euler step of ``duration`` (batch,) towards the predicted end; its speed is not divided by 1 − time."""
    return x + duration.view(-1, *[1] * (x.ndim - 1)) * (end - x)


def flow(predict_end: Callable[[Tensor, Tensor], Tensor], start: Tensor, times: Tensor) -> list[Tensor]:
    """Follow the flow; the last prediction is the result.

    Parameters
    ----------
    predict_end
        Function of (x, time (batch,)).
    start
        Sample of the prior, (batch, …).
    times
        Increasing, at least two; the network is called at all but the last.

    Returns
    -------
    list of Tensor
        ``x`` after each step, and the prediction at the end.
    """
    states: list[Tensor] = []
    x = start
    for now, then in pairwise(times):
        end = predict_end(x, now.expand(len(x)))
        x = step(x, end, (then - now).expand(len(x)))
        states.append(x)
    return [*states[:-1], end]

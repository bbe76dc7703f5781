"""Gaussian diffusion with a network that predicts the noise (Ho et al. 2020; Nichol and Dhariwal 2021).

Steps count from 0, the cleanest, and are int64 tensors (batch,). Tables are float64 and rounded where they are used.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from napari_he2st.core.errors import ModelError

_SMALLEST = 1e-20
_BIN = 1 / 255
_EDGE = 0.999
_LEAST_PROBABILITY = 1e-12

Network = Callable[[Tensor, Tensor], Tensor]
"""Function of (x, original step numbers (batch,))."""


class Schedule:
    """How much noise there is at each step, and what follows from it.

    Parameters
    ----------
    betas
        Variance of the noise that each step adds.
    times
        Number of each step in the schedule the network was trained with; by default this one.

    Attributes
    ----------
    betas, alpha_bar, alpha_bar_before, variance
        Per step: added variance, share of the signal's variance that is left after and before it, and variance
        of the step's posterior.
    times
        Numbers that the network knows.
    """

    def __init__(self, betas: NDArray[np.float64], times: NDArray[np.int64] | None = None) -> None:
        self.betas = betas
        self.alpha_bar = np.cumprod(1 - betas)
        self.alpha_bar_before = np.append(1.0, self.alpha_bar[:-1])
        self.variance = betas * (1 - self.alpha_bar_before) / (1 - self.alpha_bar)
        self.clean_share = betas * np.sqrt(self.alpha_bar_before) / (1 - self.alpha_bar)
        self.noisy_share = (1 - self.alpha_bar_before) * np.sqrt(1 - betas) / (1 - self.alpha_bar)
        self.times = np.arange(len(betas)) if times is None else times

    @classmethod
    def linear(cls, n_steps: int, low: float = 1e-4, high: float = 2e-2) -> Schedule:
        """Betas that grow evenly."""
        return cls(np.linspace(low, high, n_steps))

    @classmethod
    def cosine(cls, n_steps: int, offset: float = 0.008, highest: float = 0.999) -> Schedule:
        """Betas that let the signal fade as a squared cosine."""
        left = np.cos((np.arange(n_steps + 1) / n_steps + offset) / (1 + offset) * math.pi / 2) ** 2
        return cls(np.minimum(1 - left[1:] / left[:-1], highest))

    def __len__(self) -> int:
        return len(self.betas)

    def respaced(self, kept: Sequence[int]) -> Schedule:
        """The schedule that goes through some of the steps only."""
        alpha_bar = self.alpha_bar[list(kept)]
        return Schedule(1 - alpha_bar / np.append(1.0, alpha_bar[:-1]), self.times[list(kept)])

    def at(self, table: NDArray[np.float64], step: Tensor, like: Tensor) -> Tensor:
        """Entries of a table, float32, to be multiplied with ``like`` (batch, …)."""
        return torch.from_numpy(table).to(like.device)[step].float().view(-1, *[1] * (like.ndim - 1))

    def noised(self, clean: Tensor, step: Tensor, noise: Tensor) -> Tensor:
        """What is left of ``clean`` after a step."""
        signal, rest = np.sqrt(self.alpha_bar), np.sqrt(1 - self.alpha_bar)
        return self.at(signal, step, clean) * clean + self.at(rest, step, clean) * noise

    def clean(self, x: Tensor, step: Tensor, noise: Tensor) -> Tensor:
        """The signal in ``x``, given the noise in it."""
        signal, rest = np.sqrt(1 / self.alpha_bar), np.sqrt(1 / self.alpha_bar - 1)
        return self.at(signal, step, x) * x - self.at(rest, step, x) * noise

    def noise_in(self, x: Tensor, step: Tensor, clean: Tensor) -> Tensor:
        """The noise in ``x``, given the signal in it."""
        signal, rest = np.sqrt(1 / self.alpha_bar), np.sqrt(1 / self.alpha_bar - 1)
        return (self.at(signal, step, x) * x - clean) / self.at(rest, step, x)

    def posterior_mean(self, clean: Tensor, x: Tensor, step: Tensor) -> Tensor:
        """Mean of the state before the step that led to ``x``, given the signal."""
        return self.at(self.clean_share, step, x) * clean + self.at(self.noisy_share, step, x) * x

    def posterior_log_variance(self, step: Tensor, like: Tensor) -> Tensor:
        """Logarithm of its variance; that of the first step, which is 0, counts as that of the second."""
        variance = np.append(self.variance[1:2], self.variance[1:])
        return self.at(np.log(np.maximum(variance, _SMALLEST)), step, like)

    def learned_log_variance(self, share: Tensor, step: Tensor) -> Tensor:
        """Log variance that a network chose: from the posterior's (−1) to the step's (1)."""
        upper, lower = self.at(np.log(self.betas), step, share), self.posterior_log_variance(step, share)
        f = (share + 1) / 2
        return f * upper + (1 - f) * lower


def spaced_steps(n_steps: int, spacing: str | int) -> list[int]:
    """Which steps of a long schedule a short one goes through, from both its ends and evenly between.

    Parameters
    ----------
    n_steps
        Of the long schedule.
    spacing
        Number of steps; or several with commas, for as many equal sections; or ``"ddimN"``: the first whole stride
        that gives exactly N steps.

    Raises
    ------
    ModelError
        It cannot be done.
    """
    text = str(spacing)
    if text.startswith("ddim"):
        wanted = int(text.removeprefix("ddim"))
        for stride in range(1, n_steps + 1):
            if len(range(0, n_steps, stride)) == wanted:
                return list(range(0, n_steps, stride))
        raise ModelError(f"No whole stride gives {wanted} of {n_steps} steps", todo="Choose another number of steps")
    counts = [int(part) for part in text.split(",")]
    kept: list[int] = []
    start = 0
    for number, count in enumerate(counts):
        size = n_steps // len(counts) + (number < n_steps % len(counts))
        if not 1 <= count <= size:
            raise ModelError(f"{count} steps cannot be chosen out of {size}", todo=f"Choose 1 to {size}")
        apart = (size - 1) / max(count - 1, 1)
        kept += [start + round(j * apart) for j in range(count)]
        start += size
    return kept


def ancestral(
    schedule: Schedule,
    moments: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]],
    start: Tensor,
    noise: Tensor,
    project: Callable[[Tensor], Tensor] = lambda x: x,
) -> Tensor:
    """Walk back through a schedule, with noise in every step but the last.

    Parameters
    ----------
    schedule
        Its steps are gone through from the last to the first.
    moments
        Mean of the state before, and the factor of its noise, from (x, step (batch,)).
    start
        Noise to begin with, (batch, …).
    noise
        Of the steps in the order in which they are gone through: (steps − 1, batch, …).
    project
        Applied to the state after each step.
    """
    x = start
    for number, i in enumerate(reversed(range(len(schedule)))):
        mean, factor = moments(x, torch.full((len(x),), i, device=x.device))
        x = project(mean + factor * noise[number] if i else mean)
    return x


def ddim(
    schedule: Schedule,
    network: Network,
    start: Tensor,
    *,
    predicts: Literal["noise", "signal"] = "noise",
    bounds: tuple[float, float] | None = None,
    eta: float = 0.0,
    noise: Tensor | None = None,
    project: Callable[[Tensor], Tensor] = lambda x: x,
) -> Tensor:
    """Walk back through a schedule without noise, or with a share of it (Song et al., ICLR 2021).

    Parameters
    ----------
    schedule, start, project
        As in :func:`ancestral`.
    network, predicts
        What it is, and whether it predicts the noise or the signal.
    bounds
        What the signal is clamped to; None for nothing.
    eta, noise
        Share of the noise, and the noise as in :func:`ancestral`; needed only where the share is not 0.
    """
    before, now = schedule.alpha_bar_before, schedule.alpha_bar
    sigma = eta * np.sqrt((1 - before) / (1 - now)) * np.sqrt(1 - now / before)
    x = start
    for number, i in enumerate(reversed(range(len(schedule)))):
        step = torch.full((len(x),), i, device=x.device)
        found = network(x, numbers(schedule, step))
        clean = schedule.clean(x, step, found) if predicts == "noise" else found
        if bounds is not None:
            clean = clean.clamp(*bounds)
        kept = schedule.at(np.sqrt(np.maximum(1 - before - sigma**2, 0)), step, x)
        x = schedule.at(np.sqrt(before), step, x) * clean + kept * schedule.noise_in(x, step, clean)
        if i and eta and noise is not None:
            x = x + float(sigma[i]) * noise[number]
        x = project(x)
    return x


def numbers(schedule: Schedule, step: Tensor) -> Tensor:
    """Numbers of steps as the network knows them."""
    return torch.from_numpy(schedule.times).to(step.device)[step]


def variational_bound(
    schedule: Schedule, clean: Tensor, x: Tensor, step: Tensor, mean: Tensor, log_variance: Tensor
) -> Tensor:
    """Bits per entry that a step of the model costs, of the shape of ``clean``.

    The divergence of the model's (``mean``, ``log_variance``) from the true posterior; at the first step the
    likelihood of ``clean`` in bins of 2/255, as for images.
    """
    truth, truth_log = schedule.posterior_mean(clean, x, step), schedule.posterior_log_variance(step, x)
    divergence = 0.5 * (
        log_variance
        - truth_log
        - 1
        + (truth_log - log_variance).exp()
        + (truth - mean).square() * (-log_variance).exp()
    )
    first = (step == 0).view(-1, *[1] * (x.ndim - 1))
    return torch.where(first, -_binned_log_likelihood(clean, mean, 0.5 * log_variance), divergence) / math.log(2)


def _binned_log_likelihood(x: Tensor, mean: Tensor, log_scale: Tensor) -> Tensor:
    narrow = (-log_scale).exp()
    upper, lower = (_cdf((x - mean + side) * narrow) for side in (_BIN, -_BIN))
    between = torch.where(x > _EDGE, 1 - lower, upper - lower)
    return torch.where(x < -_EDGE, upper, between).clamp(min=_LEAST_PROBABILITY).log()


def _cdf(z: Tensor) -> Tensor:
    """Of the standard normal, approximately."""
    return 0.5 * (1 + (math.sqrt(2 / math.pi) * (z + 0.044715 * z**3)).tanh())

"""Diffusion: schedules, samplers, the bound."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from napari_he2st.core.errors import ModelError
from napari_he2st.zoo.blocks.diffusion import (
    Schedule,
    ancestral,
    ddim,
    numbers,
    spaced_steps,
    variational_bound,
)

CLEAN = torch.tensor([[0.5, -2.0, 3.0]])


def _knows(schedule: Schedule):
    """A network that knows the signal, and so the noise in any state."""

    def noise(x, time):
        signal = torch.from_numpy(Schedule.linear(1000).alpha_bar)[time].float()[:, None]
        return (x - signal.sqrt() * CLEAN) / (1 - signal).sqrt()

    return noise


@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_ddim_finds_the_signal_that_the_network_knows(eta: float) -> None:
    schedule = Schedule.linear(1000).respaced(spaced_steps(1000, 10))
    noise = torch.randn(9, 1, 3, generator=torch.Generator().manual_seed(0))
    found = ddim(schedule, _knows(schedule), torch.randn(1, 3), eta=eta, noise=noise)
    torch.testing.assert_close(found, CLEAN, atol=1e-3, rtol=0)


def test_ancestral_sampling_has_the_moments_of_the_signal() -> None:
    whole = Schedule.linear(1000)
    schedule = whole.respaced(spaced_steps(1000, 50))
    n, generator = 4000, torch.Generator().manual_seed(0)

    def moments(x, step):  # the signal is standard normal, so the best guess of it is a share of x
        alpha = schedule.at(schedule.alpha_bar, step, x)
        return schedule.posterior_mean(alpha.sqrt() * x, x, step), schedule.at(np.sqrt(schedule.betas), step, x)

    drawn = ancestral(
        schedule, moments, torch.randn(n, 1, generator=generator), torch.randn(49, n, 1, generator=generator)
    )
    assert float(drawn.mean()) == pytest.approx(0, abs=0.05)
    assert float(drawn.std()) == pytest.approx(1, abs=0.05)


def test_a_projection_holds_after_every_step() -> None:
    schedule = Schedule.cosine(12)
    seen = []

    def moments(x, step):
        seen.append(float(x[0, 0]))
        return x, torch.ones(1)

    found = ancestral(schedule, moments, torch.full((1, 2), 5.0), torch.ones(11, 1, 2), lambda x: x.clamp(max=5.5))
    assert seen[0] == 5.0
    assert set(seen[1:]) == {5.5}
    assert found.tolist() == [[5.5, 5.5]]


def test_steps_are_spread_over_the_schedule() -> None:
    assert spaced_steps(1000, 4) == [0, 333, 666, 999]
    assert spaced_steps(10, "2,3") == [0, 4, 5, 7, 9]
    assert spaced_steps(1000, "ddim4") == [0, 250, 500, 750]
    assert spaced_steps(8, 8) == list(range(8))
    for wrong in (0, 9, "ddim7"):
        with pytest.raises(ModelError):
            spaced_steps(8, wrong)


def test_a_respaced_schedule_keeps_what_is_left_of_the_signal() -> None:
    whole, kept = Schedule.linear(1000), spaced_steps(1000, 7)
    short = whole.respaced(kept)
    np.testing.assert_allclose(short.alpha_bar, whole.alpha_bar[kept])
    assert numbers(short, torch.tensor([0, 6])).tolist() == [0, 999]


def test_the_true_posterior_costs_nothing() -> None:
    schedule = Schedule.linear(1000)
    step = torch.tensor([400])
    x = schedule.noised(CLEAN, step, torch.ones_like(CLEAN))
    mean, log_variance = schedule.posterior_mean(CLEAN, x, step), schedule.posterior_log_variance(step, x)
    assert float(variational_bound(schedule, CLEAN, x, step, mean, log_variance).abs().max()) < 1e-5
    assert (variational_bound(schedule, CLEAN, x, step, mean + 0.1, log_variance) > 0).all()


def test_the_first_step_is_a_likelihood_that_prefers_the_truth() -> None:
    schedule = Schedule.linear(1000)
    step, log_variance = torch.tensor([0]), torch.full_like(CLEAN, -8.0)
    right = variational_bound(schedule, CLEAN, CLEAN, step, CLEAN, log_variance)
    wrong = variational_bound(schedule, CLEAN, CLEAN, step, CLEAN + 0.05, log_variance)
    assert (right[:, :1] < wrong[:, :1]).all()

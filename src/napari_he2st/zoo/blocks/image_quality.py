"""How alike two images are, as a loss and as papers on dense maps score it."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

WINDOW = 7
_SIGMA = 1.5


def structural_similarity(
    predicted: Tensor,
    measured: Tensor,
    *,
    data_range: Tensor | float,
    window: Literal["uniform", "gaussian"] = "uniform",
    k: tuple[float, float] = (0.01, 0.03),
) -> Tensor:
    """Structural similarity (Wang et al. 2004), mean over windows of 7 × 7 pixels that lie wholly inside, per image.

    Parameters
    ----------
    predicted, measured
        Images, shape (…, height, width).
    data_range
        Largest possible difference of two pixels; 0 counts as 1.
    window
        ``"uniform"`` with sample covariances, scikit-image's form; ``"gaussian"`` of deviation 1.5 with
        population covariances, the form of losses.
    k
        The formula's two constants.

    Returns
    -------
    Tensor
        Shape (…).
    """
    weights = predicted.new_ones(WINDOW)
    if window == "gaussian":
        steps = torch.arange(WINDOW, device=predicted.device) - WINDOW // 2
        weights = torch.exp(-steps.square() / (2 * _SIGMA**2)).to(predicted.dtype)
    weights = weights / weights.sum()

    def mean(x: Tensor) -> Tensor:
        flat = x.reshape(-1, 1, *x.shape[-2:])
        return F.conv2d(F.conv2d(flat, weights.view(1, 1, -1, 1)), weights.view(1, 1, 1, -1))

    unbiased = 1.0 if window == "gaussian" else WINDOW**2 / (WINDOW**2 - 1)
    a, b = mean(predicted), mean(measured)
    variances = unbiased * (mean(predicted.square()) - a.square() + mean(measured.square()) - b.square())
    covariance = unbiased * (mean(predicted * measured) - a * b)
    span = torch.as_tensor(data_range, dtype=predicted.dtype, device=predicted.device)
    span = torch.where(span > 0, span, 1.0)
    c1, c2 = (k[0] * span) ** 2, (k[1] * span) ** 2
    luminance = (2 * a * b + c1) / (a.square() + b.square() + c1)
    return (luminance * (2 * covariance + c2) / (variances + c2)).mean((1, 2, 3)).view(predicted.shape[:-2])


def joint_range(predicted: Tensor, measured: Tensor) -> Tensor:
    """Largest minus smallest value of both."""
    return torch.maximum(predicted.max(), measured.max()) - torch.minimum(predicted.min(), measured.min())


def peak_signal_to_noise(predicted: Tensor, measured: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in dB of images of −1 … 1, or of 0 … 1 where the measured one is not below 0."""
    span = torch.where(measured.min() < 0, 2.0, 1.0)
    return 10 * torch.log10(span.square() / (predicted - measured).square().mean())

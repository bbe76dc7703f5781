"""Genes that differ inside of a domain, by regression on counts."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

_ROUNDS = 25
_STOP = float(np.finfo(np.float64).eps) ** 0.25


def domain_test(counts: NDArray, inside: NDArray[np.bool_], size_factors: Array) -> tuple[Array, Array]:
    """Log fold change inside of a domain and its probability, by a negative binomial regression for each gene.

    Dispersion and means by turns, both by maximum likelihood; Wald's test with the expected information.

    Parameters
    ----------
    counts
        Spots × genes.
    inside
        Whether a spot is in the domain.
    size_factors
        By which each spot's counts are too high; all above zero.

    Returns
    -------
    effect, p
        Shape (genes,); 0 and 1 where a gene has at most two zeros and where it cannot be fitted.
    """
    from scipy.stats import norm

    effect, p = np.zeros(counts.shape[1]), np.ones(counts.shape[1])
    design = np.column_stack([np.ones(len(counts)), inside.astype(np.float64)])
    for gene, y in enumerate(np.asarray(counts, dtype=np.float64).T):
        if (y == 0).sum() <= 2 or not y.any():
            continue
        beta, error = _regress(y, design, np.log(size_factors))
        if np.isfinite(error) and error > 0:
            effect[gene], p[gene] = beta, 2 * norm.sf(abs(beta / error))
    return effect, p


def _regress(y: Array, design: Array, offset: Array) -> tuple[float, float]:
    """Coefficient of the second column, and its standard error."""
    beta = _means(y, design, offset, np.inf, np.array([np.log(y.mean()) - offset.mean(), 0.0]))
    theta = _dispersion(y, np.exp(design @ beta + offset))
    fit_theta, previous, change = theta, -np.inf, np.inf
    for _ in range(_ROUNDS):
        fit_theta = theta
        beta = _means(y, design, offset, theta, beta)
        mu = np.exp(design @ beta + offset)
        theta = _dispersion(y, mu)
        likelihood = _log_likelihood(y, mu, theta)
        change = abs(previous - likelihood) / np.sqrt(2 * max(1, len(y) - 2)) + abs(fit_theta - theta)
        if change <= 1e-8:
            break
        previous = likelihood
    mu = np.exp(design @ beta + offset)
    weight = mu / (1 + mu / fit_theta)
    information = (design.T * weight) @ design
    try:
        error = float(np.sqrt(np.linalg.inv(information)[1, 1]))
    except np.linalg.LinAlgError:
        error = float("nan")
    return float(beta[1]), error


def _means(y: Array, design: Array, offset: Array, theta: float, beta: Array) -> Array:
    """Coefficients at a fixed dispersion, by reweighted least squares."""
    for _ in range(_ROUNDS):
        eta = np.clip(design @ beta + offset, -30, 30)
        mu = np.exp(eta)
        weight = mu / (1 + mu / theta)
        working = eta - offset + (y - mu) / mu
        solved = np.linalg.lstsq((design.T * weight) @ design, design.T @ (weight * working), rcond=None)
        new = np.asarray(solved[0], dtype=np.float64)
        if np.abs(new - beta).max() < 1e-10:
            return new
        beta = new
    return beta


def _dispersion(y: Array, mu: Array) -> float:
    """Theta by Newton's method, from the moment estimate on."""
    from scipy.special import digamma, polygamma

    theta = len(y) / float(((y / mu - 1) ** 2).sum())
    for _ in range(_ROUNDS):
        theta = abs(theta)
        score = (
            digamma(theta + y) - digamma(theta) + np.log(theta) + 1 - np.log(theta + mu) - (y + theta) / (mu + theta)
        )
        second = -polygamma(1, theta + y) + polygamma(1, theta) - 1 / theta + 2 / (mu + theta)
        second -= (y + theta) / (mu + theta) ** 2
        step = float(score.sum() / second.sum())
        theta += step
        if abs(step) <= _STOP:
            break
    return max(theta, 1e-6)


def _log_likelihood(y: Array, mu: Array, theta: float) -> float:
    from scipy.special import gammaln

    terms = gammaln(theta + y) - gammaln(theta) - gammaln(y + 1) + theta * np.log(theta)
    terms += y * np.log(np.where(y > 0, mu, 1)) - (theta + y) * np.log(theta + mu)
    return float(terms.sum())

"""P(best): how probable it is that each of several policies is the best of them, from their joint estimates.

Estimates on one log share its luck, so their errors hang together; the joint distribution keeps what cancels. With a
flat prior, P(best) is the share of draws of N(estimates, covariance) in which a policy comes first; it takes every
difference at its face value, and is too sure where the policies are closer together than their errors (the winner of
many is partly lucky). With an exchangeable prior the policies' true values are themselves spread around a common mean,
by an amount that the estimates tell; that shrinks them towards each other by as much as the log supports.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

import numpy as np

from bart.types import Floats

Prior: TypeAlias = Literal["flat", "exchangeable"]

DRAWS = 20_000  # leaves P(best) an error of at most .0035
SPREADS = 30  # values of the prior's spread that are averaged over
_TIE = 1e-9


def probability_best(draw: Floats) -> Floats:
    """[p] share of the draws [m, p] in which each policy comes first; ties share."""
    top = draw.max(axis=1, keepdims=True)
    first = draw >= top - _TIE * np.maximum(np.abs(top), 1e-300)
    out: Floats = (first / first.sum(axis=1, keepdims=True)).mean(axis=0)
    return out


def draw_values(
    value: Floats, covariance: Floats, rng: np.random.Generator, prior: Prior = "flat", draws: int = DRAWS
) -> Floats:
    """[draws, p] true values that fit the estimates value [p] with error covariance [p, p]."""
    if prior == "flat":
        return _normal(value, covariance, draws, rng)
    if prior != "exchangeable":
        raise ValueError(f"prior is {prior!r}; expected flat or exchangeable")
    if len(value) < 2 or (np.ptp(value) == 0 and np.ptp(covariance) == 0):  # one policy, perhaps by several names
        return _normal(value, covariance, draws, rng)
    spread, weight = _spreads(value, covariance)
    count = rng.multinomial(draws, weight)
    parts = [
        _normal(*_posterior(value, covariance, tau), n, rng) for tau, n in zip(spread, count, strict=True) if n > 0
    ]
    return np.concatenate(parts)


def _spreads(value: Floats, covariance: Floats) -> tuple[Floats, Floats]:
    """Spreads of the true values and how probable each is, all being as likely before the log was seen.

    The likelihood is that of the estimates' differences, so that their common level does not enter.
    """
    p = len(value)
    contrast = np.eye(p)[1:] - np.eye(p)[:1]
    noise = contrast @ covariance @ contrast.T
    size = float(np.sqrt(max(np.median(np.diag(noise)), 0.0)))
    scale = max(size, float(np.ptp(value)), 1e-300)
    tau = scale * np.linspace(0.0, 5.0, SPREADS + 1)[1:]
    between = contrast @ contrast.T
    difference = contrast @ value
    score = np.empty(len(tau))
    for i, t in enumerate(tau):
        total = noise + t**2 * between
        sign, log_det = np.linalg.slogdet(total)
        fit = difference @ np.linalg.solve(total, difference)
        score[i] = -0.5 * (log_det + fit) if sign > 0 else -np.inf
    weight = np.exp(score - score.max())
    return tau, weight / weight.sum()


def _posterior(value: Floats, covariance: Floats, tau: float) -> tuple[Floats, Floats]:
    """Mean and covariance of the true values, given their spread around an unknown common mean."""
    total = covariance + tau**2 * np.eye(len(value))
    inverse = np.linalg.inv(total)
    one = np.ones(len(value))
    level = (one @ inverse @ value) / (one @ inverse @ one)
    projected = inverse - np.outer(inverse @ one, inverse @ one) / (one @ inverse @ one)
    return value - covariance @ inverse @ (value - level), covariance - covariance @ projected @ covariance


def _normal(mean: Floats, covariance: Floats, draws: int, rng: np.random.Generator) -> Floats:
    # Identical policies make the covariance singular, which a spectral root takes and a Cholesky one refuses.
    size, direction = np.linalg.eigh((covariance + covariance.T) / 2)
    root = direction * np.sqrt(np.where(size > 1e-12 * size.max(initial=0.0), size, 0.0))
    out: Floats = mean + rng.standard_normal((draws, len(mean))) @ root.T
    return out

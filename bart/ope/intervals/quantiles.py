"""Quantiles and tails of the laws that intervals and tests refer to.

From scipy.special, loaded at the first use: `scipy.stats` takes longer to load than most evaluations take to compute.
"""

from __future__ import annotations


def normal_quantile(p: float) -> float:
    """Where the standard normal law has probability p below it."""
    from scipy.special import ndtri

    return float(ndtri(p))


def normal_tail(x: float) -> float:
    """Probability of the standard normal law above x."""
    from scipy.special import ndtr

    return float(ndtr(-x))


def student_quantile(p: float, freedom: float) -> float:
    """Where Student's law with so many degrees of freedom (> 0) has probability p below it."""
    from scipy.special import stdtrit

    return float(stdtrit(freedom, p))


def student_tail(x: float, freedom: float) -> float:
    """Probability of Student's law above x."""
    from scipy.special import stdtr

    return float(stdtr(freedom, -x))


def beta_quantile(p: float, a: float, b: float) -> float:
    """Where the beta law with shapes a, b (> 0) has probability p below it, in [0, 1]."""
    from scipy.special import betaincinv

    return float(betaincinv(a, b, p))


def chi_square_tail(x: float, freedom: float) -> float:
    """Probability of the chi-square law above x >= 0."""
    from scipy.special import chdtrc

    return float(chdtrc(freedom, x))


def variance_ratio_tail(x: float, above: float, below: float) -> float:
    """Probability of Fisher's law with so many degrees of freedom above and below the line beyond x >= 0."""
    from scipy.special import fdtrc

    return float(fdtrc(above, below, x))

"""Estimators for single choices: each is one function from a `LoggedChoices` to `Terms`, and one line in `ESTIMATORS`.

In all of them w = target / logging probability of the logged action. The definitions are those of the Open Bandit
Pipeline (Saito et al., 2021) except where the docstring says so.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from bart.ope.records.choices import LoggedChoices, Numbers
from bart.ope.records.terms import Terms, reward_limits
from bart.ope.weights.choices import choice_weight, choice_weight_limits, cluster_weight, cluster_weight_limits
from bart.types import Floats, Ints

Estimator: TypeAlias = Callable[..., Terms]


def dm(data: LoggedChoices) -> Terms:
    """The direct method: the model's value of the evaluation policy.

    Assumes that q_hat is right. No weights, so no interval can show its bias.
    """
    base, _ = _model(data)
    zero = np.broadcast_to(np.float64(0), len(data))
    return Terms(base, zero, zero, residual_limits=(0.0, 0.0), base_limits=_limits(base))


def ips(data: LoggedChoices) -> Terms:
    """Inverse propensity scoring: mean of w r. Unbiased when propensities are right and support is full."""
    return _weighted(data, choice_weight(data))


def snips(data: LoggedChoices) -> Terms:
    """Self-normalised: sum of w r over sum of w. Consistent; less variance, equal to c for a constant reward c.

    Source: Swaminathan and Joachims (2015).
    """
    return _weighted(data, choice_weight(data), normalised=True)


def clipped_ips(data: LoggedChoices, cap: float) -> Terms:
    """Mean of min(w, cap) r. Biased towards 0 by what the cap takes away; plain IPS for an infinite cap."""
    return _weighted(data, np.minimum(choice_weight(data), _positive("cap", cap)), shrunk=True)


def ncis(data: LoggedChoices, cap: float) -> Terms:
    """Normalised capped: sum of min(w, cap) r over sum of min(w, cap). Biased by the cap.

    Source: Gilotte et al. (2018).
    """
    return _weighted(data, np.minimum(choice_weight(data), _positive("cap", cap)), normalised=True, shrunk=True)


def dr(data: LoggedChoices) -> Terms:
    """Doubly robust: the model's value, corrected by w (r - q_hat). Unbiased when propensities or q_hat are right.

    q_hat must not have seen the row's own reward (see `reward_regression`). Source: Dudik et al. (2014).
    """
    return _corrected(data, choice_weight(data))


def sndr(data: LoggedChoices) -> Terms:
    """Doubly robust with the correction's weights divided by their sum."""
    return _corrected(data, choice_weight(data), normalised=True)


def switch_dr(data: LoggedChoices, tau: float) -> Terms:
    """Doubly robust that corrects only where w <= tau, and trusts the model elsewhere.

    Biased by the model's error where w > tau. tau = 0 is the direct method, infinite tau is DR. Source: Wang et al.
    (2017).
    """
    weight = choice_weight(data)
    return _corrected(data, np.where(weight <= _positive("tau", tau, zero=True), weight, 0.0), shrunk=True)


def dros(data: LoggedChoices, lam: float) -> Terms:
    """Doubly robust with optimistic shrinkage: w becomes w lam / (w^2 + lam). lam = 0: DM; infinite: DR.

    Source: Su et al. (2020).
    """
    lam = _positive("lam", lam, zero=True)
    weight = choice_weight(data)
    if np.isinf(lam):
        shrunk = weight
    elif lam == 0:
        shrunk = np.zeros_like(weight)
    else:
        shrunk = weight * lam / (weight * weight + lam)
    return _corrected(data, shrunk, shrunk=True)


def sg_ips(data: LoggedChoices, lam: float) -> Terms:
    """IPS with sub-Gaussian shrinkage: w becomes w / (1 - lam + lam w). lam = 0 is plain IPS, lam = 1 the log's mean.

    Source: Metelli et al. (2021).
    """
    return _weighted(data, _sub_gaussian(choice_weight(data), lam), shrunk=True)


def sg_dr(data: LoggedChoices, lam: float) -> Terms:
    """DR with sub-Gaussian shrinkage of w, as in `sg_ips`."""
    return _corrected(data, _sub_gaussian(choice_weight(data), lam), shrunk=True)


def mrdr(
    data: LoggedChoices,
    context: Floats,
    rng: np.random.Generator,
    *,
    folds: int = 5,
    user: NDArray[Any] | None = None,
    regressor: Callable[[], Any] | None = None,
) -> Terms:
    """More robust DR: DR with a q_hat fitted, out of fold, to make the correction's variance small.

    context: [n, d]. regressor makes a scikit-learn style regressor; a ridge on context, action and both crossed where
    None. Any q_hat of `data` is not used. Unbiased like DR. Source: Farajtabar et al. (2018), with their weights for a
    deterministic policy times the evaluation policy's probability of the logged action, as the peer has it.
    """
    from bart.ope.models.reward_regression import cross_fit

    weighting = data.target_propensity() * (1 - data.propensity) / data.propensity**2
    q_hat = cross_fit(
        context,
        data.action,
        data.reward,
        data.n_actions,
        rng,
        folds=folds,
        user=user,
        position=data.position,
        sample_weight=weighting,
        regressor=regressor,
    )
    return dr(
        LoggedChoices(data.reward, data.action, data.propensity, data.target_pmf, q_hat=q_hat, position=data.position)
    )


def mips(data: LoggedChoices, embedding: Ints, logging_pmf: Floats | None = None) -> Terms:
    """Marginalised IPS: weights between the probabilities of the action's embedding instead of the action.

    embedding: [k] int, a category of each action, or [k, d] ints, a category in each of d dimensions (actions alike in
    all of them share weights). logging_pmf: [n, k]; needed because the logged propensity alone does not tell the
    probability of the other actions of that category. Unbiased when the embedding carries the whole effect of the
    action on the reward. Distinct embeddings for all actions: plain IPS. Source: Saito and Joachims (2022).
    """
    note = "holds where the embedding carries the whole effect of the action: the interval cannot show otherwise"
    return _by_category(_weighted, data, "embedding", embedding, logging_pmf, "mips", note)


def offcem(data: LoggedChoices, cluster: Ints, logging_pmf: Floats | None = None) -> Terms:
    """Off-policy evaluation by the conjunct effect model: the model's value, corrected with cluster weights.

    cluster: [k] int. logging_pmf: [n, k]. Unbiased when q_hat gets the differences between actions of a cluster right
    (local correctness). One cluster an action: DR. Source: Saito, Ren and Joachims (2023).
    """
    note = "holds where q_hat gets differences within a cluster right: the interval cannot show otherwise"
    return _by_category(_corrected, data, "cluster", cluster, logging_pmf, "offcem", note)


# The estimators that help and reports show first come first; the rest are for experts.
ESTIMATORS: Mapping[str, Estimator] = {
    "ips": ips,
    "snips": snips,
    "dm": dm,
    "dr": dr,
    "sndr": sndr,
    "clipped_ips": clipped_ips,
    "ncis": ncis,
    "switch_dr": switch_dr,
    "dros": dros,
    "sg_ips": sg_ips,
    "sg_dr": sg_dr,
    "mrdr": mrdr,
    "mips": mips,
    "offcem": offcem,
}
RECOMMENDED = ("snips", "dr", "ips", "dm")


def _weighted(
    data: LoggedChoices,
    weight: Floats,
    *,
    normalised: bool = False,
    shrunk: bool = False,
    limits: tuple[float, float] | None = None,
) -> Terms:
    return Terms(
        np.broadcast_to(np.float64(0), len(data)),
        weight,
        data.reward,
        normalised=normalised,
        control=choice_weight(data) if shrunk else weight,
        shrunk=shrunk,
        weight_limits=limits or choice_weight_limits(data),
        residual_limits=reward_limits(*_limits(data.reward)),
    )


def _corrected(
    data: LoggedChoices,
    weight: Floats,
    *,
    normalised: bool = False,
    shrunk: bool = False,
    limits: tuple[float, float] | None = None,
) -> Terms:
    base, logged = _model(data)
    low, high = reward_limits(*_limits(data.reward))
    least, most = _limits(logged)
    return Terms(
        base,
        weight,
        data.reward - logged,
        normalised=normalised,
        control=choice_weight(data) if shrunk else weight,
        shrunk=shrunk,
        weight_limits=limits or choice_weight_limits(data),
        residual_limits=(low - most, high - least),
        base_limits=_limits(base),
    )


def _by_category(
    kind: Estimator, data: LoggedChoices, what: str, value: Ints, logging_pmf: Floats | None, name: str, note: str
) -> Terms:
    """Terms with weights between categories of actions. note: what is assumed, where a category holds several."""
    category, n_categories = _categories(what, value, data.n_actions)
    pmf = _logging_pmf(data, logging_pmf, name)
    weight = cluster_weight(data, category, n_categories, pmf)
    terms = kind(data, weight, limits=cluster_weight_limits(data, category, n_categories, pmf))
    return terms if n_categories == data.n_actions else replace(terms, warnings=(note,))


def _model(data: LoggedChoices) -> tuple[Floats, Floats]:
    """The model's value of the evaluation policy [n] and its prediction for the logged action [n]."""
    q_hat: Numbers | None = data.q_hat
    if q_hat is None:
        raise ValueError(
            "data.q_hat is None; expected [n, k] predicted rewards (bart.ope.models.reward_regression.cross_fit)"
        )
    base = np.einsum("ij,ij->i", data.pmf(), q_hat, dtype=np.float64)
    return base, q_hat[np.arange(len(data)), data.action].astype(np.float64)


def _sub_gaussian(weight: Floats, lam: float) -> Floats:
    if not 0 <= lam <= 1:
        raise ValueError(f"lam is {lam}; expected a number in [0, 1]")
    return np.asarray(weight / (1 - lam + lam * weight)) if lam < 1 else np.ones_like(weight)


def _positive(name: str, value: float, *, zero: bool = False) -> float:
    if not (value > 0 or (zero and value == 0)):
        raise ValueError(f"{name} is {value}; expected a number {'>= 0' if zero else '> 0'}")
    return float(value)


def _limits(array: Floats) -> tuple[float, float]:
    return float(array.min()), float(array.max())


def _categories(name: str, value: Ints, k: int) -> tuple[Ints, int]:
    array = np.asarray(value)
    if array.shape[:1] != (k,) or array.ndim > 2 or array.dtype.kind not in "iu":
        raise ValueError(f"{name} has shape {array.shape} and type {array.dtype}; expected integers [{k}] or [{k}, d]")
    distinct, category = np.unique(array, axis=0, return_inverse=True)
    return category.reshape(-1).astype(np.int64), len(distinct)


def _logging_pmf(data: LoggedChoices, pmf: Floats | None, name: str) -> Floats:
    if pmf is None:
        raise ValueError(f"{name} needs logging_pmf [n, k], the logging policy's probability of every action")
    array = np.asarray(pmf, dtype=np.float64)
    if array.shape != (len(data), data.n_actions):
        raise ValueError(f"logging_pmf has shape {array.shape}; expected ({len(data)}, {data.n_actions})")
    logged = array[np.arange(len(data)), data.action]
    off = np.abs(logged - data.propensity) > 1e-6
    if off.any():
        i = int(np.flatnonzero(off)[0])
        raise ValueError(
            f"logging_pmf[{i}, {data.action[i]}] is {logged[i]}; expected the logged propensity {data.propensity[i]}"
        )
    return array

"""Estimators for logged slates: each is one function from a `LoggedSlates` to `Terms`, and one line in the table.

The value is the sum of rewards over a slate's positions, averaged over slates. What differs is the assumption on what
moves the reward at a position: the whole slate, the items down to it, or the item alone. The weaker the assumption, the
larger the weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bart.ope.estimators.choices import Estimator
from bart.ope.estimators.conclude import finish, run
from bart.ope.intervals.choices import Setting
from bart.ope.records.choices import LoggedSlates
from bart.ope.records.estimate import Estimate
from bart.ope.records.terms import Terms
from bart.ope.verdict.choices import diagnose_weights, worse
from bart.ope.verdict.order import judge_rows
from bart.ope.weights.choices import importance_weight, other_weight_limits
from bart.types import Floats, Ints

BEHAVIOURS = ("independent", "cascade", "standard")  # of adaptive_ips, by code


def slate_ips(data: LoggedSlates) -> Terms:
    """Joint IPS: weight of the whole slate. No assumption on behaviour; weights grow exponentially with positions."""
    return _plain(data, _slate_weight(data), data.reward.sum(axis=1))


def slate_snips(data: LoggedSlates) -> Terms:
    """Joint IPS with weights divided by their sum."""
    return _plain(data, _slate_weight(data), data.reward.sum(axis=1), normalised=True)


def independent_ips(data: LoggedSlates) -> Terms:
    """IIPS: the item at a position alone moves its reward. Source: Li et al. (2018), item-position click model."""
    return _plain(data, _marginal_weight(data), data.reward)


def sn_independent_ips(data: LoggedSlates) -> Terms:
    """IIPS with weights divided by their sum, position by position."""
    return _plain(data, _marginal_weight(data), data.reward, normalised=True)


def page_ncis(data: LoggedSlates, cap: float = 20.0) -> Terms:
    """Normalised capped: sn_independent_ips with weights of at most `cap`; biased by the cap, to either side.

    Source: Gilotte et al. (2018).
    """
    if not cap > 0:
        raise ValueError(f"cap is {cap}; expected a number > 0")
    plain = _marginal_weight(data)
    terms = _plain(data, np.minimum(plain, cap), data.reward, normalised=True)
    if not (plain > cap).any():
        return terms
    return replace(terms, control=plain.mean(axis=1), shrunk=True)


def cascade_ips(data: LoggedSlates) -> Terms:
    """RIPS: the items down to a position move its reward. Source: McInerney et al. (2020)."""
    return _plain(data, _cascade_weight(data), data.reward)


def sn_cascade_ips(data: LoggedSlates) -> Terms:
    """RIPS with weights divided by their sum, position by position."""
    return _plain(data, _cascade_weight(data), data.reward, normalised=True)


def cascade_dr(data: LoggedSlates, q_hat: Floats, q_target: Floats) -> Terms:
    """Cascade doubly robust: RIPS with a model of the reward still to come as its base at every position.

    q_hat: [n, m], predicted sum of rewards from this position on, given the items down to it as logged. q_target:
    [n, m], the same averaged over the evaluation policy's choice at this position, items above it as logged.
    Unbiased under the cascade assumption; q_hat 0 is RIPS. Source: Kiyohara et al. (2022).
    """
    weight = _cascade_weight(data)
    q_hat, q_target = _model("q_hat", q_hat, data), _model("q_target", q_target, data)
    above = np.concatenate([np.ones((len(data), 1)), weight[:, :-1]], axis=1)
    # Position l adds w_{l-1} q_target_l + w_l (r_l - q_hat_l): what stands above l weighs the next base.
    base = (above * q_target).sum(axis=1)
    residual = data.reward - q_hat
    return Terms(
        base,
        weight,
        residual,
        control=weight[:, -1],
        weight_limits=_limits(data, weight),
        residual_limits=(float(residual.min()), float(residual.max())),
        base_limits=(float(base.min()), float(base.max())),
    )


def pseudo_inverse(data: LoggedSlates) -> Terms:
    """PI: the reward is a sum over positions of an unknown effect of the item there (any item may move any reward).

    The slate's reward is weighed by 1 - m + sum over positions of marginal weights: exact where the logging policy
    draws positions independently, an approximation for rankings without replacement. One position: plain IPS.
    Source: Swaminathan et al. (2017), section 3, for product policies.
    """
    weight = 1 - data.n_positions + _marginal_weight(data).sum(axis=1)
    return _plain(data, weight, data.reward.sum(axis=1))


def adaptive_ips(data: LoggedSlates, behaviour: Ints) -> Terms:
    """AIPS: each slate weighed by the behaviour of the user who saw it.

    behaviour: [n] or [n, m] int, 0 independent (the item at the position alone), 1 cascade (the items down to it),
    2 standard (the whole slate). Unbiased when the behaviours are right; variance no larger than that of the weakest
    assumption they hold. Source: Kiyohara et al. (2023).
    """
    code = np.asarray(behaviour)
    n, m = data.reward.shape
    if code.shape not in ((n,), (n, m)) or code.dtype.kind not in "iu":
        raise ValueError(f"behaviour has shape {code.shape} and type {code.dtype}; expected integers ({n},) or {n, m}")
    if code.min() < 0 or code.max() > 2:
        raise ValueError(
            f"behaviour lies in [{code.min()}, {code.max()}]; expected 0, 1 or 2 ({', '.join(BEHAVIOURS)})"
        )
    code = code[:, None] if code.ndim == 1 else code
    slate = np.broadcast_to(_slate_weight(data)[:, None], (n, m))
    weight = np.where(code == 0, _marginal_weight(data), np.where(code == 1, _cascade_weight(data), slate))
    return _plain(data, weight, data.reward)


SLATE_ESTIMATORS: Mapping[str, Estimator] = {
    "slate_ips": slate_ips,
    "slate_snips": slate_snips,
    "independent_ips": independent_ips,
    "sn_independent_ips": sn_independent_ips,
    "page_ncis": page_ncis,
    "cascade_ips": cascade_ips,
    "sn_cascade_ips": sn_cascade_ips,
    "cascade_dr": cascade_dr,
    "pseudo_inverse": pseudo_inverse,
    "adaptive_ips": adaptive_ips,
}


def estimate_slates(
    name: str,
    data: LoggedSlates,
    interval: str | None,
    level: float,
    rng: np.random.Generator | None,
    *,
    reward_range: tuple[float, float] | None = None,
    replicates: int = 1_000,
    user: NDArray[Any] | None = None,
    **parameters: Any,
) -> Estimate:
    """The `Estimate` of one estimator of `SLATE_ESTIMATORS`; see `bart.ope.estimate`.

    reward_range: least and largest possible reward of one position; [0, 1] where None and rewards lie in it. user: of
    intervals, that of the record where None.
    """
    terms = run(name, SLATE_ESTIMATORS, data, parameters)
    seen = float(data.reward.min()), float(data.reward.max())
    low, high = reward_range or (min(seen[0], 0.0), 1.0 if seen[0] >= 0 and seen[1] <= 1 else seen[1])
    if not low <= seen[0] or not high >= seen[1]:
        raise ValueError(f"reward_range is ({low}, {high}); expected to hold the rewards seen, {seen}")
    if terms.shrunk and interval == "empirical_likelihood":
        raise ValueError(f"weights of {name} are capped slot by slot; expected another interval, e.g. studentised")
    m = data.n_positions
    user = data.user if user is None else user
    setting = Setting(level, (m * low, m * high), rng, replicates, user)
    control, total = terms.control if terms.control is not None else np.ones(len(data)), data.reward.sum(axis=1)
    diagnostics = diagnose_weights(control, total)
    lowered, why = judge_rows(total, total - total.mean(), user)
    diagnostics = replace(
        diagnostics, verdict=worse(diagnostics.verdict, lowered), reasons=(*diagnostics.reasons, *why)
    )
    if interval is None and (name in ("pseudo_inverse", "cascade_dr") or terms.shrunk):
        # Weights below 0, capped slot by slot, or a base that was weighed itself: the likelihood's corners are unknown.
        interval = "studentised" if rng is not None else "student"
    return finish(name, terms, interval, setting, diagnostics, diagnostics.verdict)


def _slate_weight(data: LoggedSlates) -> Floats:
    return importance_weight(data.target_slate, data.slate_propensity)


def _marginal_weight(data: LoggedSlates) -> Floats:
    return importance_weight(data.target_marginal, data.marginal_propensity)


def _cascade_weight(data: LoggedSlates) -> Floats:
    return importance_weight(data.target_cascade, data.cascade_propensity)


def _plain(data: LoggedSlates, weight: Floats, reward: Floats, *, normalised: bool = False) -> Terms:
    m = data.n_positions
    low, high = float(data.reward.min()), float(data.reward.max())
    unit = low >= 0 and high <= 1
    scale = m if reward.ndim == 1 else 1
    return Terms(
        np.zeros(len(data)),
        weight,
        reward,
        normalised=normalised,
        # The mean over positions averages 1 as well, and bounds the slate's contribution: sum w r <= m mean(w) max(r).
        control=weight if weight.ndim == 1 else np.asarray(weight.mean(axis=1)),
        weight_limits=_limits(data, weight),
        residual_limits=(scale * min(low, 0.0), scale * (1.0 if unit else high)),
    )


def _limits(data: LoggedSlates, weight: Floats) -> tuple[float, float]:
    """Of the weights that were seen; what was not shown weighs on average as much as `other_weight_limits` says."""
    other = other_weight_limits(data.target_slate, data.slate_propensity)[1]
    return min(0.0, float(weight.min())), max(float(weight.max()), other)


def _model(name: str, value: Floats, data: LoggedSlates) -> Floats:
    array = np.asarray(value, dtype=np.float64)
    if array.shape != data.reward.shape or not np.isfinite(array).all():
        raise ValueError(f"{name} has shape {array.shape}; expected {data.reward.shape}, all finite")
    return array

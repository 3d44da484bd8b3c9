"""Many policies on one log: paired differences with intervals, P(best), and control of false discoveries.

All policies are estimated on the same rows, so their errors hang together and a difference is known far better than
either value. Everything here reads the influence of each row (or page) on each estimate: `select_choices` makes it from
records of single choices, `select_pages` from the spreads of page estimators, `select` takes it as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from bart.ope.comparison.best import Prior, draw_values, probability_best
from bart.ope.comparison.false_discovery import adjusted
from bart.ope.intervals.clusters import freedom_of_tails
from bart.ope.intervals.pages import Spread, replicates
from bart.ope.intervals.quantiles import normal_quantile, student_quantile, student_tail
from bart.ope.records.estimate import Verdict
from bart.ope.verdict.choices import worse
from bart.ope.verdict.pages import PAGE_GATES
from bart.types import Floats

Decision: TypeAlias = Literal["better", "worse", "undecided", "unusable"]
PairInterval: TypeAlias = Callable[[int, int], "tuple[float, float, float]"]  # lower, upper, p-value


@dataclass(frozen=True, slots=True)
class Difference:
    """How much more a decision earns under `policy` than under `against`, on the same rows.

    lower, upper: interval at the selection's level. p_value: of no difference, two-sided. adjusted_p: for the number of
    comparisons with the baseline, in the table of all pairs for the number of pairs. decision: "better" or "worse"
    where the adjusted p-value tells them apart, "unusable" where the log cannot support one of the two estimates.
    """

    policy: str
    against: str
    value: float
    lower: float
    upper: float
    standard_error: float
    p_value: float
    adjusted_p: float
    decision: Decision


@dataclass(frozen=True, slots=True, eq=False)
class Selection:
    """Policies of one log against each other.

    names [p], value [p], standard_error [p], verdict [p]; p_best [p]: probability to be the best of those with a usable
    estimate (None for the others). covariance: [p, p] of the estimates' errors. versus_baseline: every other policy
    minus `baseline`. pairwise: every pair, the first named minus the later. clusters: rows or listeners that are taken
    as independent.
    """

    names: tuple[str, ...]
    value: tuple[float, ...]
    standard_error: tuple[float, ...]
    verdict: tuple[Verdict, ...]
    p_best: tuple[float | None, ...]
    baseline: str
    versus_baseline: tuple[Difference, ...]
    pairwise: tuple[Difference, ...]
    covariance: Floats
    level: float
    false_discovery: float
    adjustment: str
    prior: Prior
    n: int
    clusters: int
    warnings: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Plain values for a report."""
        columns = zip(self.names, self.value, self.standard_error, self.verdict, self.p_best, strict=True)
        alike = ("baseline", "level", "false_discovery", "adjustment", "prior", "n", "clusters")
        return {
            **{name: getattr(self, name) for name in alike},
            "warnings": list(self.warnings),
            "policies": [
                {"name": name, "value": value, "standard_error": error, "verdict": verdict, "p_best": best}
                for name, value, error, verdict, best in columns
            ],
            "versus_baseline": [asdict(d) for d in self.versus_baseline],
            "pairwise": [asdict(d) for d in self.pairwise],
        }


def select(
    names: Sequence[str],
    value: Floats,
    influence: Floats,
    rng: np.random.Generator,
    *,
    user: NDArray[Any] | None = None,
    baseline: str | None = None,
    verdicts: Sequence[Verdict] | None = None,
    level: float = 0.95,
    false_discovery: float = 0.05,
    adjustment: str = "benjamini_hochberg",
    prior: Prior = "exchangeable",
    draw: Floats | None = None,
    pair_interval: PairInterval | None = None,
    bias: Floats | None = None,
    warnings: Sequence[str] = (),
    rows: int | None = None,
) -> Selection:
    """The comparison of p policies from their estimates and the influence of each row on each of them.

    names [p], value [p]. influence: [n, p], mean 0, so that influence.mean(0) is each estimate's error to first order.
    user: [n], rows of one user hang together. baseline: a name, the first where None. verdicts: [p], "conclusive" where
    None. prior: of P(best), see `bart.ope.comparison.best`. draw: [m, p] joint replicates to read it from instead.
    pair_interval: (lower, upper, p-value) of policy i minus policy j, instead of Student's by influence. bias: [p, p]
    covariance of biases to allow for beside the estimates' errors.
    rows: how many there are, where each entry of influence is the sum of a user's.
    Raises ValueError for a repeated name, another shape or an unknown baseline.
    """
    names = [str(name) for name in names]
    p = len(names)
    value, influence = np.asarray(value, dtype=np.float64), np.asarray(influence, dtype=np.float64)
    if p < 1 or len(set(names)) < p:
        raise ValueError(f"names are {names}; expected at least one, all different")
    if value.shape != (p,) or influence.ndim != 2 or influence.shape[1] != p or not len(influence):
        raise ValueError(f"value {value.shape} and influence {influence.shape} do not fit {p} names; expected [n, {p}]")
    if not (np.isfinite(value).all() and np.isfinite(influence).all()):
        raise ValueError("value or influence is not finite; expected numbers")
    if not (0 < level < 1 and 0 < false_discovery < 1):
        raise ValueError(f"level is {level}, false_discovery {false_discovery}; expected numbers in (0, 1)")
    reference = names[0] if baseline is None else baseline
    if reference not in names:
        raise ValueError(f"baseline is {reference!r}; expected one of {', '.join(names)}")
    judged: list[Verdict] = ["conclusive"] * p if verdicts is None else list(verdicts)
    n = len(influence) if rows is None else rows
    sums = influence if user is None else _sums(influence, user)
    biases = np.zeros((p, p)) if bias is None else np.asarray(bias, dtype=np.float64)
    covariance = _covariance(sums, n) + biases

    def by_influence(i: int, j: int) -> tuple[float, float, float]:
        allowed = float(biases[i, i] + biases[j, j] - 2 * biases[i, j])
        return student_difference(value[i] - value[j], sums[:, i] - sums[:, j], n, level, allowed)

    pair = pair_interval or by_influence

    def difference(i: int, j: int) -> Difference:
        lower, upper, p_value = pair(i, j)
        error = float(np.sqrt(max(covariance[i, i] + covariance[j, j] - 2 * covariance[i, j], 0.0)))
        gap = float(value[i] - value[j])
        decision = _decision(gap, lower > 0 or upper < 0, worse(judged[i], judged[j]))
        return Difference(names[i], names[j], gap, lower, upper, error, p_value, p_value, decision)

    base = names.index(reference)

    def corrected(found: list[Difference]) -> tuple[Difference, ...]:
        values = adjusted(np.array([d.p_value for d in found]), adjustment)
        of = dict(zip(names, judged, strict=True))
        return tuple(
            _with_adjusted(d, float(q), float(q) <= false_discovery, of[d.policy], of[d.against])
            for d, q in zip(found, values, strict=True)
        )

    pairwise = corrected([difference(i, j) for i in range(p) for j in range(i + 1, p)])
    versus = corrected([difference(i, base) for i in range(p) if i != base])
    usable = np.array([verdict != "unusable" for verdict in judged])
    best: list[float | None] = [None] * p
    if usable.any() and len(sums) > 1:
        if draw is None:
            drawn = draw_values(value[usable], covariance[np.ix_(usable, usable)], rng, prior)
        else:
            drawn = np.asarray(draw)[:, usable]
        for i, share in zip(np.flatnonzero(usable), probability_best(drawn), strict=True):
            best[int(i)] = float(share)
    notes = list(warnings)
    if len(sums) < 2:
        notes.append("all rows are of one user: nothing can be said of the estimates' errors")
    if not usable.all():
        left = ", ".join(name for name, ok in zip(names, usable, strict=True) if not ok)
        notes.append(f"left out of P(best), since the log cannot support their estimates: {left}")
    return Selection(
        names=tuple(names),
        value=tuple(value.tolist()),
        standard_error=tuple(np.sqrt(np.maximum(np.diag(covariance), 0.0)).tolist()),
        verdict=tuple(judged),
        p_best=tuple(best),
        baseline=reference,
        versus_baseline=versus,
        pairwise=pairwise,
        covariance=covariance,
        level=level,
        false_discovery=false_discovery,
        adjustment=adjustment,
        prior=prior,
        n=n,
        clusters=len(sums),
        warnings=tuple(notes),
    )


def select_pages(
    spreads: Mapping[str, Spread],
    rng: np.random.Generator,
    *,
    verdicts: Mapping[str, Verdict] | None = None,
    bootstrap: int = 2_000,
    prior: Prior = "exchangeable",
    beyond: Mapping[str, Spread] | None = None,
    **options: Any,
) -> Selection:
    """Page policies by the spreads of one estimator on one log, clustered by listener.

    beyond: of each policy, what a cap on its weights leaves out; differences allow for the bias by it as values do.

    prior: with "flat", P(best) is the share of joint bootstrap replicates (one set of Poisson counts of listeners for
    all policies) in which a policy comes first; with "exchangeable" it comes from their joint covariance, and policies
    that are as close as their errors are not called best too readily (`bart.ope.comparison.best`). options: of
    `select`. Raises ValueError where the spreads are of different pages.
    """
    names, parts = tuple(spreads), list(spreads.values())
    draw = replicates(parts, rng, bootstrap)  # also checks that the pages are the same
    bias = None
    if beyond is not None:
        left = np.stack([beyond[name].influence for name in names], axis=1)
        bias = PAGE_GATES.cap_allowance**2 * _covariance(_sums(left, parts[0].user), len(parts[0]))
    return select(
        names,
        np.array([part.value for part in parts]),
        np.stack([part.influence for part in parts], axis=1),
        rng,
        user=parts[0].user,
        verdicts=None if verdicts is None else [verdicts[name] for name in names],
        prior=prior,
        draw=draw if prior == "flat" else None,
        rows=len(parts[0]),
        bias=bias,
        **options,
    )


def _sums(influence: Floats, user: NDArray[Any]) -> Floats:
    code = np.unique(np.asarray(user), return_inverse=True)[1].reshape(-1)
    if len(code) != len(influence):
        raise ValueError(f"user has {len(code)} entries; expected {len(influence)}, one a row")
    return np.stack([np.bincount(code, column) for column in influence.T], axis=1).astype(np.float64)


def _covariance(sums: Floats, n: int) -> Floats:
    """Of the estimates' errors, clusters as independent; infinite variances for a single cluster."""
    clusters, p = sums.shape
    if clusters < 2:
        return np.diag(np.full(p, np.inf))
    centred = sums - sums.mean(axis=0)
    out: Floats = centred.T @ centred * (clusters / (clusters - 1)) / n**2
    return out


def student_difference(gap: float, sums: Floats, n: int, level: float, bias: float = 0.0) -> tuple[float, float, float]:
    """Interval of a difference and the p-value of none. sums: [clusters] of its influence; n: rows or pages in all.

    bias: variance of a bias to allow for.
    """
    clusters = len(sums)
    if clusters < 2:
        return -np.inf, np.inf, 1.0
    centred = sums - sums.mean()
    error = float(np.sqrt(centred @ centred * clusters / (clusters - 1))) / n
    # Influences of a million rows leave rounding of this size where two policies are one.
    if error <= 1e-12 * max(abs(gap), float(np.abs(sums).max()) / n) or error == 0:
        return float(gap), float(gap), 1.0 if abs(gap) < 1e-12 else 0.0
    freedom = freedom_of_tails(sums)
    quantile = student_quantile(0.5 + level / 2, freedom)
    deviation = float(np.sqrt(max(bias, 0.0)))
    half = float(np.hypot(quantile * error, normal_quantile(0.5 + level / 2) * deviation))
    return float(gap - half), float(gap + half), 2 * student_tail(abs(gap) / float(np.hypot(error, deviation)), freedom)


def _decision(gap: float, told_apart: bool, verdict: Verdict) -> Decision:
    if verdict == "unusable":
        return "unusable"
    if not told_apart:
        return "undecided"
    return "better" if gap > 0 else "worse"


def _with_adjusted(d: Difference, q: float, found: bool, one: Verdict, other: Verdict) -> Difference:
    decision = _decision(d.value, found, worse(one, other))
    return Difference(d.policy, d.against, d.value, d.lower, d.upper, d.standard_error, d.p_value, q, decision)

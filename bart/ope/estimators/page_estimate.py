"""The `Estimate` of logged pages: an estimator's terms, their interval, and the verdict with its reasons."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from bart.ope.estimators.click import ASSUMED
from bart.ope.estimators.conclude import checked_call
from bart.ope.estimators.page_terms import PageTerms
from bart.ope.estimators.pages import PAGE_ESTIMATORS
from bart.ope.exposure.doubly_robust import ExposureFit
from bart.ope.intervals.pages import DEFAULT_INTERVAL, PageSetting, Spread, allow_for_bias, page_interval
from bart.ope.models.browsing import in_scanning_order
from bart.ope.records.estimate import Estimate, Verdict
from bart.ope.records.pages import LoggedPages
from bart.ope.verdict.choices import worse
from bart.ope.verdict.order import BLOCKS, judge_stretches
from bart.ope.verdict.pages import (
    ExposureDiagnostics,
    WeightFacts,
    bias_by_cap,
    exposure_diagnostics,
    judge_cap,
    judge_exposure,
    judge_listeners,
    judge_mean_field,
    judge_reach,
    judge_weights,
    left_of_reach,
    left_out,
    precision,
    weight_facts,
    without_exploration,
)


def estimate_pages(
    name: str,
    data: LoggedPages,
    interval: str | None = None,
    level: float = 0.95,
    rng: np.random.Generator | None = None,
    *,
    replicates: int = 1_000,
    **parameters: Any,
) -> Estimate:
    """The `Estimate` of one estimator of `PAGE_ESTIMATORS`; see `bart.ope.estimate`.

    interval: a key of `PAGE_INTERVALS`, "student" where None; all are clustered by listener. rng: for the jackknife,
    bootstraps and drawn reach. Raises ValueError for an unknown name, interval or parameter.
    """
    return estimate_with_spread(name, data, interval, level, rng, replicates=replicates, **parameters)[0]


def estimate_with_spread(
    name: str,
    data: LoggedPages,
    interval: str | None = None,
    level: float = 0.95,
    rng: np.random.Generator | None = None,
    *,
    replicates: int = 1_000,
    **parameters: Any,
) -> tuple[Estimate, Spread]:
    """The same and the influence of every page, from which policies on one log are compared."""
    drawing = {} if rng is None else {"rng": rng}
    terms = checked_call(name, PAGE_ESTIMATORS, data, parameters, **drawing)
    spread = Spread(terms.value, terms.influence, data.user, terms.refit)
    judged = _judge(data, terms).with_cautions(data.cautions)
    if name == "exposure_dr" and terms.fit is not None:
        checks = [judge_cap(data, terms.fit), judge_reach(terms.reach_bias, spread.standard_error())]
        if parameters.get("reach") == "mean_field":
            checks.append(judge_mean_field(terms.fit.parameters.browsing))
        judged = judged.lowered(checks)
    judged = judged.lowered([_judge_order(data, terms.fit)])
    allowance = 0.0 if terms.beyond is None else bias_by_cap(terms.beyond, data.user)
    allowance = float(np.hypot(allowance, left_of_reach(terms.reach_bias)))
    # A joint or pseudo-inverse value may fall below 0, a page's reward may not.
    setting = PageSetting(level, rng, replicates, lowest=min(0.0, terms.value))
    notes = (*without_exploration(data), *left_out(data.left_out))
    return conclude_pages(name, spread, interval, setting, judged, allowance, terms.warnings, notes), spread


@dataclass(frozen=True, slots=True)
class Judged:
    """Verdict and reasons, effective sample size, largest and mean weight of an estimate."""

    verdict: Verdict
    reasons: tuple[str, ...]
    size: float
    largest: float
    mean: float

    def with_cautions(self, cautions: Sequence[str]) -> Judged:
        """The same where the whole log is to be taken with care."""
        if not cautions:
            return self
        return replace(self, verdict=worse(self.verdict, "weak"), reasons=(*cautions, *self.reasons))

    def lowered(self, checks: Iterable[tuple[Verdict, tuple[str, ...]]]) -> Judged:
        """The same after further checks."""
        verdict, reasons = self.verdict, self.reasons
        for off, note in checks:
            verdict, reasons = worse(verdict, off), (*reasons, *note)
        return replace(self, verdict=verdict, reasons=reasons)


def conclude_pages(
    name: str,
    spread: Spread,
    interval: str | None,
    setting: PageSetting,
    judged: Judged,
    allowance: float = 0.0,
    warnings: Sequence[str] = (),
    notes: Sequence[str] = (),
    ends: tuple[float, float] | None = None,
) -> Estimate:
    """The `Estimate`: the interval with a bias of standard deviation `allowance` in it, and what it says of precision.

    interval: a key of `PAGE_INTERVALS`, the default where None. warnings: of the estimator; notes: of the log. ends: of
    the interval, where it was made before.
    """
    chosen, value = interval or DEFAULT_INTERVAL, spread.value
    lower, upper = page_interval(chosen, spread, setting) if ends is None else ends
    if name == "exposure_dr":
        lower, upper = allow_for_bias((lower, upper), value, allowance, setting)
    judged = judged.lowered([judge_listeners(spread.size())])
    verdict, needed = precision(value, (upper - lower) / 2, len(spread), judged.verdict)
    return Estimate(
        name=name,
        value=value,
        lower=lower,
        upper=upper,
        level=setting.level,
        interval=chosen,
        n=len(spread),
        effective_sample_size=judged.size,
        max_weight=judged.largest,
        mean_weight=judged.mean,
        verdict=verdict,
        warnings=(*judged.reasons, *warnings, *needed, *notes),
    )


def _judge(data: LoggedPages, terms: PageTerms) -> Judged:
    if terms.fit is not None:
        found = exposure_diagnostics(terms.fit, in_scanning_order(data))
        return judged_exposure(found, len(data), weighted=terms.page_weight is not None)
    weight = np.ones(len(data)) if terms.page_weight is None else terms.page_weight
    facts = weight_facts(weight, data.drawn_reward)
    return judged_weights(facts, biased=bool(terms.warnings), averages_one=averages_one(terms.warnings))


def _judge_order(data: LoggedPages, fit: ExposureFit | None) -> tuple[Verdict, tuple[str, ...]]:
    """Whether rewards drift over tenths of the pages, in the order of the log."""
    pages, earned = np.ones(len(data)), data.drawn_reward
    modelled = pages if fit is None else fit.terms.logged.reward
    if not modelled.sum() > 0:
        return "conclusive", ()
    rest = earned - modelled * (earned.sum() / modelled.sum())
    sums = np.bincount(np.unique(data.user, return_inverse=True)[1].reshape(-1), rest)
    tenth = np.arange(len(data)) * BLOCKS // len(data)
    return judge_stretches(tenth, pages, earned, modelled, float(sums @ sums))


def judged_exposure(found: ExposureDiagnostics, pages: int, *, weighted: bool) -> Judged:
    """Of an exposure kind; the largest ratio of exposures and their balance stand for weights. weighted: whether the
    estimator weighs, which the direct method does not."""
    verdict, reasons = judge_exposure(found, pages)
    size = found.effective_sample_size if weighted else float(pages)
    return Judged(verdict if weighted else worse(verdict, "weak"), reasons, size, found.max_weight, found.balance)


def averages_one(warnings: Sequence[str]) -> bool:
    """Whether the weights of an estimator with these warnings average 1: nobody capped them."""
    return not any(words != ASSUMED for words in warnings)


def judged_weights(found: WeightFacts, *, biased: bool, averages_one: bool) -> Judged:
    """Of an estimator by page weights. biased: by design, or it rests on what its warnings say."""
    verdict, reasons = judge_weights(found, averages_one=averages_one)
    return Judged(worse(verdict, "weak") if biased else verdict, reasons, found.size, found.largest, found.mean)

"""Logged pages in sums: what the page estimators leave of a block of pages for one policy, and the estimates from it.

A log of one block has everything in one pass. Of several blocks the first pass (`put_first`) adds up what is common to
all: sums that weights are divided by, slot by slot, and where the fit of the exposure kinds starts from. At these,
`put_policy` adds each page's value and influence by listener, so that every estimate is that of the whole log at once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np

from bart.ope.engine.exposure import Shared, cap_of, fit_at, place_of_fit, put_exposure, put_hazards, put_start
from bart.ope.engine.exposure_fit import SETTLED, Pooled, beyond_cap, exposure_of
from bart.ope.engine.listeners import Listeners, by_listener, plus, spread_of
from bart.ope.engine.sums import Statistics
from bart.ope.engine.weights import put_weights, summed_weights, weight_cells
from bart.ope.estimators.page_estimate import averages_one, conclude_pages, judged_exposure, judged_weights
from bart.ope.estimators.page_terms import place_of_slots, shared
from bart.ope.estimators.pages import DIRECT, PAGE_ESTIMATORS
from bart.ope.exposure.doubly_robust import CAP, ExposureFit, fit_exposure
from bart.ope.exposure.draws import PAGES as DRAWN_PAGES
from bart.ope.exposure.draws import reach_gaps
from bart.ope.exposure.influence import PAGES as DERIVATIVE_PAGES
from bart.ope.intervals.pages import PageSetting, Spread, page_interval
from bart.ope.models.browsing import depends_on_streams
from bart.ope.records.estimate import Estimate, Verdict
from bart.ope.records.pages import LoggedPages
from bart.ope.verdict.order import judge_stretches, stretches
from bart.ope.verdict.pages import (
    EDGES,
    PAGE_GATES,
    judge_reach,
    left_of_reach,
    without_exploration,
)
from bart.ope.verdict.tails import pareto_k, turning_factor
from bart.ope.weights.pages import marginal_weight
from bart.types import Floats, Ints

START_PAGES = 6_000  # of a log, that the levels of a fit start from
EXPOSURE = ("exposure_dr", "exposure_ips", "dm")  # read off a fit
TIMES = ("pages", "earned", "modelled")  # sums by hour
Asked: TypeAlias = "Mapping[str, tuple[str, Mapping[str, Any]]]"  # kind and parameters by the name in the report


@dataclass(frozen=True, slots=True, eq=False)
class Given:
    """What all blocks of a log have in common for one policy. at: parameters of the fits by cap. slots: what weights
    are divided by, as in `slot_totals`, by estimator."""

    at: Mapping[float, Shared] = field(default_factory=dict)
    slots: Mapping[str, Floats] = field(default_factory=dict)


def caps_of(asked: Asked) -> tuple[float, ...]:
    """The caps that the exposure kinds among the estimators need a fit for."""
    kinds = asked.values()
    return tuple(dict.fromkeys(cap_of(k, given) for k, given in kinds if k in EXPOSURE or k == "cascade_dr"))


def put_first(
    out: Statistics, policy: str, data: LoggedPages, asked: Asked, caps: Sequence[float], part: float = 1.0
) -> None:
    """Adds what the blocks of a log need in common. caps: of the fits that are wanted. part: as of `put_policy`."""
    for name, (kind, parameters) in asked.items():
        if kind in EXPOSURE or kind == "cascade_dr":
            continue
        terms = PAGE_ESTIMATORS[kind](data, **parameters)
        if terms.slots is not None:
            out.put(f"{policy}/{name}/slots", terms.slots.ravel())
    if caps:
        put_hazards(out, policy, data)
        put_start(out, policy, data, caps, _some(START_PAGES, part))


def put_policy(
    out: Statistics,
    policy: str,
    data: LoggedPages,
    listeners: Listeners,
    asked: Asked,
    rng: np.random.Generator,
    *,
    caps: Sequence[float],
    given: Given | None = None,
    part: float = 1.0,
    jackknife: float | None = None,
) -> dict[float, ExposureFit]:
    """Adds what estimates of a policy need of a block, and returns the block's fits by cap.

    given: what the blocks of the log have in common; None for a log of one block. part: the share of the log that the
    block is. rng: of the jackknife. jackknife: the level of such intervals, which are made here, where
    a fit can be made anew; None for none.
    """
    pinned = np.zeros(len(data)) if data.pinned_reward is None else data.pinned_reward
    listeners.put(out, policy, np.stack([np.ones(len(data)), pinned], axis=1))
    fits = {}
    for cap in caps:
        fits[cap] = fit_exposure(data, cap=cap) if given is None else fit_at(data, given.at[cap])
        fit, at = fits[cap], place_of_fit(policy, cap)
        put_exposure(out, at, data, fit, listeners, _some(DERIVATIVE_PAGES, part))
        if depends_on_streams(fit.parameters.browsing):
            # A block where the policy is the logging one has no gap of its own, but its listeners are of the log.
            drawn = np.zeros((len(data), 4)) if data.is_logging else reach_gaps(data, fit, _some(DRAWN_PAGES, part))
            listeners.put(out, f"{at}/reach", drawn)
    for name, (kind, parameters) in asked.items():
        place = f"{policy}/{name}"
        if kind == "cascade_dr":
            _put_terms(out, place, data, listeners, kind, parameters, None)
        if jackknife is not None:
            terms = PAGE_ESTIMATORS[kind](data, **parameters)
            spread = Spread(terms.value, terms.influence, data.user, terms.refit)
            ends = page_interval("jackknife", spread, PageSetting(jackknife, rng, lowest=min(0.0, terms.value)))
            out.put(f"{place}/ends", ends)
    return fits


def put_times(
    out: Statistics, policy: str, at_s: Ints, data: LoggedPages, listeners: Listeners, fit: ExposureFit | None
) -> None:
    """Adds what pages earned by the hour they were shown in, and what was modelled of it: of a fit, or the mean."""
    modelled = np.ones(len(data)) if fit is None else fit.terms.logged.reward
    hour, place = np.unique(at_s // 3600, return_inverse=True)
    for name, each in zip(TIMES, (np.ones(len(data)), data.drawn_reward, modelled), strict=True):
        out.put(f"{policy}/{name} by hour", np.bincount(place.reshape(-1), each, len(hour)), key=hour)
    listeners.put(out, f"{policy}/times", np.stack([data.drawn_reward, modelled], axis=1))


def put_weighed(
    out: Statistics, policy: str, data: LoggedPages, listeners: Listeners, asked: Asked, slots: Mapping[str, Floats]
) -> None:
    """Adds what no fit is needed for: one pass over the blocks is enough. slots: as of `Given`."""
    for caution in data.cautions:
        out.put(f"{policy}/caution: {caution}", 1.0)
    for note in without_exploration(data):
        out.put(f"{policy}/note: {note}", 1.0)
    out.put(f"{policy}/weights", np.histogram(shared(data, marginal_weight)[data.order >= 0], [*EDGES, np.inf])[0])
    for name, (kind, parameters) in asked.items():
        if kind not in EXPOSURE and kind != "cascade_dr":
            _put_terms(out, f"{policy}/{name}", data, listeners, kind, parameters, slots.get(name))


def _put_terms(
    out: Statistics,
    place: str,
    data: LoggedPages,
    listeners: Listeners,
    kind: str,
    parameters: Mapping[str, Any],
    slots: Floats | None,
) -> None:
    if slots is not None:
        data.fits[place_of_slots(f"{kind} {parameters.get('cap', 20.0):g}" if kind == "page_ncis" else kind)] = slots
    terms = PAGE_ESTIMATORS[kind](data, **parameters)
    listeners.put(out, place, (terms.value + terms.influence)[:, None])
    weight = np.ones(len(data)) if terms.page_weight is None else terms.page_weight
    put_weights(out, place, weight, data.drawn_reward)
    for note in terms.warnings:
        out.put(f"{place}/warning: {note}", 1.0)


# ------------------------------------------------------------------------------------------------------------- read off


@dataclass(frozen=True, slots=True, eq=False)
class PolicySums:
    """Read-offs of one policy from the sums of a log. fits: of the exposure kinds, by cap."""

    found: Statistics
    policy: str
    asked: Asked
    fits: Mapping[float, Pooled]

    def spread(self, name: str) -> Spread:
        """Value of an estimator, and how much each listener moves it."""
        kind, parameters = self.asked[name]
        if kind in EXPOSURE:
            return self.with_pins(self.fits[cap_of(kind, parameters)].spread(kind))
        pages = by_listener(self.found, self.policy)[:, 0]
        each = by_listener(self.found, f"{self.policy}/{name}")[:, 0]
        value = float(each.sum() / pages.sum())
        return spread_of(value, each - pages * value, pages)

    def with_pins(self, drawn: Spread) -> Spread:
        """A value of what drawn cards earn with what pinned ones do."""
        return plus(drawn, by_listener(self.found, self.policy)[:, 1])

    def estimate(
        self,
        name: str,
        interval: str | None,
        level: float,
        rng: np.random.Generator | None,
        left_out: Sequence[str] = (),
    ) -> Estimate:
        """left_out: sentences on pages that were not evaluated."""
        (kind, parameters), place, spread = self.asked[name], f"{self.policy}/{name}", self.spread(name)
        warnings, allowance = tuple(self._told(f"{place}/warning: ")), 0.0
        cautions = self._told(f"{self.policy}/caution: ")
        if kind in EXPOSURE:
            fit = self.fits[cap_of(kind, parameters)]
            seen = exposure_of(self.found, self.policy, fit)
            judged = judged_exposure(seen, len(spread), weighted=kind != "dm").with_cautions(cautions)
            if kind == "exposure_dr":
                checks = [
                    beyond_cap(self.found, self.policy, fit),
                    judge_reach(fit.reach_bias(), spread.standard_error()),
                ]
                beyond = fit.beyond()
                allowance = PAGE_GATES.cap_allowance * beyond.standard_error() if beyond.influence.any() else 0.0
                allowance = float(np.hypot(allowance, left_of_reach(fit.reach_bias())))
                judged = judged.lowered(checks)
            if (off := fit.off(kind)) > SETTLED:
                note = f"what is fitted had not settled: its last step moved it by {off:.1f} standard errors"
                judged = judged.lowered([("weak", (note,))])
            warnings = (DIRECT,) if kind == "dm" else ()
        else:
            facts = summed_weights(self.found, place)
            judged = judged_weights(facts, biased=bool(warnings), averages_one=averages_one(warnings))
            judged = judged.with_cautions(cautions)
        judged = judged.lowered([self.judge_times()])
        setting = PageSetting(level, rng, lowest=min(0.0, spread.value))
        ends = self.found.values(f"{place}/ends")
        notes = (*self._told(f"{self.policy}/note: "), *left_out)
        return conclude_pages(
            kind,
            spread,
            interval,
            setting,
            judged,
            allowance,
            warnings,
            notes,
            (ends[0], ends[1]) if len(ends) else None,
        )

    def tail(self, name: str) -> float | None:
        """Pareto's k of the page weights of an estimator; None for one that weighs by exposures, which has a cap."""
        size, pages = weight_cells(self.found, f"{self.policy}/{name}")
        return pareto_k(size, pages) if len(pages) else None

    def turning_factor(self) -> float | None:
        """The factor by which recorded propensities must be off, each for itself, before the drawn cards may earn no
        more and no less than they did: None without a fit of `exposure_dr`, or where none up to 100 does it.

        Errors of propensities are errors of the weights of seen cards, and the value goes with the reward per exposure
        under these.
        """
        fit = self.fits.get(CAP)
        value = 0.0 if fit is None else fit.value("exposure_dr")
        if fit is None or value <= 0:
            return None
        place = place_of_fit(self.policy, CAP)
        exposed, earned = (self.found.values(f"{place}/{what} by rate") for what in ("exposed", "earned"))
        there = exposed > 0
        exposed, earned = exposed[there], earned[there]
        rate = float(earned.sum() / exposed.sum())
        return turning_factor(exposed, earned / exposed, rate * fit.earned().value / value)

    def judge_times(self) -> tuple[Verdict, tuple[str, ...]]:
        """Whether the log is of one time: what pages earned beside what is modelled of them, over its days."""
        pages, earned, modelled = (self.found.values(f"{self.policy}/{name} by hour") for name in TIMES)
        sums = by_listener(self.found, f"{self.policy}/times")
        if not len(pages) or not modelled.sum() > 0:
            return "conclusive", ()
        rest = sums[:, 0] - sums[:, 1] * (earned.sum() / modelled.sum())
        stretch = stretches(self.found.keys(f"{self.policy}/{TIMES[0]} by hour"), pages)
        return judge_stretches(stretch, pages, earned, modelled, float(rest @ rest))

    def weights(self) -> dict[str, list[float]]:
        """Shares of slot weights by size, as `weight_histogram`."""
        count = self.found.values(f"{self.policy}/weights")
        return {"edges": [float(e) for e in EDGES], "share": (count / max(count.sum(), 1)).tolist()}

    def _told(self, head: str) -> list[str]:
        return [name[len(head) :] for name in self.found.names() if name.startswith(head)]


def _some(pages: int, part: float) -> int:
    """The share of so many pages, at least one, that falls to a part of a log."""
    return max(int(np.ceil(pages * part)), 1)

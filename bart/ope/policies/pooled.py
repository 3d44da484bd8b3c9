"""Page logs of any length: estimated block by block, a few numbers a page kept of each block.

Every block is a log of its own: browsing, trust and levels are fitted on it. The value is the mean over the blocks,
weighted by pages, and the influence of a page on it is that on its block's value; sums by listener reach across blocks,
so intervals stay clustered by listener. What is fitted in a block has an error, whose square biases the block's value
(of order 1 / its effective sample size); blocks of thousands of pages keep that far below the interval
(docs/evaluation.md has it measured).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from inspect import signature
from typing import Any

import numpy as np

from bart.ope.estimators.pages import PAGE_ESTIMATORS, PageTerms
from bart.ope.intervals.pages import DEFAULT_INTERVAL, PageSetting, Spread, allow_for_bias, page_interval
from bart.ope.models.browsing import in_scanning_order
from bart.ope.records.estimate import Estimate, Verdict
from bart.ope.records.pages import LoggedPages
from bart.ope.verdict.choices import worse
from bart.ope.verdict.pages import (
    ExposureDiagnostics,
    bias_by_cap,
    exposure_diagnostics,
    judge_exposure,
    judge_mean_field,
    judge_weights,
    precision,
    without_exploration,
)
from bart.ope.weights.choices import effective_sample_size
from bart.types import Floats, Ints


@dataclass(slots=True, eq=False)
class _Estimator:
    """What is kept of one estimator. Per page: influence, page_weight if it has weights, beyond if it caps them."""

    pages: list[int] = field(default_factory=list)
    value: list[float] = field(default_factory=list)
    influence: list[Floats] = field(default_factory=list)
    page_weight: list[Floats] = field(default_factory=list)
    beyond: list[Floats] = field(default_factory=list)
    exposure: list[ExposureDiagnostics] = field(default_factory=list)
    warnings: dict[str, None] = field(default_factory=dict)


@dataclass(slots=True, eq=False)
class PooledPages:
    """Estimates of one policy from the blocks given to `add`, read off by `estimates`.

    estimators: names of `PAGE_ESTIMATORS`. rng: for reach by draws and intervals that resample. blocks: how many there
    will be. parameters: of estimators, by name.
    """

    estimators: Sequence[str]
    rng: np.random.Generator
    blocks: int = 1
    parameters: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    _kept: dict[str, _Estimator] = field(default_factory=dict)
    _user: list[Ints] = field(default_factory=list)
    _reward: list[Floats] = field(default_factory=list)
    _notes: dict[str, None] = field(default_factory=dict)
    _reach: tuple[Verdict, tuple[str, ...]] | None = None

    def add(self, data: LoggedPages) -> None:
        """Estimates on one block. Codes of listeners must be those of the other blocks."""
        self._user.append(data.user.astype(np.int32))
        self._reward.append(data.page_reward.astype(np.float32))
        self._notes.update(dict.fromkeys(without_exploration(data)))
        for name in self.estimators:
            function = PAGE_ESTIMATORS[name]
            given = dict(self.parameters.get(name, {}))
            if "rng" in signature(function).parameters:
                given.setdefault("rng", self.rng)
            terms = function(data, **given)
            kept = self._kept.setdefault(name, _Estimator())
            kept.pages.append(len(data))
            kept.value.append(terms.value)
            kept.influence.append(terms.influence)
            kept.warnings.update(dict.fromkeys(terms.warnings))
            if terms.page_weight is not None:
                kept.page_weight.append(terms.page_weight)
            if terms.beyond is not None:
                kept.beyond.append(terms.beyond)
            if terms.fit is not None:
                kept.exposure.append(exposure_diagnostics(terms.fit, in_scanning_order(data)))
                if name == "exposure_dr" and self._reach is None:
                    self._reach = self._mean_field(data, terms)

    def _mean_field(self, data: LoggedPages, terms: PageTerms) -> tuple[Verdict, tuple[str, ...]]:
        """Judged on the first block against the error that all blocks together will have."""
        if terms.fit is None:
            return "conclusive", ()
        error = Spread(terms.value, terms.influence, data.user, terms.refit).standard_error()
        return judge_mean_field(data, terms.fit, error / np.sqrt(self.blocks), self.rng)

    def spread(self, name: str) -> Spread:
        """Value and influence of one estimator on all pages, as `select_pages` compares policies by."""
        kept = self._kept[name]
        value = float(np.average(kept.value, weights=kept.pages))
        return Spread(value, np.concatenate(kept.influence), np.concatenate(self._user).astype(np.int64), no_refit)

    def estimates(
        self, level: float = 0.95, interval: str | None = None, left_out: Sequence[str] = ()
    ) -> dict[str, Estimate]:
        """By estimator. interval: any of `PAGE_INTERVALS` but the jackknife. left_out: sentences for the warnings."""
        if interval == "jackknife":
            raise ValueError(
                "the jackknife fits the whole log again and again; expected student, studentised or percentile for a"
                " log of several blocks"
            )
        reward = np.concatenate(self._reward).astype(np.float64)
        notes = (*self._notes, *left_out)
        return {
            name: self._estimate(name, kept, reward, level, interval or DEFAULT_INTERVAL, notes)
            for name, kept in self._kept.items()
        }

    def _estimate(
        self,
        name: str,
        kept: _Estimator,
        reward: Floats,
        level: float,
        interval: str,
        notes: tuple[str, ...],
    ) -> Estimate:
        pages = len(reward)
        spread = self.spread(name)
        value = spread.value
        setting = PageSetting(level, self.rng, lowest=min(0.0, value))
        lower, upper = page_interval(interval, spread, setting)
        if kept.beyond:
            allowance = bias_by_cap(np.concatenate(kept.beyond), spread.user)
            lower, upper = allow_for_bias((lower, upper), value, allowance, setting)
        verdict, reasons, size, largest, mean = _judged(kept, reward)
        if name == "exposure_dr" and self._reach is not None:
            verdict, reasons = worse(verdict, self._reach[0]), (*reasons, *self._reach[1])
        verdict, needed = precision(value, (upper - lower) / 2, pages, verdict)
        return Estimate(
            name=name,
            value=value,
            lower=lower,
            upper=upper,
            level=level,
            interval=interval,
            n=pages,
            effective_sample_size=size,
            max_weight=largest,
            mean_weight=mean,
            verdict=verdict,
            warnings=(*reasons, *kept.warnings, *needed, *notes),
        )


def _judged(kept: _Estimator, reward: Floats) -> tuple[Verdict, tuple[str, ...], float, float, float]:
    """Verdict, reasons, effective sample size, largest and mean weight of all blocks together."""
    pages = len(reward)
    weight = np.concatenate(kept.page_weight) if kept.page_weight else np.ones(pages)
    if kept.exposure:
        found = _together(kept, effective_sample_size(weight))
        verdict, reasons = judge_exposure(found, pages)
        if not kept.page_weight:
            return worse(verdict, "weak"), reasons, float(pages), found.max_weight, found.balance
        return verdict, reasons, found.effective_sample_size, found.max_weight, found.balance
    verdict, reasons, size = judge_weights(weight, reward, averages_one=not kept.warnings)
    if kept.warnings:
        verdict = worse(verdict, "weak")
    return verdict, reasons, size, float(weight.max()), float(weight.mean())


def _together(kept: _Estimator, size: float) -> ExposureDiagnostics:
    """The diagnostics of the whole log: means over blocks by pages, errors of means accordingly."""
    share = np.array(kept.pages) / sum(kept.pages)
    each = kept.exposure
    sizes = np.array([found.effective_sample_size for found in each])
    return ExposureDiagnostics(
        effective_sample_size=size if kept.page_weight else float(sizes.sum()),
        max_weight=max(found.max_weight for found in each),
        balance=float(share @ [found.balance for found in each]),
        balance_error=float(np.sqrt(share**2 @ np.square([found.balance_error for found in each]))),
        log_exposure=float(share @ [found.log_exposure for found in each]),
        scanning_order=float(share @ [found.scanning_order for found in each]),
    )


def no_refit(multiplicity: Floats) -> float:
    """The refit of a `Spread` that outlives its block: one that could fit anew would keep the block's candidates."""
    raise ValueError(f"{len(multiplicity)} pages of several blocks cannot be fitted anew")

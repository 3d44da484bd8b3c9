"""Estimates within a part of the log, each with its own interval and its own verdict.

Pages: the exposure model is fitted once, on all pages; within a slice its contributions are averaged and scaled by the
slice's observed reward over what the same terms give for the logging policy. So a slice which browses otherwise is put
right without a fit of its own, and the logging policy has exactly the slice's mean reward. Single choices: the
estimator runs on the slice's rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from typing import Any

import numpy as np

from bart.ope.engine.listeners import plus
from bart.ope.estimators.conclude import estimate_choices
from bart.ope.exposure.doubly_robust import ExposureFit, page_terms
from bart.ope.intervals.pages import PageSetting, Spread, student
from bart.ope.models.appeal import sigmoid
from bart.ope.records.choices import LoggedChoices
from bart.ope.records.estimate import Estimate
from bart.ope.verdict.choices import worse
from bart.ope.verdict.pages import WeightFacts, judge_weights, precision
from bart.types import DEVICES, Bools, Floats, Ints, PageBatch, Strings

NEW_LISTENER_D = 30.0  # days since the account was opened
MOST_SURFACES = 12
LEAST_PAGES = 200  # in a slice: with fewer, no interval is to be relied on
HOURS = {"night 0-6": (0, 6), "morning 6-12": (6, 12), "afternoon 12-18": (12, 18), "evening 18-24": (18, 24)}


def page_slices(
    batch: PageBatch, new_listener_d: float = NEW_LISTENER_D, surfaces: Sequence[str] | None = None
) -> dict[str, dict[str, Bools]]:
    """Masks [b] by dimension and name: device, local hour, new listeners (where account ages are known), surface.

    Slices without a page are left out. surfaces: those of the log; where None, the batch's, of more than 12 the most
    frequent.
    """
    names = (*DEVICES, "other")
    out: dict[str, dict[str, Bools]] = {
        "device": {names[code]: batch.device == code for code in range(len(names))},
        "hour": {name: (batch.hour >= low) & (batch.hour < high) for name, (low, high) in HOURS.items()},
    }
    if batch.account_age_d is not None:
        known = np.isfinite(batch.account_age_d)
        new = known & (batch.account_age_d < new_listener_d)
        out["listener"] = {f"new, under {new_listener_d:g} days": new, "established": known & ~new}
    surface = batch.surface.astype(str)
    kept = most_frequent(*np.unique(surface, return_counts=True)) if surfaces is None else surfaces
    out["surface"] = {name or "none": surface == name for name in kept}
    return {dimension: {name: mask for name, mask in masks.items() if mask.any()} for dimension, masks in out.items()}


def most_frequent(surface: Strings, count: Ints) -> list[str]:
    """Of more than 12 surfaces those that are named most often, the first by name where two are alike."""
    return [str(name) for name in surface[np.argsort(-count, kind="stable")][:MOST_SURFACES]]


def check_masks(masks: Mapping[str, Bools], n: int) -> None:
    """Raises ValueError for a mask that is not boolean [n]."""
    for name, mask in masks.items():
        if np.shape(mask) != (n,) or np.asarray(mask).dtype != np.bool_:
            raise ValueError(f"slice {name!r} has shape {np.shape(mask)}; expected booleans ({n},)")


def slice_terms(fit: ExposureFit) -> Floats:
    """[b, 3]: modelled reward and correction of each page, the same under the logging policy, whose weights are 1, and
    the page's reward."""
    seen, trust = fit.summary.seen, fit.terms.trust
    left = seen.reward - trust * sigmoid(fit.summary.logit + fit.parameters.logged_level)
    logged = fit.terms.logged.reward + np.bincount(seen.page, left, len(fit.summary))
    return np.stack([page_terms(fit.summary, fit.terms), logged, fit.reward], axis=1)


def slice_spread(sums: Floats, pages: Floats, by_pins: Floats) -> Spread:
    """The doubly robust estimate within a slice and how much each listener moves it: mean term x mean reward / mean
    logged term. sums: [u, 3] of `slice_terms` by listener; pages: [u]. by_pins: [u] what pinned cards earned beside."""
    part, modelled, earned = (float(each) for each in sums.sum(axis=0) / pages.sum())
    scale = earned / modelled if modelled > 0 else 1.0
    off = sums - pages[:, None] * np.array([part, modelled, earned])
    influence = scale * off[:, 0]
    if modelled > 0:
        influence = influence + part / modelled * (off[:, 2] - scale * off[:, 1])
    return plus(Spread(part * scale, influence, np.arange(len(pages)), pages=pages), by_pins)


def estimate_slice(spread: Spread, facts: WeightFacts, level: float = 0.95) -> Estimate:
    """The `Estimate` within a slice, clustered by listener. facts: of its pages' weights."""
    lower, upper = student(spread, PageSetting(level))
    lower, upper = max(lower, min(0.0, spread.value)), max(upper, spread.value)
    verdict, reasons = judge_weights(facts, averages_one=False)
    if facts.pages < LEAST_PAGES:
        verdict = worse(verdict, "weak")
        reasons = (*reasons, f"{facts.pages} pages; {LEAST_PAGES} are needed for an interval to rely on")
    verdict, needed = precision(spread.value, (upper - lower) / 2, facts.pages, verdict)
    return Estimate(
        name="exposure_dr",
        value=spread.value,
        lower=lower,
        upper=upper,
        level=level,
        interval="student",
        n=facts.pages,
        effective_sample_size=facts.size,
        max_weight=facts.largest,
        mean_weight=facts.mean,
        verdict=verdict,
        warnings=(*reasons, *needed),
    )


def slice_choices(
    name: str,
    data: LoggedChoices,
    masks: Mapping[str, Bools],
    interval: str | None = None,
    level: float = 0.95,
    rng: np.random.Generator | None = None,
    **parameters: Any,
) -> dict[str, Estimate]:
    """The named estimator on the rows of each mask [n]; arguments as of `bart.ope.estimate`. Empty slices are left out.

    parameters with an entry a row (`user`, `context`, `logging_pmf`) are cut with the rows.
    """
    check_masks(masks, len(data))
    out = {}
    for label, mask in masks.items():
        if not mask.any():
            continue
        cut = {
            key: value[mask] if key in ("user", "context", "logging_pmf") and value is not None else value
            for key, value in parameters.items()
        }
        out[label] = estimate_choices(name, take(data, mask), interval, level, rng, **cut)
    return out


def take(data: LoggedChoices, mask: Bools) -> LoggedChoices:
    """The rows of the mask [n]."""
    n = len(data)
    arrays = {f.name: getattr(data, f.name) for f in fields(data) if f.init}
    return replace(data, **{k: v[mask] for k, v in arrays.items() if v is not None and len(v) == n})

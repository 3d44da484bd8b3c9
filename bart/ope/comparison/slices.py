"""Estimates within a part of the log, each with its own interval and its own verdict.

Pages: the exposure model is fitted once, on all pages; within a slice its contributions are averaged and scaled by the
slice's observed reward over what the same terms give for the logging policy. So a slice which browses otherwise is put
right without a fit of its own, and the logging policy has exactly the slice's mean reward. Single choices: the
estimator runs on the slice's rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from bart.ope.estimators.conclude import estimate_choices
from bart.ope.exposure.doubly_robust import ExposureFit, page_terms
from bart.ope.intervals.pages import PageSetting, Spread, student
from bart.ope.models.appeal import sigmoid
from bart.ope.records.choices import LoggedChoices
from bart.ope.records.estimate import Estimate
from bart.ope.verdict.choices import worse
from bart.ope.verdict.pages import judge_weights, precision
from bart.types import DEVICES, Bools, Floats, Ints, PageBatch

NEW_LISTENER_D = 30.0  # days since the account was opened
MOST_SURFACES = 12
LEAST_PAGES = 200  # in a slice: with fewer, no interval is to be relied on
HOURS = {"night 0-6": (0, 6), "morning 6-12": (6, 12), "afternoon 12-18": (12, 18), "evening 18-24": (18, 24)}


def page_slices(batch: PageBatch, new_listener_d: float = NEW_LISTENER_D) -> dict[str, dict[str, Bools]]:
    """Masks [b] by dimension and name: device, local hour, new listeners (where account ages are known), surface.

    Slices without a page are left out. Of more than 12 surfaces the most frequent are kept.
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
    surface, count = np.unique(batch.surface.astype(str), return_counts=True)
    kept = surface[np.argsort(-count, kind="stable")][:MOST_SURFACES]
    out["surface"] = {str(name) or "none": batch.surface.astype(str) == name for name in kept}
    return {dimension: {name: mask for name, mask in masks.items() if mask.any()} for dimension, masks in out.items()}


def check_masks(masks: Mapping[str, Bools], n: int) -> None:
    """Raises ValueError for a mask that is not boolean [n]."""
    for name, mask in masks.items():
        if np.shape(mask) != (n,) or np.asarray(mask).dtype != np.bool_:
            raise ValueError(f"slice {name!r} has shape {np.shape(mask)}; expected booleans ({n},)")


@dataclass(frozen=True, slots=True, eq=False)
class SlicePart:
    """The pages of a slice in one block of the log: their estimate, weights and rewards."""

    spread: Spread
    page_weight: Floats
    reward: Floats


def slice_part(
    fit: ExposureFit, page_weight: Floats, user: Ints, mask: Bools, by_pins: Floats | None = None
) -> SlicePart:
    """The doubly robust estimate within the pages of the mask [b], and how much each of them moves it.

    page_weight: [b], the estimator's weights of pages. by_pins: [b] what pinned cards earned beside. Raises ValueError
    for a slice without a page.
    """
    check_masks({"given": mask}, len(user))
    if not mask.any():
        raise ValueError("the slice holds no page; expected at least one")
    part = page_terms(fit.summary, fit.terms)[mask]
    spread = _scaled(part, _logged_terms(fit)[mask], fit.reward[mask], user[mask])
    spread = plus(spread, None if by_pins is None else by_pins[mask])
    return SlicePart(spread, page_weight[mask], fit.reward[mask])


def plus(spread: Spread, each: Floats | None) -> Spread:
    """The spread with what each page [b] earned beside, None for nothing."""
    if each is None:
        return spread
    mean = float(each.mean())
    return Spread(
        spread.value + mean,
        spread.influence + (each - mean),
        spread.user,
        lambda m: spread.refit(m) + float(np.average(each, weights=m)),
    )


def pool(parts: Sequence[Spread]) -> Spread:
    """Blocks of one log as one: the mean of their values by pages, influences side by side."""
    if len(parts) == 1:
        return parts[0]
    pages = [len(part.influence) for part in parts]
    value = float(np.average([part.value for part in parts], weights=pages))

    def refit(multiplicity: Floats) -> float:
        cut = np.split(multiplicity, np.cumsum(pages)[:-1])
        return float(np.average([p.refit(m) for p, m in zip(parts, cut, strict=True)], weights=[m.sum() for m in cut]))

    return Spread(value, np.concatenate([p.influence for p in parts]), np.concatenate([p.user for p in parts]), refit)


def estimate_parts(parts: Sequence[SlicePart], level: float = 0.95) -> Estimate:
    """The `Estimate` within a slice from its parts in all blocks, clustered by listener."""
    spread = pool([part.spread for part in parts])
    weight, reward = (np.concatenate([getattr(p, name) for p in parts]) for name in ("page_weight", "reward"))
    n = len(weight)
    lower, upper = student(spread, PageSetting(level))
    lower, upper = max(lower, min(0.0, spread.value)), max(upper, spread.value)
    verdict, reasons, size = judge_weights(weight, reward, averages_one=False)
    if n < LEAST_PAGES:
        verdict = worse(verdict, "weak")
        reasons = (*reasons, f"{n} pages; {LEAST_PAGES} are needed for an interval to rely on")
    verdict, needed = precision(spread.value, (upper - lower) / 2, n, verdict)
    return Estimate(
        name="exposure_dr",
        value=spread.value,
        lower=lower,
        upper=upper,
        level=level,
        interval="student",
        n=n,
        effective_sample_size=size,
        max_weight=float(weight.max()),
        mean_weight=float(weight.mean()),
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
    arrays = {f.name: getattr(data, f.name) for f in fields(data)}
    return replace(data, **{k: v[mask] for k, v in arrays.items() if v is not None and len(v) == n})


def _logged_terms(fit: ExposureFit) -> Floats:
    """[b] modelled reward and correction of each page under the logging policy, whose weights are 1."""
    seen, trust = fit.summary.seen, fit.terms.trust
    left = seen.reward - trust * sigmoid(fit.summary.logit + fit.parameters.logged_level)
    out: Floats = fit.terms.logged.reward + np.bincount(seen.page, left, len(fit.summary))
    return out


def _scaled(part: Floats, modelled: Floats, earned: Floats, user: Ints) -> Spread:
    """mean(part) mean(earned) / mean(modelled) and its influence."""

    def value(weight: Floats | None) -> float:
        a, b, c = (float(np.average(x, weights=weight)) for x in (part, modelled, earned))
        return a * c / b if b > 0 else a

    centre = float(modelled.mean())
    scale = float(earned.mean()) / centre if centre > 0 else 1.0
    mean = float(part.mean())
    influence = scale * (part - mean)
    if centre > 0:
        influence = influence + mean / centre * ((earned - earned.mean()) - scale * (modelled - centre))
    return Spread(value(None), influence, user, value)

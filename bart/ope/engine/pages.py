"""Page logs on an engine: what the estimators of pages leave of a block of them, in numbers that add up.

Estimators that divide by the sum of weights slot by slot leave their sums; those of plain weights leave their value,
weighted by the block's pages; the exposure kind leaves the sums of its estimating equations in passes of their own (see
`exposure`). So every value is that of the whole log at once. Spread comes from a Poisson bootstrap of listeners
over the influence of each page.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from bart.ope.engine.exposure import POOLED, Shared, cap_of, put_exposure, put_start
from bart.ope.engine.exposure_fit import SETTLED, Pooled, exposure_of, judge_beyond_cap, pooled
from bart.ope.engine.sums import Statistics
from bart.ope.estimators.pages import PAGE_ESTIMATORS
from bart.ope.intervals.pages import PageSetting, allow_for_bias
from bart.ope.intervals.poisson_hash import Hashes, replicate_sums
from bart.ope.records.estimate import Estimate, Verdict
from bart.ope.records.pages import LoggedPages
from bart.ope.verdict.choices import worse
from bart.ope.verdict.pages import PAGE_GATES, judge_exposure, precision
from bart.ope.weights.pages import marginal_weight
from bart.types import Floats

# Divided by sums of weights, slot by slot: the weights they share, and whether they are capped.
SLOT_SUMS: Mapping[str, tuple[str, bool]] = {
    "sn_independent_ips": ("marginal_weight", False),
    "page_ncis": ("marginal_weight", True),
    "sn_cascade_ips": ("cascade_weight", False),
    "slate_snips": ("joint_weight", False),
}
DIRECT = "the direct method has no weights: its interval cannot show the model's bias"
DEFAULT_CAP = 20.0
EDGES = (0, 0.1, 0.3, 1, 3, 10, 30, 100, 1_000)


def put_pages(
    out: Statistics,
    policy: str,
    data: LoggedPages,
    estimators: Mapping[str, Mapping[str, Any]],
    user: Hashes,
    replicates: int,
    seed: int,
) -> None:
    """Adds what the estimators (kinds of `PAGE_ESTIMATORS` with their parameters) leave of one block.

    Of the exposure kind only what passes with common parameters start from. user: [b], hashed listeners.
    """
    b = len(data)
    out.put(f"{policy}/pages", b)
    drawn = [np.ones(b)]
    plain = [kind for kind in estimators if kind not in POOLED]
    for kind in plain:
        drawn.append(_put_estimator(out, policy, data, kind, estimators[kind], user, replicates, seed))
    sums = replicate_sums(user, np.stack(drawn, axis=1), replicates, seed)
    out.put(f"{policy}/drawn pages", sums[:, 0])
    for i, kind in enumerate(plain):
        out.put(f"{policy}/{kind}/drawn", sums[:, 1 + i])
    out.put(f"{policy}/weights", np.histogram(marginal_weight(data)[data.order >= 0], [*EDGES, np.inf])[0])
    put_start(out, policy, data, caps_of(estimators))


def put_pooled(
    out: Statistics,
    policy: str,
    data: LoggedPages,
    estimators: Mapping[str, Mapping[str, Any]],
    at: Mapping[float, Shared],
    user: Hashes,
    replicates: int,
    seed: int,
) -> None:
    """Adds what the exposure kind leaves of one block at common parameters. at: parameters by cap."""
    for shared in at.values():
        put_exposure(out, policy, data, shared, user, replicates, seed)
    if "cascade_dr" in estimators:  # its base, at the common parameters, only takes variance away
        each = _put_estimator(out, policy, data, "cascade_dr", {}, user, replicates, seed)
        out.put(f"{policy}/cascade_dr/drawn", replicate_sums(user, each[:, None], replicates, seed)[:, 0])


def caps_of(estimators: Mapping[str, Mapping[str, Any]]) -> tuple[float, ...]:
    """The caps that the exposure kinds among the estimators need a fit for."""
    return tuple(dict.fromkeys(cap_of(kind, given) for kind, given in estimators.items() if kind in POOLED))


def page_estimates(
    found: Statistics,
    policy: str,
    estimators: Mapping[str, str],
    level: float,
    notes: tuple[str, ...] = (),
    fits: Mapping[str, Pooled] | None = None,
) -> dict[str, Estimate]:
    """The estimates of one policy. estimators: kinds by the names they have in the report. fits: of the exposure kinds
    among them, by kind."""
    fits = fits or {}
    return {name: _estimate(found, policy, kind, level, notes, fits.get(kind)) for name, kind in estimators.items()}


def page_fits(
    found: Statistics, policy: str, estimators: Mapping[str, Mapping[str, Any]], at: Mapping[float, Shared]
) -> dict[str, Pooled]:
    """What a pass at common parameters says, by exposure kind."""
    by_cap = {cap: pooled(found, policy, shared) for cap, shared in at.items()}
    return {kind: by_cap[cap_of(kind, given)] for kind, given in estimators.items() if kind in POOLED}


def page_value(found: Statistics, policy: str, kind: str, fit: Pooled | None = None) -> float:
    """Expected reward of a page. fit: of an exposure kind."""
    if fit is not None and kind != "cascade_dr":
        return fit.value(kind)
    place, pages = f"{policy}/{kind}", found.total(f"{policy}/pages")
    if kind not in SLOT_SUMS:
        return found.total(f"{place}/value") / pages
    product, total, there = (found.values(f"{place}/slot {name}") for name in ("product", "weight", "there"))
    ratio = np.divide(product, total, out=np.zeros_like(total), where=total > 0)
    return float((ratio * there).sum() / pages)


def page_replicates(found: Statistics, policy: str, kind: str, fit: Pooled | None = None) -> Floats:
    """[replicates] the value in each replicate: from sums by slot, otherwise to first order around the log's."""
    if fit is not None and kind != "cascade_dr":
        each = fit.replicates(kind)
        return each[np.isfinite(each)]
    pages, drawn = found.values(f"{policy}/drawn pages"), found.values(f"{policy}/{kind}/drawn")
    with np.errstate(divide="ignore", invalid="ignore"):
        each = drawn / pages
        if kind in SLOT_SUMS:
            product, total, there = (
                found.values(f"{policy}/{kind}/drawn slot {name}").reshape(len(pages), -1)
                for name in ("product", "weight", "there")
            )
            ratio = np.divide(product, total, out=np.zeros_like(total), where=total > 0)
            each = (ratio * there).sum(axis=1) / pages
    return each[np.isfinite(each)]


def _put_estimator(
    out: Statistics,
    policy: str,
    data: LoggedPages,
    kind: str,
    parameters: Mapping[str, Any],
    user: Hashes,
    replicates: int,
    seed: int,
) -> Floats:
    """Adds value, weights and warnings; [b] value and influence of each page."""
    terms, place = PAGE_ESTIMATORS[kind](data, **parameters), f"{policy}/{kind}"
    out.put(f"{place}/value", terms.value * len(data))
    if kind in SLOT_SUMS:
        columns = _put_slots(out, place, data, kind, float(parameters.get("cap", DEFAULT_CAP)))
        for name, column in columns.items():
            out.put(f"{place}/drawn slot {name}", replicate_sums(user, column, replicates, seed).ravel())
    if terms.page_weight is not None:
        _put_weights(out, place, terms.page_weight)
    for note in terms.warnings:
        out.put(f"{place}/warning: {note}", 1.0)
    each: Floats = terms.value + terms.influence
    return each


def _estimate(
    found: Statistics, policy: str, kind: str, level: float, notes: tuple[str, ...], fit: Pooled | None
) -> Estimate:
    place, pages = f"{policy}/{kind}", int(found.total(f"{policy}/pages"))
    value = page_value(found, policy, kind, fit)
    tail = (1 - level) / 2
    lower, upper = (float(q) for q in np.quantile(page_replicates(found, policy, kind, fit), [tail, 1 - tail]))
    lower = max(lower, min(0.0, value))
    if fit is not None and kind == "exposure_dr":
        allowance = PAGE_GATES.cap_allowance * fit.beyond()[1]
        lower, upper = allow_for_bias((min(lower, value), max(upper, value)), value, allowance, PageSetting(level))
    head = f"{place}/warning: "
    warnings = tuple(each[len(head) :] for each in found.names() if each.startswith(head))
    if fit is None or kind == "cascade_dr":
        verdict, reasons, size, largest, mean = _judged(found, place, pages, bool(warnings))
    else:
        verdict, reasons, size, largest, mean = _judged_fit(found, policy, kind, fit, pages)
        warnings = (DIRECT,) if kind == "dm" else ()
    verdict, needed = precision(value, (upper - lower) / 2, pages, verdict)
    return Estimate(
        name=kind,
        value=value,
        lower=min(lower, value),
        upper=max(upper, value),
        level=level,
        interval="percentile",
        n=pages,
        effective_sample_size=size,
        max_weight=largest,
        mean_weight=mean,
        verdict=verdict,
        warnings=(*reasons, *warnings, *needed, *notes),
    )


def _put_slots(out: Statistics, place: str, data: LoggedPages, kind: str, cap: float) -> dict[str, Floats]:
    shared, capped = SLOT_SUMS[kind]
    weight: Floats = data.fits[shared]  # made by the estimator just now
    weight = (np.minimum(weight, cap) if capped else weight).reshape(len(data), -1)
    if kind == "slate_snips":  # a page is one slot
        reward, there = data.drawn_reward[:, None], np.ones((len(data), 1))
    else:
        reward = np.where(data.seen, data.reward, 0.0).reshape(len(data), -1)
        there = (data.order >= 0).reshape(len(data), -1).astype(np.float64)
    columns = {"product": weight * reward, "weight": weight, "there": there}
    for name, column in columns.items():
        out.put(f"{place}/slot {name}", column.sum(axis=0))
    return columns


def _put_weights(out: Statistics, place: str, weight: Floats) -> None:
    out.put(f"{place}/weight", weight.sum())
    out.put(f"{place}/weight size", np.abs(weight).sum())
    out.put(f"{place}/weight square", np.einsum("i,i->", weight, weight))
    out.put(f"{place}/weight most", weight.max(), "max")


def _judged_fit(
    found: Statistics, policy: str, kind: str, fit: Pooled, pages: int
) -> tuple[Verdict, tuple[str, ...], float, float, float]:
    """The same of an exposure kind; the largest ratio of exposures and their balance instead of weights."""
    seen = exposure_of(found, policy, fit)
    verdict, reasons = judge_exposure(seen, pages)
    told = judge_beyond_cap(found, policy, fit) if kind == "exposure_dr" else ()
    if fit.off(kind) > SETTLED:
        told = (*told, f"what is fitted had not settled: its last step moved it by {fit.off(kind):.1f} standard errors")
    if told or kind == "dm":
        verdict = worse(verdict, "weak")
    size = float(pages) if kind == "dm" else seen.effective_sample_size
    return verdict, (*reasons, *told), size, seen.max_weight, seen.balance


def _judged(
    found: Statistics, place: str, pages: int, biased: bool
) -> tuple[Verdict, tuple[str, ...], float, float, float]:
    """Verdict, reasons, effective sample size, largest and mean weight."""
    total, square = found.total(f"{place}/weight"), found.total(f"{place}/weight square")
    size = found.total(f"{place}/weight size") ** 2 / square if square > 0 else 0.0
    mean = total / pages
    gates = PAGE_GATES
    bad: list[str] = []
    weak: list[str] = []
    if size < gates.weak_below:
        gate = gates.refuse_below if size < gates.refuse_below else gates.weak_below
        (bad if size < gates.refuse_below else weak).append(
            f"effective sample size {size:.1f} of {pages:,} pages; at least {gate:g} is needed"
        )
    error = float(np.sqrt(max(square / pages - mean**2, 0.0) / pages))
    off = abs(mean - 1)
    if not biased and size >= gates.refuse_below and off > 1e-6 and off > gates.balance_errors * error:
        bad.append(f"weights average {mean:.3f} instead of 1: propensities are wrong or the log lacks support")
    verdict: Verdict = "unusable" if bad else "weak" if weak or biased else "conclusive"
    return verdict, (*bad, *weak), size, found.total(f"{place}/weight most"), mean

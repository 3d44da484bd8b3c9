"""Page logs on an engine: what estimators of `page_estimators` leave of a block of pages, in numbers that add up.

Estimators that divide by the sum of weights slot by slot leave their sums, so that their value is that of the whole log
at once. All others leave their value on the block, weighted by its pages, as in `pooled_pages`: for plain weights that
is the whole log's value too; for the exposure kind browsing, trust and levels are fitted block by block. Spread comes
from a Poisson bootstrap of listeners over the influence of each page.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from bart.ope.browsing import in_scanning_order
from bart.ope.diagnostics import Verdict, worse
from bart.ope.engine import Statistics
from bart.ope.estimate import Estimate
from bart.ope.page_diagnostics import PAGE_GATES, ExposureDiagnostics, exposure_diagnostics, judge_exposure, precision
from bart.ope.page_estimators import PAGE_ESTIMATORS, PageTerms
from bart.ope.page_weights import marginal_weight
from bart.ope.pages import LoggedPages
from bart.ope.poisson_hash import Hashes, replicate_sums
from bart.types import Floats

# Divided by sums of weights, slot by slot: the weights they share, and whether they are capped.
SLOT_SUMS: Mapping[str, tuple[str, bool]] = {
    "sn_independent_ips": ("marginal_weight", False),
    "page_ncis": ("marginal_weight", True),
    "sn_cascade_ips": ("cascade_weight", False),
}
BLOCKWISE = ("exposure_dr", "exposure_ips", "dm", "cascade_dr", "slate_snips")  # fitted or normalised block by block
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

    user: [b], the hashed listener of each page.
    """
    b = len(data)
    out.put(f"{policy}/pages", b)
    out.put(f"{policy}/blocks", 1)
    drawn = [np.ones(b)]
    for kind, parameters in estimators.items():
        terms = PAGE_ESTIMATORS[kind](data, **parameters)
        place = f"{policy}/{kind}"
        out.put(f"{place}/value", terms.value * b)
        drawn.append(terms.value + terms.influence)
        if kind in SLOT_SUMS:
            columns = _put_slots(out, place, data, kind, float(parameters.get("cap", DEFAULT_CAP)))
            for name, column in columns.items():
                out.put(f"{place}/drawn slot {name}", replicate_sums(user, column, replicates, seed).ravel())
        _put_weights(out, place, terms, data)
        for note in terms.warnings:
            out.put(f"{place}/warning: {note}", 1.0)
    sums = replicate_sums(user, np.stack(drawn, axis=1), replicates, seed)
    out.put(f"{policy}/drawn pages", sums[:, 0])
    for i, kind in enumerate(estimators):
        out.put(f"{policy}/{kind}/drawn", sums[:, 1 + i])
    out.put(f"{policy}/weights", np.histogram(marginal_weight(data)[data.order >= 0], [*EDGES, np.inf])[0])


def page_estimates(
    found: Statistics, policy: str, estimators: Mapping[str, str], level: float, notes: tuple[str, ...] = ()
) -> dict[str, Estimate]:
    """The estimates of one policy. estimators: kinds by the names they have in the report."""
    return {name: _estimate(found, policy, kind, level, notes) for name, kind in estimators.items()}


def page_value(found: Statistics, policy: str, kind: str) -> float:
    """Expected reward of a page."""
    place, pages = f"{policy}/{kind}", found.total(f"{policy}/pages")
    if kind not in SLOT_SUMS:
        return found.total(f"{place}/value") / pages
    product, total, there = (found.values(f"{place}/slot {name}") for name in ("product", "weight", "there"))
    ratio = np.divide(product, total, out=np.zeros_like(total), where=total > 0)
    return float((ratio * there).sum() / pages)


def page_replicates(found: Statistics, policy: str, kind: str) -> Floats:
    """[replicates] the value in each replicate: from sums by slot, otherwise to first order around the log's."""
    pages, drawn = found.values(f"{policy}/drawn pages"), found.values(f"{policy}/{kind}/drawn")
    with np.errstate(divide="ignore", invalid="ignore"):
        each: Floats = drawn / pages
        if kind in SLOT_SUMS:
            product, total, there = (
                found.values(f"{policy}/{kind}/drawn slot {name}").reshape(len(pages), -1)
                for name in ("product", "weight", "there")
            )
            ratio = np.divide(product, total, out=np.zeros_like(total), where=total > 0)
            each = (ratio * there).sum(axis=1) / pages
    return each[np.isfinite(each)]


def _estimate(found: Statistics, policy: str, kind: str, level: float, notes: tuple[str, ...]) -> Estimate:
    place, pages = f"{policy}/{kind}", int(found.total(f"{policy}/pages"))
    value = page_value(found, policy, kind)
    tail = (1 - level) / 2
    lower, upper = (float(q) for q in np.quantile(page_replicates(found, policy, kind), [tail, 1 - tail]))
    lower = max(lower, min(0.0, value))
    head = f"{place}/warning: "
    warnings = tuple(each[len(head) :] for each in found.names() if each.startswith(head))
    verdict, reasons, size, largest, mean = _judged(found, place, pages, bool(warnings))
    verdict, needed = precision(value, (upper - lower) / 2, pages, verdict)
    if kind in BLOCKWISE:
        blocks = max(found.total(f"{policy}/blocks"), 1.0)
        warnings = (*warnings, f"fitted in {blocks:.0f} blocks of {pages / blocks:,.0f} pages on average")
        if pages / blocks < PAGE_GATES.least_pages and blocks > 1:
            verdict = worse(verdict, "weak")
            warnings = (*warnings, f"blocks of fewer than {PAGE_GATES.least_pages:,} pages bias what is fitted in them")
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
    reward = np.where(data.seen, data.reward, 0.0).reshape(len(data), -1)
    there = (data.order >= 0).reshape(len(data), -1).astype(np.float64)
    columns = {"product": weight * reward, "weight": weight, "there": there}
    for name, column in columns.items():
        out.put(f"{place}/slot {name}", column.sum(axis=0))
    return columns


def _put_weights(out: Statistics, place: str, terms: PageTerms, data: LoggedPages) -> None:
    b = len(data)
    weight = terms.page_weight
    if weight is not None:
        out.put(f"{place}/weight", weight.sum())
        out.put(f"{place}/weight size", np.abs(weight).sum())
        out.put(f"{place}/weight square", np.einsum("i,i->", weight, weight))
        out.put(f"{place}/weight most", weight.max(), "max")
    if terms.fit is not None:
        seen = exposure_diagnostics(terms.fit, in_scanning_order(data))
        out.put(f"{place}/balance", seen.balance * b)
        out.put(f"{place}/balance error", (seen.balance_error * b) ** 2)
        out.put(f"{place}/log exposure", seen.log_exposure * b)
        out.put(f"{place}/scanning", seen.scanning_order * b)
        out.put(f"{place}/exposed", seen.effective_sample_size)
        out.put(f"{place}/ratio most", seen.max_weight, "max")


def _judged(
    found: Statistics, place: str, pages: int, biased: bool
) -> tuple[Verdict, tuple[str, ...], float, float, float]:
    """Verdict, reasons, effective sample size, largest and mean weight."""
    total, square = found.total(f"{place}/weight"), found.total(f"{place}/weight square")
    size = found.total(f"{place}/weight size") ** 2 / square if square > 0 else 0.0
    mean, weighted = total / pages, bool(len(found.values(f"{place}/weight")))
    if len(found.values(f"{place}/balance")):
        seen = ExposureDiagnostics(
            effective_sample_size=size if weighted else found.total(f"{place}/exposed"),
            max_weight=found.total(f"{place}/ratio most"),
            balance=found.total(f"{place}/balance") / pages,
            balance_error=float(np.sqrt(found.total(f"{place}/balance error"))) / pages,
            log_exposure=found.total(f"{place}/log exposure") / pages,
            scanning_order=found.total(f"{place}/scanning") / pages,
        )
        verdict, reasons = judge_exposure(seen, pages)
        if not weighted:
            return worse(verdict, "weak"), reasons, float(pages), seen.max_weight, seen.balance
        return verdict, reasons, size, seen.max_weight, seen.balance
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
    verdict = "unusable" if bad else "weak" if weak or biased else "conclusive"
    return verdict, (*bad, *weak), size, found.total(f"{place}/weight most"), mean

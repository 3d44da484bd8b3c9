"""What a log of pages can support: effective sample size, balance of the exposure model, a verdict with its reasons.

The gates are those that separated usable from useless estimates in simulated logs with known truth; the verdict comes
first in every report, and says how many more pages would be needed at this exploration rate.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from bart.ope.exposure.doubly_robust import ExposureFit, left_by_cap
from bart.ope.intervals.pages import clustered_error
from bart.ope.models.browsing import Browsing, depends_on_streams
from bart.ope.records.estimate import Verdict
from bart.ope.records.pages import LoggedPages
from bart.ope.verdict.choices import top_share, worse
from bart.ope.weights.choices import effective_sample_size
from bart.ope.weights.pages import page_propensity
from bart.types import Floats, Ints


@dataclass(frozen=True, slots=True)
class PageGates:
    """Where a verdict turns.

    refuse_below, weak_below: effective sample size of the page sums A_i = sum over seen cards of omega trust.
    least_pages: fewer give no interval to rely on. balance: mean(A_i) over the modelled exposure of the target must lie
    in it, and within `balance_errors` standard errors of 1. log_exposure: largest relative gap between modelled and
    observed exposure of the log. half_width: of the interval, relative to the value, that "pages needed" aims at;
    wider than weak_half_width, an interval decides little.
    scanning_order: least share of seen cards that stand first or have a seen left neighbour. reach_left: of the bias of
    the mean-field reach, what may be left once it was taken off. beyond_cap: largest share of the target's exposure
    that the cap may leave to the prediction; cap_errors: of what the correction would add beyond the cap, in standard
    errors, and at least cap_share of the value. cap_allowance: standard deviation of the bias by the cap that an
    interval allows for, in standard errors of the same. least_listeners: fewer are too few for an interval by listener
    to decide anything; largest_share: of the pages, that one listener may have made.
    """

    refuse_below: float = 50.0
    weak_below: float = 300.0
    least_pages: int = 1_000
    balance: tuple[float, float] = (0.8, 1.2)
    balance_errors: float = 4.0
    log_exposure: float = 0.03
    half_width: float = 0.05
    weak_half_width: float = 0.5
    scanning_order: float = 0.95
    reach_left: float = 0.25
    beyond_cap: float = 0.6
    cap_errors: float = 4.0
    cap_share: float = 0.02
    cap_allowance: float = 0.6
    least_listeners: int = 20
    largest_share: float = 0.2


PAGE_GATES = PageGates()
EDGES = (0, 0.1, 0.3, 1, 3, 10, 30, 100, 1_000)  # of the histogram of slot weights


@dataclass(frozen=True, slots=True)
class ExposureDiagnostics:
    """effective_sample_size: of A_i, the sums of omega trust over the seen cards of a page. max_weight: largest omega.
    balance, balance_error: mean(A_i) over the modelled exposure, 1 where the model holds. log_exposure: observed over
    modelled exposure of the log. scanning_order: share of seen cards whose left neighbour was seen."""

    effective_sample_size: float
    max_weight: float
    balance: float
    balance_error: float
    log_exposure: float
    scanning_order: float


def exposure_diagnostics(fit: ExposureFit, scanning_order: float) -> ExposureDiagnostics:
    terms, pages = fit.terms, len(fit.summary)
    seen_page = fit.summary.seen.page
    exposed: Floats = np.bincount(seen_page, terms.plain * terms.trust, pages).astype(np.float64)
    modelled = float(terms.target.total.mean())
    balance = float(exposed.mean()) / modelled
    error = float(np.std(exposed - terms.target.total * balance)) / np.sqrt(pages) / modelled
    trust = float(terms.trust.sum())
    return ExposureDiagnostics(
        effective_sample_size=effective_sample_size(exposed),
        max_weight=float(terms.plain.max()),
        balance=balance,
        balance_error=float(error),
        log_exposure=trust / float(terms.logged.total.sum()),
        scanning_order=scanning_order,
    )


def judge_exposure(
    found: ExposureDiagnostics, pages: int, gates: PageGates = PAGE_GATES
) -> tuple[Verdict, tuple[str, ...]]:
    """The verdict on exposure estimates and its reasons, the worst first."""
    bad: list[str] = []
    weak: list[str] = []
    size = found.effective_sample_size
    if size < gates.refuse_below:
        bad.append(_short_of(size, pages, gates.refuse_below))
    elif size < gates.weak_below:
        weak.append(_short_of(size, pages, gates.weak_below))
    if pages < gates.least_pages:
        weak.append(f"{pages} pages; {gates.least_pages} are needed for an interval to rely on")
    off = abs(found.balance - 1)
    if not gates.balance[0] <= found.balance <= gates.balance[1] and off > 2 * found.balance_error:
        bad.append(f"reweighted exposure is {found.balance:.2f} of what the model expects: listeners browse otherwise")
    elif off > gates.balance_errors * found.balance_error and off > 0.01:
        weak.append(f"reweighted exposure is {found.balance:.2f} of what the model expects, beyond its error")
    gap = abs(found.log_exposure - 1)
    if gap > gates.log_exposure:
        weak.append(f"observed exposure of the log is {found.log_exposure:.2f} of the modelled one")
    if found.scanning_order < gates.scanning_order:
        weak.append(
            f"{1 - found.scanning_order:.0%} of the seen cards have an unseen one to their left: cards are not read in"
            " the order that the model assumes"
        )
    if bad:
        return "unusable", tuple(bad + weak)
    return ("weak", tuple(weak)) if weak else ("conclusive", ())


def judge_mean_field(how: Browsing) -> tuple[Verdict, tuple[str, ...]]:
    """Of an estimate that keeps the mean-field reach as it is, which simplifies where going on depends on streams."""
    if not depends_on_streams(how):
        return "conclusive", ()
    return "weak", ("going on depends on streams, which the mean-field reach simplifies; reach by draws is right here",)


def left_of_reach(bias: float, gates: PageGates = PAGE_GATES) -> float:
    """Standard deviation of what is left of the bias of the mean-field reach, of which `bias` was taken off."""
    return gates.reach_left * abs(bias)


def judge_reach(bias: float, standard_error: float, gates: PageGates = PAGE_GATES) -> tuple[Verdict, tuple[str, ...]]:
    """Whether what is left of the bias of the mean-field reach is small against the estimate's own error."""
    left = left_of_reach(bias, gates)
    if left <= standard_error / 2:
        return "conclusive", ()
    return "weak", (
        f"going on depends on streams: {bias:+.3g} was taken off, what the mean-field reach adds there, and some"
        f" {left:.2g} of it may be left, the standard error is {standard_error:.3g}; reach by draws is right here",
    )


def judge_cap(data: LoggedPages, fit: ExposureFit, gates: PageGates = PAGE_GATES) -> tuple[Verdict, tuple[str, ...]]:
    """Whether the prediction can be trusted with what the cap leaves to it: its residuals there, and how much it is."""
    now = fit.terms
    total = float((now.plain * now.trust).sum())
    beyond = 1.0 - float((now.weight * now.trust).sum()) / total if total > 0 else 0.0
    left = left_by_cap(fit)
    error = clustered_error(left, data.user)
    return judge_beyond(fit.parameters.cap, beyond, float(left.mean()), error, fit.value, gates)


def judge_beyond(
    cap: float, beyond: float, gap: float, error: float, value: float, gates: PageGates = PAGE_GATES
) -> tuple[Verdict, tuple[str, ...]]:
    """The same from the share of the target's exposure beyond the cap, and what the correction would add there."""
    weak: list[str] = []
    if beyond > gates.beyond_cap:
        weak.append(
            f"{beyond:.0%} of the target's exposure lies beyond the cap of {cap:g}: the"
            " prediction is left alone with it"
        )
    if abs(gap) > gates.cap_errors * error and abs(gap) > gates.cap_share * abs(value):
        weak.append(
            f"rewards beyond the cap of {cap:g} differ from the prediction by {gap:+.3g} a page,"
            " beyond its error: the value is biased; an infinite cap is not"
        )
    return ("weak" if weak else "conclusive"), tuple(weak)


def bias_by_cap(beyond: Floats, user: Ints, gates: PageGates = PAGE_GATES) -> float:
    """Standard deviation of the bias to allow for: what a log cannot tell from 0 may still be there.

    A cap pays where the bias by it is small against the noise that it saves, which is the error of `beyond` [b].
    """
    return gates.cap_allowance * clustered_error(beyond, user) if beyond.any() else 0.0


@dataclass(frozen=True, slots=True)
class WeightFacts:
    """What page weights say: how many, effective sample size, their mean with its error, the largest, and the share of
    the weighted reward that the heaviest 1 % carry."""

    pages: int
    size: float
    mean: float
    error: float
    largest: float
    top: float


def weight_facts(weight: Floats, reward: Floats) -> WeightFacts:
    """weight, reward: [b], of pages."""
    return WeightFacts(
        len(weight),
        effective_sample_size(np.abs(weight)) if np.any(weight != 0) else 0.0,
        float(weight.mean()),
        float(weight.std()) / np.sqrt(len(weight)),
        float(weight.max()),
        top_share(np.abs(weight), np.abs(weight) * reward),
    )


def judge_weights(
    found: WeightFacts, gates: PageGates = PAGE_GATES, *, averages_one: bool = True
) -> tuple[Verdict, tuple[str, ...]]:
    """The verdict on an estimate by page weights and its reasons.

    averages_one: False for weights that were capped on purpose, whose mean says nothing.
    """
    pages, size = found.pages, found.size
    bad: list[str] = []
    weak: list[str] = []
    if size < gates.refuse_below:
        bad.append(_short_of(size, pages, gates.refuse_below))
    elif size < gates.weak_below:
        weak.append(_short_of(size, pages, gates.weak_below))
    off = abs(found.mean - 1)
    # With a handful of heavy pages the mean's error is not known well enough to accuse anybody.
    if averages_one and size >= gates.refuse_below and off > 1e-6 and off > gates.balance_errors * found.error:
        bad.append(f"weights average {found.mean:.3f} instead of 1: propensities are wrong or the log lacks support")
    if found.top > 0.5 and size < pages / 2:
        weak.append(f"the 1 % of pages with the largest weights carry {found.top:.0%} of the weighted reward")
    if bad:
        return "unusable", tuple(bad + weak)
    return ("weak" if weak else "conclusive"), tuple(weak)


def judge_listeners(size: Floats, gates: PageGates = PAGE_GATES) -> tuple[Verdict, tuple[str, ...]]:
    """Whether the pages are of enough listeners; size: [u] pages of each."""
    weak = []
    if len(size) < gates.least_listeners:
        weak.append(f"{len(size)} listeners; {gates.least_listeners} are needed for an interval to rely on")
    share = float(size.max()) / float(size.sum())
    if share > gates.largest_share:
        weak.append(f"one listener made {share:.0%} of the pages: the value is largely that of one person")
    return ("weak" if weak else "conclusive"), tuple(weak)


def precision(
    value: float, half: float, pages: int, verdict: Verdict, gates: PageGates = PAGE_GATES
) -> tuple[Verdict, tuple[str, ...]]:
    """The verdict, lowered where the interval says little, and the pages that would make it as narrow as wanted."""
    if not np.isfinite(half) or half > gates.weak_half_width * abs(value):
        verdict = worse(verdict, "weak")
    wanted = gates.half_width * abs(value)
    if wanted <= 0 or not np.isfinite(half) or half <= wanted:
        return verdict, ()
    more = int(np.ceil(pages * ((half / wanted) ** 2 - 1)))
    share = half / abs(value)
    return verdict, (
        f"the interval is value ± {share:.0%}; for {gates.half_width:.0%} {_about(more)} more pages are needed"
        " at this exploration rate",
    )


def without_exploration(data: LoggedPages) -> tuple[str, ...]:
    """A warning where a position of the log was held greedy: cards below the best never stand there."""
    held = (data.shelf_epsilon_logged == 0).any() or (data.card_epsilon_logged == 0).any()
    if not held:
        return ()
    return (
        "the log holds pages with an exploration rate of 0 at some position: what never stood there is not evaluated",
    )


def replay_error(data: LoggedPages) -> float:
    """Largest difference between a recorded propensity and the one that ranks and rates give."""
    shelf, card = page_propensity(data, "logged")
    there, shown = data.row_shelf >= 0, data.order >= 0
    return float(
        max(
            np.abs(shelf - data.shelf_propensity)[there].max(initial=0.0),
            np.abs(card - data.card_propensity)[shown].max(initial=0.0),
        )
    )


def left_out(reasons: Mapping[str, int]) -> tuple[str, ...]:
    """A sentence on the pages that were not evaluated, if any; reasons: how many for which."""
    some = [f"{count:,} {reason}" for reason, count in reasons.items() if count]
    return (f"pages left out: {', '.join(some)}",) if some else ()


def weight_histogram(weight: Floats, edges: Sequence[float] = EDGES) -> dict[str, list[float]]:
    """Shares of weights between the edges, the last class open above: for plots."""
    bounds = np.array([*edges, np.inf])
    count = np.histogram(weight, bounds)[0]
    return {"edges": [float(e) for e in edges], "share": (count / max(count.sum(), 1)).tolist()}


def _short_of(size: float, pages: int, gate: float) -> str:
    words = f"effective sample size {size:.1f} of {pages:,} pages; at least {gate:g} is needed"
    if size <= 0:
        return words
    return f"{words}: {_about(int(np.ceil(pages * (min(gate / size, 1e12) - 1))))} more at this exploration rate"


def _about(pages: int) -> str:
    """A count as one says it: two digits, and no more than a billion."""
    if pages > 1_000_000_000:
        return "over a billion"
    rounded = float(f"{pages:.2g}")
    return f"about {rounded:,.0f}"

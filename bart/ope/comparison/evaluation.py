"""Several evaluation policies on one log of pages, in one way whatever its length and wherever it is summed up.

`put_block` adds what a block of the log leaves; `summed_log` asks for the passes that a log of so many blocks needs and
reads them off. Who calls them says where blocks come from: pages in memory here, files of an export on this machine's
processes or on Spark in `api.evaluate.pages_log`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np

from bart.errors import DataError
from bart.ope.comparison.comparison import (
    GREEDY,
    MAIN,
    LogParts,
    block_parts,
    comparison_report,
    put_comparison,
)
from bart.ope.comparison.exploration_cost import greedy_record
from bart.ope.engine.exposure import Shared
from bart.ope.engine.exposure_fit import PASSES, SETTLED, Pooled, pooled, starts
from bart.ope.engine.listeners import Listeners, listener_keys
from bart.ope.engine.pages import (
    EXPOSURE,
    Asked,
    Given,
    PolicySums,
    caps_of,
    put_first,
    put_policy,
    put_times,
    put_weighed,
)
from bart.ope.engine.sums import Statistics
from bart.ope.exposure.doubly_robust import CAP
from bart.ope.policies.pages import PAGE_REPORT, EvaluationPolicy, as_row
from bart.ope.records.estimate import Estimate, Verdict
from bart.ope.records.irregular import OddPages
from bart.ope.records.log_side import LogSide, usable_pages
from bart.ope.records.pages import LoggedPages
from bart.ope.verdict.pages import left_out
from bart.types import Floats, Ints, ItemTable, PageBatch

LEFT_OUT = "left out: "


@dataclass(frozen=True, slots=True, eq=False)
class Question:
    """What is asked of a log of pages.

    asked: estimators. compared: whether policies are compared, too. jackknife: the level of such intervals, None for
    none. columns: of the largest page.
    """

    asked: Asked
    compared: bool = False
    jackknife: float | None = None
    columns: int = 1


@dataclass(frozen=True, slots=True, eq=False)
class Common:
    """What the blocks of a log have in common once a first pass was made. parts: None where nothing is compared.
    odd: whether any page's propensities do not follow from ranks. fits: whether fits alone are wanted, which an earlier
    pass at other parameters did not settle."""

    given: Mapping[str, Given] = field(default_factory=dict)
    parts: LogParts | None = None
    odd: bool = True
    fits: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Place:
    """A block's place in its log. blocks: how many there are. part: of the log's pages. grouped: see `listeners`."""

    blocks: int = 1
    part: float = 1.0
    grouped: bool = False


def put_block(
    out: Statistics,
    question: Question,
    pages: PageBatch,
    policies: Iterable[EvaluationPolicy],
    rngs: Sequence[np.random.Generator],
    *,
    q_logged: Floats | None = None,
    items: ItemTable | None = None,
    place: Place = Place(),
    common: Common | None = None,
    on_policy: Callable[[int, str], None] | None = None,
) -> None:
    """Adds what a block leaves: everything where it is the log, what blocks need in common in a first pass, and the
    rest once `common` says it.

    rngs: one a policy, then one for the greedy ranking. q_logged: [N] predicted rewards of the logging policy's model,
    if it predicts rewards. items: for comparisons. on_policy: is told each policy's number and name.
    """
    usable, reasons = usable_pages(pages)
    first, last = common is None, common is not None or place.blocks == 1
    if first:
        _put_facts(out, question, pages, reasons)
    if not len(usable):
        return
    odd = OddPages.of(pages, usable) if common is None or common.odd else OddPages.none(len(usable))
    if first:
        out.put("odd pages", len(odd.which()))
    side = LogSide.of(pages, q_logged, odd=odd)
    greedy = greedy_record(pages, q_logged, side) if question.compared else None
    compared = greedy is not None and bool(greedy.seen.any() if common is None else common.parts)
    parts = block_parts(pages, items, log=common.parts if common else None, side=side) if compared and last else None
    key = _keys(pages, usable, place)
    listeners = Listeners.of(key)
    caps = tuple(dict.fromkeys([*caps_of(question.asked), *((CAP,) if compared else ())]))

    def put(name: str, data: LoggedPages, asked: Asked, fits: Sequence[float], rng: np.random.Generator) -> None:
        if not last:
            put_first(out, name, data, asked, fits, place.part)
            if name == GREEDY:
                LogParts.put_slots(out, data)
            return
        given = common.given[name] if common else Given()
        if common is None or not common.fits:
            put_weighed(out, name, data, listeners, asked, given.slots)
        found = put_policy(
            out,
            name,
            data,
            listeners,
            asked,
            rng,
            caps=fits,
            given=given if common else None,
            part=place.part,
            jackknife=question.jackknife,
        )
        put_times(out, name, pages.at_s[usable], data, listeners, found.get(CAP, next(iter(found.values()), None)))
        if parts is not None and name != GREEDY:
            put_comparison(out, name, data, found[CAP], key, parts, place.part, fits=common is not None and common.fits)

    if greedy is not None and compared:
        put(GREEDY, greedy, MAIN, (CAP,), rngs[-1])
        del greedy
    for number, policy in enumerate(policies):
        if on_policy is not None:
            on_policy(number, policy.name)
        put(policy.name, policy.logged(pages, q_logged, side), question.asked, caps, rngs[number])


@dataclass(frozen=True, slots=True, eq=False)
class SummedLog:
    """A log summed up. found: all sums. policies: by name. greedy: where policies are compared."""

    found: Statistics
    policies: Mapping[str, PolicySums]
    greedy: PolicySums | None

    def left_out(self) -> dict[str, int]:
        """Pages that no record holds, by reason."""
        names = [name for name in self.found.names() if name.startswith(LEFT_OUT)]
        return {name.removeprefix(LEFT_OUT): int(self.found.total(name)) for name in names}

    def rows(
        self, rngs: Sequence[np.random.Generator], level: float, interval: str | None = None
    ) -> dict[str, Mapping[str, Estimate]]:
        """Estimates by policy and estimator. rngs: one a policy, for intervals that draw."""
        notes = left_out(self.left_out())
        return {
            name: {each: sums.estimate(each, interval, level, rng, notes) for each in sums.asked}
            for (name, sums), rng in zip(self.policies.items(), rngs, strict=True)
        }

    def compared(self, rng: np.random.Generator, verdicts: Mapping[str, Verdict], level: float) -> dict[str, Any]:
        """The parts of the report that compare policies; none for a log without seen flags."""
        if self.greedy is None:
            return {}
        notes = left_out(self.left_out())
        return comparison_report(self.policies, self.greedy, rng, verdicts, level=level, left_out=notes)


Run: TypeAlias = "Callable[[Common | None, str], Statistics]"


def summed_log(run: Run, names: Sequence[str], question: Question, blocks: int, empty: str = "") -> SummedLog:
    """The log summed up in the passes that it takes. names: of the policies.

    run: sums over all blocks of `put_block`, given what they have in common, and the name of the pass. empty: what to
    say of a log without pages. Raises DataError where no page can be evaluated.
    """
    found = run(None, "Reading and estimating" if blocks == 1 else "Summing up the log")
    log = SummedLog(found, {}, None)
    left = log.left_out()
    if found.total("pages") <= sum(left.values()):
        told = ", ".join(f"{count:,} {reason}" for reason, count in left.items() if count)
        raise DataError(f"no page is left to evaluate ({told}); expected at least one" if told else empty)
    compared = any(name.startswith(f"{GREEDY}/") for name in found.names())
    caps = tuple(dict.fromkeys([*caps_of(question.asked), *((CAP,) if compared else ())]))
    wanted = {**dict.fromkeys(names, (question.asked, caps)), **({GREEDY: (MAIN, (CAP,))} if compared else {})}
    if blocks == 1:
        fits = {name: {cap: pooled(found, name, cap) for cap in each} for name, (_, each) in wanted.items()}
    else:
        parts = LogParts.read(found, question.columns) if compared else None
        more, fits = _fitted(run, found, wanted, parts)
        more.add(found)
        found = more
    sums = {name: PolicySums(found, name, asked, fits[name]) for name, (asked, _) in wanted.items()}
    return SummedLog(found, {name: sums[name] for name in names}, sums.get(GREEDY))


Fits: TypeAlias = "dict[str, dict[float, Pooled]]"


def _fitted(
    run: Run, found: Statistics, wanted: Mapping[str, tuple[Asked, Sequence[float]]], parts: LogParts | None
) -> tuple[Statistics, Fits]:
    """The sums at what the blocks have in common, and the fits; passes until these have settled."""
    slots = {name: _slots(found, name, asked) for name, (asked, _) in wanted.items()}
    at: dict[str, dict[float, Shared]] = {name: starts(found, name, caps) for name, (_, caps) in wanted.items()}
    weighed = Statistics()
    for number in range(1, PASSES + 1):
        given = {name: Given(at[name], slots[name]) for name in wanted}
        odd = found.total("odd pages") > 0
        more = run(Common(given, parts, odd, fits=number > 1), f"Estimating, pass {number}")
        fits = {name: {cap: pooled(more, name, cap, each) for cap, each in at[name].items()} for name in wanted}
        more.fill(weighed)
        off = [fit.off(kind) for each in fits.values() for fit in each.values() for kind in EXPOSURE]
        if max(off, default=0.0) <= SETTLED:
            break
        at = {name: {c: one.moved(fits[name][c].step) for c, one in each.items()} for name, each in at.items()}
        weighed = more
    return more, fits


def _slots(found: Statistics, policy: str, asked: Asked) -> dict[str, Floats]:
    kept = {name: found.values(f"{policy}/{name}/slots") for name in asked}
    return {name: values.reshape(3, -1) for name, values in kept.items() if len(values)}


def _put_facts(out: Statistics, question: Question, pages: PageBatch, reasons: Mapping[str, int]) -> None:
    out.put("pages", len(pages))
    out.put("seen", pages.seen.sum())
    out.put("streams", pages.reward[pages.seen].sum())
    out.put("with pins", pages.pinned.any(axis=(1, 2)).sum())
    for reason, count in reasons.items():
        out.put(f"{LEFT_OUT}{reason}", count)
    if question.compared:
        LogParts.put(out, pages)


def _keys(pages: PageBatch, usable: Ints, place: Place) -> Ints:
    """[b] the listeners of the pages: by name in a log of one block, so that draws go by name; by hash in others."""
    user = pages.user_id[usable]
    if place.blocks > 1:
        return listener_keys(user, place.grouped)
    return np.unique(user.astype(str), return_inverse=True)[1].reshape(-1)


# ------------------------------------------------------------------------------------------------------ pages in memory


@dataclass(frozen=True, slots=True, eq=False)
class Evaluated:
    """A policy with its estimates by report name, and the shares of slot weights by size (see `weight_histogram`)."""

    policy: EvaluationPolicy
    estimates: Mapping[str, Estimate]
    weights: Mapping[str, list[float]]

    def as_row(self) -> dict[str, Any]:
        """Plain values for a report; its truth is to be filled in where it is known."""
        return policy_row(self.policy.name, self.estimates, self.weights)


def policy_row(name: str, estimates: Mapping[str, Estimate], weights: Mapping[str, list[float]]) -> dict[str, Any]:
    """A policy as plain values for a report."""
    return {
        "name": name, "truth": None, "truth_error": None, "estimates": as_row(estimates), "weights": dict(weights)
    }  # fmt: skip


def asked_of(
    estimators: Mapping[str, str] = PAGE_REPORT, parameters: Mapping[str, Mapping[str, Any]] | None = None
) -> dict[str, tuple[str, Mapping[str, Any]]]:
    """Estimators (kinds by the names that they have in the report) with their parameters, by the same names."""
    return {name: (kind, dict((parameters or {}).get(name, {}))) for name, kind in estimators.items()}


def evaluate_policies(
    batch: PageBatch,
    policies: Sequence[EvaluationPolicy],
    *,
    level: float = 0.95,
    rng: np.random.Generator,
    q_logged: Floats | None = None,
    estimators: Mapping[str, str] = PAGE_REPORT,
    parameters: Mapping[str, Mapping[str, Any]] | None = None,
    interval: str | None = None,
    on_progress: Callable[[int, int, str], None] | None = None,
) -> list[Evaluated]:
    """Each policy with its estimates from pages in memory.

    q_logged: [N] predicted rewards of the logging policy's model, if it predicts rewards. estimators: names of
    `PAGE_ESTIMATORS` by the names they have in the report; parameters: theirs, by the latter. interval: of
    `PAGE_INTERVALS`. Every policy gets a random stream of its own, so that adding one changes no other.
    """
    question = Question(asked_of(estimators, parameters), jackknife=level if interval == "jackknife" else None)
    streams = rng.spawn(len(policies))
    tick = None if on_progress is None else lambda number, name: on_progress(number, len(policies), name)

    def run(_: Common | None, __: str) -> Statistics:
        out = Statistics()
        put_block(out, question, batch, policies, streams, q_logged=q_logged, on_policy=tick)
        return out

    log = summed_log(run, [policy.name for policy in policies], question, 1)
    rows = log.rows(streams, level, interval)
    return [Evaluated(each, rows[each.name], log.policies[each.name].weights()) for each in policies]

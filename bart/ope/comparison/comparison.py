"""Beyond one value a policy: which is best, where, for whom, by which reward, who gets seen, what exploration costs.

`put_comparison` adds what a policy leaves of a block of pages, from the fit that its estimate rests on; so a log of any
length is compared without a record or a fit of its own. `comparison_report` reads off the parts of the report:

    selection            see `bart.ope.comparison.selection.Selection.as_dict`
    slices               a row a slice and policy: value, interval, verdict, difference to the baseline
    rewards              a row a reward and policy, from one set of weights
    exposure             shares of popular items and of new artists under each policy
    cost_of_exploration  greedy minus logging
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bart.ope.comparison.elimination import eliminate_pages
from bart.ope.comparison.exploration_cost import cost_row, greedy_record
from bart.ope.comparison.exposure_share import (
    MOST_PAGES,
    Exposed,
    artist_age,
    popularity_decile,
    seen_share,
    shares,
)
from bart.ope.comparison.rows import difference, discover, reward_row, slice_row
from bart.ope.comparison.selection import select_pages
from bart.ope.comparison.several_rewards import drawn_outcomes, outcome_spread, outcome_terms
from bart.ope.comparison.slices import estimate_slice, most_frequent, page_slices, slice_spread, slice_terms
from bart.ope.engine.exposure_fit import pooled
from bart.ope.engine.listeners import Listeners, by_listener, plus
from bart.ope.engine.pages import Asked, PolicySums, put_policy, put_weighed
from bart.ope.engine.sums import Statistics
from bart.ope.engine.weights import put_weights, summed_weights
from bart.ope.exposure.doubly_robust import CAP, ExposureFit
from bart.ope.intervals.pages import Spread
from bart.ope.records.estimate import Verdict
from bart.ope.records.log_side import LogSide
from bart.ope.records.pages import LoggedPages
from bart.ope.verdict.pages import left_out as sentence_on
from bart.types import Bools, Floats, Ints, ItemTable, PageBatch

MAIN_REWARD = "streams"
BASELINE = "logging"
MAIN: Asked = {"exposure_dr": ("exposure_dr", {})}  # what policies are compared by
GREEDY = "the logging policy's greedy ranking"


@dataclass(frozen=True, slots=True, eq=False)
class LogParts:
    """What divides a log in the same way in each of its blocks. surfaces: that have a slice. last_s: when its last page
    was decided. attention: [rows, columns], see `exposure_share.attention`."""

    surfaces: Sequence[str]
    last_s: int
    attention: Floats

    @staticmethod
    def put(out: Statistics, batch: PageBatch) -> None:
        """Adds what `read` needs of a block."""
        for surface, count in zip(*np.unique(batch.surface.astype(str), return_counts=True), strict=True):
            out.put(f"surface: {surface}", count)
        out.put("last", batch.at_s.max(), "max")

    @staticmethod
    def put_slots(out: Statistics, data: LoggedPages) -> None:
        """Adds what attention needs of a block; data: any record of it."""
        out.put("slots seen", data.seen.sum(axis=0).ravel())
        out.put("slots shown", (data.order >= 0).sum(axis=0).ravel())

    @staticmethod
    def read(found: Statistics, columns: int) -> LogParts:
        names = sorted(name for name in found.names() if name.startswith("surface: "))
        surface = np.array([name.removeprefix("surface: ") for name in names], dtype=object)
        count = np.array([found.total(name) for name in names])
        seen, shown = (found.values(f"slots {what}").reshape(-1, columns) for what in ("seen", "shown"))
        return LogParts(most_frequent(surface, count), int(found.total("last")), seen_share(seen, shown))


@dataclass(frozen=True, slots=True, eq=False)
class BlockParts:
    """The pages of a block as they are compared.

    masks: [b] by dimension and slice. outcomes: see `drawn_outcomes`. groups: of each candidate of a record, [N], and
    their names, by what divides them. slot: attention, None for that of the block.
    """

    masks: Mapping[tuple[str, str], Bools]
    outcomes: Mapping[str, tuple[Floats, Floats | None]]
    groups: Mapping[str, tuple[Ints, tuple[str, ...]]]
    slot: Floats | None


def block_parts(
    batch: PageBatch,
    items: ItemTable | None = None,
    masks: Mapping[str, Bools] | None = None,
    log: LogParts | None = None,
    side: LogSide | None = None,
) -> BlockParts:
    """items: for exposure by popularity and age of the artist. masks: slices of one's own, booleans of the batch's
    pages. log: that the block is a part of; the block itself where None. side: of the batch, made anew where None."""
    side = LogSide.of(batch) if side is None else side
    pages = side.pages
    named = page_slices(batch, surfaces=None if log is None else log.surfaces)
    if masks:
        named["own"] = {name: _checked(name, mask, len(batch)) for name, mask in masks.items()}
    last_s = int(batch.at_s.max()) if log is None else log.last_s
    return BlockParts(
        {(d, name): mask[pages] for d, each in named.items() for name, mask in each.items()},
        drawn_outcomes(batch, pages),
        {} if items is None else _item_groups(items, batch.item[side.flat], last_s),
        None if log is None else log.attention,
    )


def put_comparison(
    out: Statistics,
    policy: str,
    data: LoggedPages,
    fit: ExposureFit,
    key: Ints,
    parts: BlockParts,
    part: float = 1.0,
    *,
    fits: bool = False,
) -> None:
    """Adds what is compared of a policy. fit: of its record `data`. key: [b] of listeners. part: of the log. fits:
    whether only what depends on the fit is wanted."""
    listeners, none = Listeners.of(key), np.zeros(len(data))
    pinned = none if data.pinned_reward is None else data.pinned_reward
    every = np.concatenate([np.ones((len(data), 1)), slice_terms(fit), pinned[:, None]], axis=1)
    exposed = np.bincount(fit.summary.seen.page, fit.terms.plain * fit.terms.trust, len(data)).astype(np.float64)
    for (dimension, name), mask in parts.masks.items():
        if mask.any():
            place = f"{policy}/slice {dimension}|{name}"
            Listeners.of(key[mask]).put(out, place, every[mask])
            put_weights(out, place, exposed[mask], fit.reward[mask])
    found = outcome_terms(fit, [values for values, _ in parts.outcomes.values()]).T
    listeners.put(out, f"{policy}/reward {MAIN_REWARD}", found[:1].T)
    for drawn, (name, (_, by_pins)) in zip(found[1:], parts.outcomes.items(), strict=True):
        listeners.put(out, f"{policy}/reward {name}", np.stack([drawn, none if by_pins is None else by_pins], axis=1))
    if fits or not parts.groups:
        return
    read = Exposed.of(data, slot=parts.slot, most=int(np.ceil(MOST_PAGES * part)))
    readers = Listeners.of(key[read.pages])
    for kind, (group, labels) in parts.groups.items():
        readers.put(out, f"{policy}/exposed {kind}", read.by_group(group, len(labels)))
        out.put(f"groups {kind}: {'|'.join(labels)}", 1.0)


def comparison_report(
    policies: Mapping[str, PolicySums],
    greedy: PolicySums,
    rng: np.random.Generator,
    verdicts: Mapping[str, Verdict],
    *,
    baseline: str = BASELINE,
    level: float = 0.95,
    false_discovery: float = 0.05,
    left_out: Sequence[str] = (),
) -> dict[str, Any]:
    """The parts of the report that the header names. greedy: the logging policy without exploration, asked for `MAIN`.

    verdicts: of each policy's main estimate. baseline: what others are compared with; the first policy where none has
    that name. left_out: sentences on pages that were not evaluated.
    """
    main = {name: sums.with_pins(sums.fits[CAP].spread("exposure_dr")) for name, sums in policies.items()}
    base = baseline if baseline in main else next(iter(main))
    judged = {name: verdicts.get(name, "conclusive") for name in main}
    beyond = {name: sums.fits[CAP].beyond() for name, sums in policies.items()}
    selection = select_pages(
        main,
        rng,
        verdicts=judged,
        beyond=beyond,
        baseline=base,
        level=level,
        false_discovery=false_discovery,
    )
    still = eliminate_pages(main, beyond, judged, level)
    found = greedy.estimate("exposure_dr", None, level, rng, left_out)
    table = _Tables(policies, main, judged, base, level)
    slices, rewards = table.slices(), table.rewards()
    for rows in (slices, rewards):
        discover(rows, false_discovery)
    earned = greedy.with_pins(greedy.fits[CAP].earned())
    return {
        "selection": selection.as_dict(),
        "elimination": still.as_dict(),
        "slices": slices,
        "rewards": rewards,
        "exposure": table.exposure(),
        "cost_of_exploration": cost_row(greedy.spread("exposure_dr"), earned, found.verdict, found.warnings, level),
    }


@dataclass(frozen=True, slots=True, eq=False)
class _Tables:
    """Rows of the parts of the report. main: each policy's estimate."""

    policies: Mapping[str, PolicySums]
    main: Mapping[str, Spread]
    verdicts: Mapping[str, Verdict]
    baseline: str
    level: float

    def slices(self) -> list[dict[str, Any]]:
        head, tail = f"{self.baseline}/slice ", "/by listener 0"
        names = [n for n in self.policies[self.baseline].found.names() if n.startswith(head) and n.endswith(tail)]
        keys = [name[len(head) : -len(tail)].split("|", 1) for name in names]
        several = {d for d, _ in keys if sum(other == d for other, _ in keys) > 1} | {"own"}
        rows = []
        for dimension, name in keys:
            if dimension not in several:
                continue  # a slice that is the whole log says nothing new
            spreads = {}
            for policy, of in self.policies.items():
                sums = by_listener(of.found, f"{policy}/slice {dimension}|{name}")
                spreads[policy] = slice_spread(sums[:, 1:4], sums[:, 0], sums[:, 4])
            for policy, spread in spreads.items():
                facts = summed_weights(self.policies[policy].found, f"{policy}/slice {dimension}|{name}")
                found = estimate_slice(spread, facts, self.level)
                row = slice_row(dimension, name, policy, found, self.verdicts[policy])
                rows.append({**row, "difference": self._difference(policy, spread, spreads)})
        return rows

    def rewards(self) -> list[dict[str, Any]]:
        head, tail = f"{self.baseline}/reward ", "/by listener 0"
        found = self.policies[self.baseline].found.names()
        rows = []
        for reward in [n[len(head) : -len(tail)] for n in found if n.startswith(head) and n.endswith(tail)]:
            spreads = {policy: self._reward(policy, reward) for policy in self.policies}
            for policy, spread in spreads.items():
                row = reward_row(reward, policy, spread, self.verdicts[policy], self.level)
                rows.append({**row, "difference": self._difference(policy, spread, spreads)})
        return rows

    def exposure(self) -> dict[str, Any]:
        out = {}
        for told in [n for n in self.policies[self.baseline].found.names() if n.startswith("groups ")]:
            kind, labels = told.removeprefix("groups ").split(": ", 1)
            rows = []
            for policy, of in self.policies.items():
                sums = by_listener(of.found, f"{policy}/exposed {kind}")
                each = shares(sums, np.arange(len(sums)), labels.split("|"), self.level)
                rows.append({"policy": policy, "shares": [share.as_dict() for share in each]})
            out[kind] = rows
        return out

    def _reward(self, policy: str, reward: str) -> Spread:
        if reward == MAIN_REWARD:
            return self.main[policy]
        found, drawn = self.policies[policy].found, self.policies[policy].fits[CAP].spread("exposure_dr")
        y, z = (by_listener(found, f"{policy}/reward {name}") for name in (MAIN_REWARD, reward))
        return plus(outcome_spread(drawn, y[:, 0], z[:, 0]), z[:, 1])

    def _difference(self, policy: str, spread: Spread, every: Mapping[str, Spread]) -> dict[str, Any] | None:
        if policy == self.baseline:
            return None
        return difference(spread, every[self.baseline], self.baseline, self.level)


def compare_policies(
    batch: PageBatch,
    records: Mapping[str, LoggedPages],
    rng: np.random.Generator,
    *,
    verdicts: Mapping[str, Verdict] | None = None,
    masks: Mapping[str, Bools] | None = None,
    items: ItemTable | None = None,
    q_logged: Floats | None = None,
    **options: Any,
) -> dict[str, Any]:
    """The same for pages in memory; records: of each policy, made from `batch`. Nothing where no card was seen.

    masks: slices of one's own, booleans [b]. verdicts: of each policy's main estimate, made anew where None. options:
    of `comparison_report`. Raises ValueError for a record of other pages.
    """
    side = LogSide.of(batch, q_logged)
    parts, pages = block_parts(batch, items, masks, side=side), side.pages
    greedy_data = greedy_record(batch, q_logged, side)
    if not greedy_data.seen.any():
        return {}
    out, sums = Statistics(), {}
    key = np.unique(batch.user_id[pages].astype(str), return_inverse=True)[1].reshape(-1)
    for name, data in {GREEDY: greedy_data, **records}.items():
        if len(data) != len(pages):
            raise ValueError(f"record {name!r} has {len(data)} pages; expected {len(pages)}, those of the batch")
        asked = MAIN if name == GREEDY or verdicts is None else {}
        put_weighed(out, name, data, Listeners.of(key), asked, {})
        fits = put_policy(out, name, data, Listeners.of(key), asked, rng, caps=(CAP,))
        if name != GREEDY:
            put_comparison(out, name, data, fits[CAP], key, parts)
        sums[name] = PolicySums(out, name, asked, {CAP: pooled(out, name, CAP)})
    greedy = sums.pop(GREEDY)
    if verdicts is None:
        verdicts = {name: each.estimate("exposure_dr", None, 0.95, rng).verdict for name, each in sums.items()}
    return comparison_report(sums, greedy, rng, verdicts, left_out=sentence_on(side.left_out), **options)


def _checked(name: str, mask: Any, n: int) -> Bools:
    values = np.asarray(mask)
    if values.shape != (n,) or values.dtype != np.bool_:
        raise ValueError(f"slice {name!r} has shape {values.shape} and type {values.dtype}; expected booleans ({n},)")
    return values


def _item_groups(items: ItemTable, item: Ints, last_s: int) -> dict[str, tuple[Ints, tuple[str, ...]]]:
    """Group of each candidate [N] by popularity and by age of the artist; candidates without an item are "unknown".

    item: [N] rows of the table."""
    found = {"popularity": popularity_decile(items), "artist_age": artist_age(items, np.datetime64(last_s, "s"))}
    out = {}
    for name, (group, labels) in found.items():
        if "unknown" not in labels:
            labels = (*labels, "unknown")
        of_item = np.append(group, len(labels) - 1)  # -1, not in the table: the last
        out[name] = (of_item[item], labels)
    return out

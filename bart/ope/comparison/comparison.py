"""Beyond one value a policy: which is best, where, for whom, by which reward, who gets seen, what exploration costs.

`PolicyComparison` is filled while policies are evaluated, log block by log block, so that no record is made or fitted
for it alone; it keeps a few numbers a page and gives the parts of the report as plain values:

    selection            see `bart.ope.comparison.selection.Selection.as_dict`
    slices               a row a slice and policy: value, interval, verdict, difference to the baseline
    rewards              a row a reward and policy, from one set of weights
    exposure             shares of popular items and of new artists under each policy
    cost_of_exploration  greedy minus logging
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from bart.ope.comparison.exploration_cost import cost_row, greedy_record, paired_with_log
from bart.ope.comparison.exposure_share import artist_age, group_exposure, popularity_decile, shares
from bart.ope.comparison.rows import difference, discover, reward_row, slice_row
from bart.ope.comparison.selection import select_pages
from bart.ope.comparison.several_rewards import drawn_outcomes, outcome_spread
from bart.ope.comparison.slices import SlicePart, page_slices, plus, pool, slice_part
from bart.ope.estimators.pages import estimate_pages, exposure_dr
from bart.ope.intervals.pages import Spread
from bart.ope.policies.pooled import no_refit
from bart.ope.records.estimate import Verdict
from bart.ope.records.from_batch import candidates_of, usable_pages
from bart.ope.records.pages import LoggedPages
from bart.types import Bools, Floats, Ints, ItemTable, PageBatch

MAIN_REWARD = "streams"
BASELINE = "logging"
Mask = Callable[[PageBatch], Bools]


class PolicyComparison:
    """What is compared of the policies of one log of pages.

    For each block of the log: `start`, then `add` for every policy. At the end `report`.
    """

    def __init__(
        self,
        items: ItemTable | None = None,
        *,
        baseline: str = BASELINE,
        level: float = 0.95,
        masks: Mapping[str, Mask] | None = None,
        false_discovery: float = 0.05,
    ) -> None:
        """items: for exposure by popularity and age of the artist. baseline: what others are compared with; the first
        policy where none has that name. masks: slices of one's own, each gives booleans [pages] of a block."""
        self.items, self.level, self.false_discovery = items, level, false_discovery
        self._wanted, self._own = baseline, dict(masks or {})
        self._spread: dict[str, list[Spread]] = {}
        self._slice: dict[tuple[str, str], dict[str, list[SlicePart]]] = {}
        self._reward: dict[str, dict[str, list[Spread]]] = {MAIN_REWARD: {}}
        self._exposed: dict[str, dict[str, list[Floats]]] = {}
        self._exposed_user: list[Ints] = []
        self._labels: dict[str, tuple[str, ...]] = {}
        self._greedy: list[Spread] = []
        self._earned: list[Floats] = []
        self._greedy_verdict: tuple[Verdict, tuple[str, ...]] | None = None
        self._blocks = 0

    def start(
        self,
        batch: PageBatch,
        q_logged: Floats | None = None,
        users: Mapping[str, int] | None = None,
        rng: np.random.Generator | None = None,
    ) -> None:
        """A block of the log. q_logged, users: as of `logged_pages`; users is needed where there are several blocks."""
        if not batch.seen[usable_pages(batch)[0]].any():
            return  # exposure needs seen flags: there is nothing to compare by
        self._blocks += 1
        self._pages, self._candidates = usable_pages(batch)[0], candidates_of(batch)
        named = page_slices(batch)
        if self._own:
            named["own"] = {name: _checked(name, mask(batch), len(batch)) for name, mask in self._own.items()}
        self._masks = {(d, name): mask[self._pages] for d, masks in named.items() for name, mask in masks.items()}
        self._outcomes = drawn_outcomes(batch, self._pages)
        self._groups = {} if self.items is None else _item_groups(self.items, batch)
        record = greedy_record(batch, q_logged, users)
        self._greedy.append(replace(paired_with_log(record), refit=no_refit))
        self._earned.append(record.page_reward)
        if self._greedy_verdict is None:
            found = estimate_pages("exposure_dr", record, level=self.level, rng=rng)
            self._greedy_verdict = found.verdict, found.warnings
        self._noted_users = False

    def add(self, name: str, data: LoggedPages) -> None:
        """A policy; `data`: its record of the pages of the block."""
        if not data.seen.any():
            return
        if not self._blocks or len(data) != len(self._pages):
            raise ValueError(f"data has {len(data)} pages; expected those of the block that `start` was given")
        if len(self._spread.get(name, ())) == self._blocks:
            raise ValueError(f"policy {name!r} was added before; expected different names")
        terms = exposure_dr(data)
        if terms.fit is None or terms.page_weight is None:
            raise ValueError("exposure_dr gave no fit; expected pages with seen flags")
        spread = Spread(terms.value, terms.influence, data.user, no_refit)
        drawn = terms if terms.drawn is None else terms.drawn
        of_drawn = Spread(drawn.value, drawn.influence, data.user, no_refit)
        self._spread.setdefault(name, []).append(spread)
        for key, mask in self._masks.items():
            if mask.any():
                part = slice_part(terms.fit, terms.page_weight, data.user, mask, data.pinned_reward)
                self._slice.setdefault(key, {}).setdefault(name, []).append(part)
        self._reward[MAIN_REWARD].setdefault(name, []).append(spread)
        for reward, (values, by_pins) in self._outcomes.items():
            found = plus(outcome_spread(terms.fit, of_drawn, values), by_pins)
            self._reward.setdefault(reward, {}).setdefault(name, []).append(found)
        for kind, (group, labels) in self._groups.items():
            sums, user = group_exposure(data, group[self._candidates], len(labels), "target")
            self._labels[kind] = labels
            self._exposed.setdefault(kind, {}).setdefault(name, []).append(sums)
            if not self._noted_users:
                self._exposed_user.append(user)
                self._noted_users = True

    @property
    def baseline(self) -> str:
        """The policy that others are compared with."""
        return self._wanted if self._wanted in self._spread else next(iter(self._spread))

    def report(self, rng: np.random.Generator, verdicts: Mapping[str, Verdict]) -> dict[str, Any]:
        """The parts of the report that the header names; nothing for a log without seen flags.

        verdicts: of each policy's main estimate.
        """
        if not self._spread:
            return {}
        whole = {name: pool(parts) for name, parts in self._spread.items()}
        judged = {name: verdicts.get(name, "conclusive") for name in whole}
        selection = select_pages(
            whole,
            rng,
            verdicts=judged,
            baseline=self.baseline,
            level=self.level,
            false_discovery=self.false_discovery,
        )
        verdict, warnings = self._greedy_verdict or ("conclusive", ())
        return {
            "selection": selection.as_dict(),
            "slices": self._slice_rows(judged),
            "rewards": self._reward_rows(judged),
            "exposure": self._exposure_rows(),
            "cost_of_exploration": cost_row(
                pool(self._greedy), float(np.concatenate(self._earned).mean()), verdict, warnings, self.level
            ),
        }

    def _slice_rows(self, verdicts: Mapping[str, Verdict]) -> list[dict[str, Any]]:
        rows = []
        several = {d for d, _ in self._slice if sum(other == d for other, _ in self._slice) > 1} | {"own"}
        for (dimension, name), by_policy in self._slice.items():
            if dimension not in several:
                continue  # a slice that is the whole log says nothing new
            base = pool([part.spread for part in by_policy[self.baseline]])
            for policy, parts in by_policy.items():
                row = slice_row(dimension, name, policy, parts, verdicts[policy], self.level)
                other = pool([part.spread for part in parts])
                row["difference"] = None if policy == self.baseline else self._difference(other, base)
                rows.append(row)
        discover(rows, self.false_discovery)
        return rows

    def _reward_rows(self, verdicts: Mapping[str, Verdict]) -> list[dict[str, Any]]:
        rows = []
        for reward, by_policy in self._reward.items():
            base = pool(by_policy[self.baseline])
            for policy, parts in by_policy.items():
                spread = pool(parts)
                row = reward_row(reward, policy, spread, verdicts[policy], self.level)
                row["difference"] = None if policy == self.baseline else self._difference(spread, base)
                rows.append(row)
        discover(rows, self.false_discovery)
        return rows

    def _exposure_rows(self) -> dict[str, Any]:
        if not self._exposed:
            return {}
        user = np.concatenate(self._exposed_user)
        return {
            kind: [
                {
                    "policy": policy,
                    "shares": [s.as_dict() for s in shares(np.concatenate(sums), user, self._labels[kind], self.level)],
                }
                for policy, sums in by_policy.items()
            ]
            for kind, by_policy in self._exposed.items()
        }

    def _difference(self, one: Spread, other: Spread) -> dict[str, Any]:
        return difference(one, other, self.baseline, self.level)


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
    """The same for a log that is at hand as a whole; records: of each policy, made from `batch`.

    masks: slices of one's own, booleans [b]. verdicts: of each policy's main estimate, made anew where None. options:
    of `PolicyComparison`.
    """
    given = {name: (lambda _, values=values: values) for name, values in (masks or {}).items()}
    comparison = PolicyComparison(items, masks=given, **options)
    comparison.start(batch, q_logged, rng=rng)
    for name, data in records.items():
        comparison.add(name, data)
    if verdicts is None:
        verdicts = {name: estimate_pages("exposure_dr", data, rng=rng).verdict for name, data in records.items()}
    return comparison.report(rng, verdicts)


def _checked(name: str, mask: Any, n: int) -> Bools:
    values = np.asarray(mask)
    if values.shape != (n,) or values.dtype != np.bool_:
        raise ValueError(f"slice {name!r} has shape {values.shape} and type {values.dtype}; expected booleans ({n},)")
    return values


def _item_groups(items: ItemTable, batch: PageBatch) -> dict[str, tuple[Ints, tuple[str, ...]]]:
    """Group of each candidate [N] by popularity and by age of the artist; candidates without an item are "unknown"."""
    last = np.datetime64(int(batch.at_s.max(initial=0)), "s")
    found = {"popularity": popularity_decile(items), "artist_age": artist_age(items, last)}
    out = {}
    for name, (group, labels) in found.items():
        if "unknown" not in labels:
            labels = (*labels, "unknown")
        of_item = np.append(group, len(labels) - 1)  # -1, not in the table: the last
        out[name] = (of_item[batch.item], labels)
    return out

"""Selection that may be looked at any day: a policy leaves once another is shown to be better, at whatever row that is.

For policies i and j with weights w_i and w_j, w_i r + w_j (1 - r) is not negative and has the mean 1 + v_i - v_j for
rewards in [0, 1], whatever the rows before it made of the logging policy. So the bets of `bart.ope.intervals.anytime`
give a lower end for v_i - v_j that holds at every row at once, and the best policy is left out at some row with
probability 1 - level at most: only its k - 1 comparisons with the others can do that, each at (1 - level) / (k - 1).
Pages have no weights that a betting sequence could use: `eliminate_pages` takes the differences of their estimates by
listener and the normal mixture of `bart.ope.intervals.clusters`, which holds at every look from which on a normal law
does.
Source: Waudby-Smith, Wu, Ramdas, Karampatziakis and Mineiro, Anytime-valid off-policy inference for contextual bandits
(2022); elimination as of Even-Dar, Mannor and Mansour (2006).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from bart.ope.intervals.anytime import lower_ends
from bart.ope.intervals.clusters import Clustered, degrees_of_freedom, freedom_of_tails
from bart.ope.intervals.pages import PageSetting, Spread, allow_for_bias
from bart.ope.records.choices import LoggedChoices
from bart.ope.records.estimate import Verdict
from bart.ope.records.terms import reward_limits
from bart.ope.verdict.pages import PAGE_GATES
from bart.ope.weights.choices import choice_weight, choice_weight_limits


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a policy stands. eliminated_at: the row, counted from 1, at which it left (how many pages there are, where
    it is out by them); None while it may be the best. by: the policy that was shown to be better. behind: by how much
    at least, at the last row; None as before."""

    policy: str
    eliminated_at: int | None
    by: str | None
    behind: float | None


@dataclass(frozen=True, slots=True)
class Elimination:
    """standings: of all policies, as they were given. level: the probability that the best one is never left out,
    however often one looks."""

    standings: tuple[Standing, ...]
    level: float
    n: int

    @property
    def left(self) -> tuple[str, ...]:
        """Policies that may be the best."""
        return tuple(each.policy for each in self.standings if each.eliminated_at is None)

    def as_dict(self) -> dict[str, Any]:
        """Plain values for a report."""
        rows = [asdict(each) for each in self.standings]
        return {"level": self.level, "n": self.n, "left": list(self.left), "standings": rows}


def eliminate_pages(
    spreads: Mapping[str, Spread], beyond: Mapping[str, Spread], verdicts: Mapping[str, Verdict], level: float = 0.95
) -> Elimination:
    """The same for page policies, by the spreads of one estimator on one log.

    beyond: of each policy, what the cap on its weights leaves out; differences allow for the bias by it. verdicts: of
    each; only a conclusive estimate puts another policy out, and none puts out one that cannot be estimated.
    """
    names, pages = tuple(spreads), len(next(iter(spreads.values())))
    alpha = (1 - level) / max(len(names) - 1, 1)
    standings = []
    for name in names:
        rivals = []
        for other in names:
            if other == name or verdicts[other] != "conclusive" or verdicts[name] == "unusable":
                continue
            ahead = _lower_end(spreads[other].minus(spreads[name]), beyond[other].minus(beyond[name]), 1 - alpha)
            if ahead > 0:
                rivals.append((ahead, other))
        ahead, best = max(rivals, default=(0.0, ""))
        standings.append(Standing(name, pages, best, ahead) if rivals else Standing(name, None, None, None))
    return Elimination(tuple(standings), level, pages)


def _lower_end(gap: Spread, beyond: Spread, level: float) -> float:
    """Of a difference, at every look."""
    error = gap.standard_error()
    if not 0 < error < np.inf:
        return 0.0
    size, sums, n = gap.size(), gap.by_user(), len(gap)
    freedom = min(degrees_of_freedom(size), freedom_of_tails(sums))
    share = float(size.max()) / n
    found = Clustered(gap.value, error, freedom, n, len(size), share, n * error**2).always(level)
    setting = PageSetting(level, lowest=-np.inf)
    bias = PAGE_GATES.cap_allowance * beyond.standard_error() if beyond.influence.any() else 0.0
    return allow_for_bias(found, gap.value, bias, setting)[0]


def eliminate(
    policies: Mapping[str, LoggedChoices], *, level: float = 0.95, reward_range: tuple[float, float] | None = None
) -> Elimination:
    """Which policies may still be the best, after all rows so far. policies: records of one log, in the order of time.

    Raises ValueError for rows of named users or of a subsampled log, which are no such sequence.
    """
    if not policies or not 0 < level < 1:
        raise ValueError(f"{len(policies)} policies, level {level}; expected at least one and a level in (0, 1)")
    names, records = tuple(policies), list(policies.values())
    first = records[0]
    if any(each.user is not None or each.sample_weight is not None for each in records):
        raise ValueError("rows are of named users or subsampled; expected rows that follow from those before by chance")
    seen = float(first.reward.min()), float(first.reward.max())
    low, high = reward_range or reward_limits(*seen)
    if not high > low or seen[0] < low or seen[1] > high:
        raise ValueError(f"rewards lie in {list(seen)}; expected reward_range around them, of some width")
    share = (first.reward - low) / (high - low)
    weight = [choice_weight(each) for each in records]
    largest = max(choice_weight_limits(each)[1] for each in records)
    alpha = (1 - level) / max(len(names) - 1, 1)
    standings = []
    for j, name in enumerate(names):
        rivals = []
        for i in range(len(names)):
            if i != j and not np.array_equal(weight[i], weight[j]):
                both = (weight[i] * share + weight[j] * (1 - share)) / 2
                ends = 2 * lower_ends(both, (weight[i] + weight[j]) / 2, largest, alpha) - 1  # of v_i - v_j
                if ends[-1] > 0:
                    rivals.append((int(np.argmax(ends > 0)) + 1, names[i], float(ends[-1]) * (high - low)))
        standings.append(Standing(name, *min(rivals)) if rivals else Standing(name, None, None, None))
    return Elimination(tuple(standings), level, len(first))

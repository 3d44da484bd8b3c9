"""Whether one decision is what it says: its propensities recomputed, its draw repeated, its pmfs summed.

Everything is checked from the record alone: scores, epsilons, seed. The recorded name of its policy says how it was
drawn; that of Plackett-Luce has the temperatures in it. A record whose policy begins with "imported" came from
elsewhere with its own propensities, and one whose policy has a name that is not known here cannot be rebuilt: there is
nothing to replay them with.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from bart.log.care.choices import N_BEST, N_LEFT, PMF_SUM, PROPENSITY, choice_facts
from bart.page.policy import PLACKETT_LUCE, SWAPS, PagePolicy, temperatures
from bart.page.search import search_page
from bart.ranking.policies import EpsilonGreedy, PlackettLuce, Uniform
from bart.types import Candidates, Decision, Floats, Ints

IMPORTED = "imported"
CLOSE = 1e-12  # of a pmf's sum and of a propensity worked out in another order of operations


@dataclass(frozen=True, slots=True)
class Moments:
    """Per choice of a page: 1 / (actions left x propensity), and its variance under the policy.

    position: [m], row r of a shelf as -1 - r, column of a card as it is. excluded: choices where an action has no
    probability, so that the mean need not be 1. trivial choices (one action left) are in neither.
    """

    position: Ints
    weight: Floats
    variance: Floats
    largest: Floats
    excluded: int

    @classmethod
    def concat(cls, parts: Sequence[Moments]) -> Moments:
        """Of several pages, as of one."""
        return cls(
            np.concatenate([part.position for part in parts]),
            np.concatenate([part.weight for part in parts]),
            np.concatenate([part.variance for part in parts]),
            np.concatenate([part.largest for part in parts]),
            sum(part.excluded for part in parts),
        )


NO_MOMENTS = Moments(np.empty(0, np.int64), np.empty(0), np.empty(0), np.empty(0), 0)


def epsilon_greedy_page(decision: Decision) -> PagePolicy:
    """The default policy, from the recorded epsilons."""
    return PagePolicy(EpsilonGreedy(decision.shelf_epsilon), EpsilonGreedy(decision.card_epsilon))


def uniform_page(_: Decision) -> PagePolicy:
    """Each action that is left is as likely as any other, whatever epsilons are recorded."""
    return PagePolicy(Uniform(), Uniform())


def plackett_luce_page(decision: Decision) -> PagePolicy:
    """Softmax at the temperatures that stand in the policy's name. Raises ValueError where they do not."""
    shelf, card = temperatures(decision.policy)
    return PagePolicy(PlackettLuce(shelf), PlackettLuce(card))


def swapped_page(decision: Decision) -> PagePolicy:
    """Search results: neighbours are exchanged at the recorded rates."""
    return search_page(decision.shelf_epsilon, decision.card_epsilon)


# by the name that stands in the record, up to a bracket
POLICIES: dict[str, Callable[[Decision], PagePolicy]] = {
    "epsilon_greedy": epsilon_greedy_page,
    "uniform": uniform_page,
    PLACKETT_LUCE: plackett_luce_page,
    SWAPS: swapped_page,
}


def rebuilder(name: str) -> Callable[[Decision], PagePolicy] | None:
    """What rebuilds the page policy of a recorded name, None where nothing here can."""
    kind, bracket, _ = name.partition("(")
    return POLICIES.get(kind) if bool(bracket) == (kind == PLACKETT_LUCE) else None


def replay(decision: Decision, policy: Callable[[Decision], PagePolicy] | None = None) -> tuple[list[str], Moments]:
    """What is wrong with a decision (nothing, if all is well), and its part in the mean of the weights.

    policy: rebuilds the page policy where its name is not in `POLICIES`; pmfs and weights are then left out, as for
    Plackett-Luce. Raises ValueError for a name that is not known, without a policy.
    """
    item = candidate_items(decision)
    rebuild = policy or rebuilder(decision.policy)
    if rebuild is None:
        raise ValueError(f"policy is {decision.policy!r}; expected one of {', '.join(POLICIES)}")
    problems = _check_propensity(decision, item, rebuild)
    if problems:  # the draw would only fail again, with a text that says less
        return problems, NO_MOMENTS
    problems += _check_draw(decision, item, rebuild)
    if policy is not None or rebuild in (plackett_luce_page, swapped_page):  # of others the pmf has two levels
        return problems, NO_MOMENTS
    shelf_epsilon, card_epsilon = decision.shelf_epsilon, decision.card_epsilon
    if rebuild is uniform_page:  # which is epsilon-greedy that always explores
        shelf_epsilon, card_epsilon = np.ones_like(shelf_epsilon), np.ones_like(card_epsilon)
    shelf, card = choice_facts(decision, item, shelf_epsilon, card_epsilon)
    problems += _check_pmf(decision, shelf, card)
    rows, columns = decision.page.card.shape
    found = moments(shelf[None], card[None], shelf_epsilon[None, :rows], card_epsilon[None, :columns])
    return problems, replace(found, excluded=found.excluded + int(decision.page.pinned.sum()))


def impossible_propensity(decision: Decision) -> list[str]:
    """Propensities outside (0, 1]: all that can be said of a page whose policy cannot be rebuilt."""
    page = decision.page
    shelf, card = page.shelf_propensity, page.card_propensity
    for r in np.flatnonzero((page.shelf >= 0) & ~((shelf > 0) & (shelf <= 1))):
        return [f"shelf_propensity[{r}] is {float(shelf[r])!r}; expected more than 0, at most 1"]
    for r, c in np.argwhere(page.shown & ~((card > 0) & (card <= 1))):
        return [f"card_propensity[{r}, {c}] is {float(card[r, c])!r}; expected more than 0, at most 1"]
    return []


def candidate_items(decision: Decision) -> Ints:
    """[n] numbers that are equal where ids are: an item in several shelves is one item."""
    ids = decision.item_id.tolist()
    if len(set(ids)) == len(ids):
        return np.arange(len(ids), dtype=np.int64)
    first: dict[str, int] = {}
    return np.array([first.setdefault(item_id, i) for i, item_id in enumerate(ids)], dtype=np.int64)


def _check_propensity(decision: Decision, item: Ints, policy: Callable[[Decision], PagePolicy]) -> list[str]:
    page = decision.page
    try:
        candidates = Candidates(item, decision.shelf, decision.shelves)
        shelf, card = policy(decision).propensity(candidates, decision.score, page, raw_score=decision.raw_score)
    except (ValueError, IndexError) as error:
        return [f"the page could not have been drawn: {error}"]
    for r in np.flatnonzero(shelf.view(np.int64) != _bits(page.shelf_propensity)):
        return [f"shelf_propensity[{r}] is {float(page.shelf_propensity[r])!r}; recomputed {float(shelf[r])!r}"]
    differs = page.shown & (card.view(np.int64) != _bits(page.card_propensity))
    for r, c in np.argwhere(differs):
        recorded, again = float(page.card_propensity[r, c]), float(card[r, c])
        return [f"card_propensity[{r}, {c}] is {recorded!r}; recomputed {again!r}"]
    return []


def _check_draw(decision: Decision, item: Ints, policy: Callable[[Decision], PagePolicy]) -> list[str]:
    page = decision.page
    pins = [(int(r), int(c), int(page.card[r, c])) for r, c in np.argwhere(page.pinned)]
    try:
        again = policy(decision).decide(
            Candidates(item, decision.shelf, decision.shelves),
            decision.score,
            decision.rows,
            decision.columns,
            np.random.default_rng(decision.seed),
            raw_score=decision.raw_score,
            pins=pins,
        )
    except ValueError as error:
        return [f"the draw cannot be repeated: {error}"]
    if not np.array_equal(again.shelf, page.shelf):
        return [f"seed {decision.seed} draws the shelves {again.shelf.tolist()}; recorded are {page.shelf.tolist()}"]
    if not np.array_equal(again.card, page.card):
        row = int(np.flatnonzero((again.card != page.card).any(axis=1))[0])
        return [
            f"seed {decision.seed} draws the cards {again.card[row].tolist()} in row {row}; "
            f"recorded are {page.card[row].tolist()}"
        ]
    return []


def _check_pmf(decision: Decision, shelf: Floats, card: Floats) -> list[str]:
    page = decision.page
    for what, facts, recorded in (
        ("shelf", shelf, page.shelf_propensity),
        ("card", card, page.card_propensity),
    ):
        made = ~np.isnan(facts[..., N_LEFT])
        off = made & ~(np.abs(facts[..., PMF_SUM] - 1.0) <= CLOSE)
        if off.any():
            at = tuple(int(i) for i in np.argwhere(off)[0])
            return [f"the pmf of {what} choice {list(at)} sums to {float(facts[at][PMF_SUM])!r}; expected 1"]
        off = made & ~(np.abs(facts[..., PROPENSITY] - recorded) <= CLOSE)
        if off.any():
            at = tuple(int(i) for i in np.argwhere(off)[0])
            logged, worked_out = float(recorded[at]), float(facts[at][PROPENSITY])
            return [f"{what}_propensity{list(at)} is {logged!r}; the pmf has {worked_out!r}"]
    return []


def moments(shelf: Floats, card: Floats, shelf_epsilon: Floats, card_epsilon: Floats) -> Moments:
    """Of all choices of some pages. shelf: facts [b, rows, 4]; card: [b, rows, columns, 4]; epsilons: [b, rows] and
    [b, columns]. What is pinned is no choice and not counted."""
    b, rows, columns = card.shape[:3]
    facts = np.concatenate([shelf.reshape(-1, 4), card.reshape(-1, 4)])
    position = np.concatenate([np.tile(-1 - np.arange(rows), b), np.tile(np.arange(columns), b * rows)])
    epsilon = np.concatenate([shelf_epsilon.ravel(), np.repeat(card_epsilon, rows, axis=0).ravel()])
    n_left, n_best = facts[:, N_LEFT], facts[:, N_BEST]
    choice = n_left > 1  # NaN: no choice
    supported = choice & ((epsilon > 0) | (n_left == n_best))
    n, k, e = n_left[supported], n_best[supported], epsilon[supported]
    low = e / n
    high = low + (1.0 - e) / k
    with np.errstate(divide="ignore", invalid="ignore"):  # where all are best, none is low
        inverse = np.where(n > k, (n - k) / low, 0.0) + k / high
        largest = np.where(n > k, 1.0 / (n * low), 1.0 / (n * high))
    return Moments(
        position[supported],
        1.0 / (n * facts[supported, PROPENSITY]),
        np.maximum(inverse / n**2 - 1.0, 0.0),
        largest,
        int((choice & ~supported).sum()),
    )


def _bits(value: Floats) -> Ints:
    return np.ascontiguousarray(value, dtype=np.float64).view(np.int64)

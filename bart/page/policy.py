"""Pages: a ranking of shelves, then a ranking of cards in each, with the propensity of every choice.

Rows are filled top-down. Row r draws a shelf among those that still have a card and stand in no row above, by the best
raw score among their cards; then its cards are drawn from the shelf. When each item stands in one shelf, the page
factorises: P(page) = P(shelf order) x product over rows of P(card order in that shelf). When shelves overlap, a
taken card leaves the others, and with it their values may fall; the conditionals stay exact.

Source: McInerney et al., "Explore, Exploit, and Explain" (RecSys 2018). They fill the first card of each shelf first
and let it choose the shelf; drawing the shelf by its best card and then its cards gives the same greedy page and
keeps the factors independent.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from bart.page.batch import NO_PINS, batch_decide, batch_propensity, given_choices, walk
from bart.page.choices import Choices
from bart.page.diversity import diversify
from bart.page.walk import Walk
from bart.ranking import checks as check
from bart.ranking.policies import EpsilonGreedy, PlackettLuce, RankingPolicy, Swaps, Uniform
from bart.types import Candidates, Floats, Ints, Page
from bart.types.arrays import check_probabilities

__all__ = ["PagePolicy", "Pins", "batch_decide", "batch_propensity", "diversify"]

Pins: TypeAlias = "Sequence[tuple[int, int, int]]"  # (row, column, candidate)


PLACKETT_LUCE = "plackett_luce"
SWAPS = "swaps"


@dataclass(frozen=True, slots=True)
class PagePolicy:
    """A ranking policy over shelves and one over the cards of each.

    An epsilon given by position is by row for `shelf_policy` and by column for `card_policy`. Epsilon-greedy and
    uniform rankings run compiled; any other `RankingPolicy` runs through its `pmf`.
    """

    shelf_policy: RankingPolicy
    card_policy: RankingPolicy

    @property
    def by_rates(self) -> bool:
        """Whether all chance is in the rates: with rates of 0 the page is the best one."""
        return isinstance(self.shelf_policy, EpsilonGreedy) and isinstance(self.card_policy, (EpsilonGreedy, Swaps))

    def decide(
        self,
        candidates: Candidates,
        score: Floats,
        rows: int,
        columns: int,
        rng: np.random.Generator,
        *,
        raw_score: Floats | None = None,
        pins: Pins = (),
    ) -> Page:
        """A page of at most rows x columns: shorter where shelves or cards are too few.

        score: [n], what cards are drawn by. raw_score: [n], what shelves are worth; `score` by default. pins: (row,
        column, candidate) with candidates of shelf -1: that slot takes it with propensity 1 (or, in a row that ends
        before it, the end of the row); a pin in a row that is not there is left out.
        Takes `u = rng.random((rows, 1 + columns))`: u[r, 0] draws the shelf of row r, u[r, 1 + c] its card c.
        """
        rows, columns = check.count("rows", rows), check.count("columns", columns)
        score, value = _scores(candidates, score, raw_score)
        pin = _pin_table(candidates, rows, columns, pins)
        uniform = rng.random((1, rows, 1 + columns))
        choices = Choices.none(1, rows, columns)
        rates = self._rates(rows, columns)
        if rates is None:
            Walk(self.shelf_policy, self.card_policy, candidates, score, value).draw(uniform[0], pin, choices)
            check_probabilities("shelf_propensity", choices.shelf_propensity)  # a policy may be somebody else's
            check_probabilities("card_propensity", choices.card_propensity)
        else:
            walk(False, _flat(candidates), (score, value), rates, choices, uniform=uniform, pin=pin)
        return choices.page()

    def propensity(
        self, candidates: Candidates, score: Floats, page: Page, *, raw_score: Floats | None = None
    ) -> tuple[Floats, Floats]:
        """Probability of each choice of a page given those before it: shelf [r], card [r, c].

        NaN where no card stands, 1 for a pinned one. Equal to the last bit to what `decide` recorded for these scores.
        Raises ValueError where a choice was not to be had: also for a row that ends while its shelf has cards left, and
        for what stands after the end of a row or below the last one.
        """
        rows, columns = page.card.shape
        score, value = _scores(candidates, score, raw_score)
        choices = given_choices("shelf", page.shelf[None], page.card[None], page.pinned[None])
        rates = self._rates(rows, columns)
        if rates is None:
            Walk(self.shelf_policy, self.card_policy, candidates, score, value).recompute(choices)
        else:
            walk(True, _flat(candidates), (score, value), rates, choices, asked=np.array([columns]))
        return choices.shelf_propensity[0], choices.card_propensity[0]

    def marginal(
        self,
        candidates: Candidates,
        score: Floats,
        rows: int,
        columns: int,
        *,
        raw_score: Floats | None = None,
    ) -> tuple[Floats, Floats]:
        """P(shelf at row), [shelves, rows], and P(card at column, given that its shelf is shown), [n, columns].

        Their product is P(card at (row, column)). 0 for empty shelves and for candidates held out of the draw; without
        pins, which shift the columns of their row.
        Raises ValueError for overlapping shelves, where the product does not hold.
        """
        rows, columns = check.count("rows", rows), check.count("columns", columns)
        score, value = _scores(candidates, score, raw_score)
        if candidates.overlapping:
            raise ValueError("candidates overlap (an item stands in several places); marginals need one place an item")
        shelves = np.unique(candidates.shelf[candidates.shelf >= 0])
        card = np.zeros((len(score), columns))
        best = np.empty(len(shelves))
        for i, shelf in enumerate(shelves.tolist()):
            member = np.flatnonzero(candidates.shelf == shelf)
            card[member] = self.card_policy.marginal(score[member], columns)
            best[i] = value[member].max()
        shelf_marginal = np.zeros((len(candidates.shelves), rows))
        shelf_marginal[shelves] = self.shelf_policy.marginal(best, rows)
        return shelf_marginal, card

    def _rates(self, rows: int, columns: int) -> tuple[Floats, Floats] | None:
        """Epsilons [1, rows] and [1, columns] where both rankings are epsilon-greedy (uniform is, with 1)."""
        greedy = (EpsilonGreedy, Uniform)
        if isinstance(self.shelf_policy, greedy) and isinstance(self.card_policy, greedy):
            return self.shelf_policy.rates(rows)[None], self.card_policy.rates(columns)[None]
        return None


def _flat(candidates: Candidates) -> tuple[Ints, Ints, Ints]:
    """Offset, shelf and item of one page's candidates, as `walk` takes them."""
    shelf = check.integers("candidates.shelf", candidates.shelf)
    return np.array([0, len(shelf)]), shelf, check.integers("candidates.item", candidates.item)


def _scores(candidates: Candidates, score: Floats, raw_score: Floats | None) -> tuple[Floats, Floats]:
    given, score = score, check.finite("score", score, len(candidates))
    if raw_score is None or raw_score is given:
        return score, score
    return score, check.finite("raw_score", raw_score, len(candidates))


def _pin_table(candidates: Candidates, rows: int, columns: int, pins: Pins) -> Ints:
    """Pinned candidate of each slot, [1, rows, columns], -1 where there is none; empty without pins."""
    if len(pins) == 0:
        return NO_PINS
    table = np.full((1, rows, columns), -1, dtype=np.int64)
    seen: set[int] = set()
    for i, entry in enumerate(pins):
        place = check.integers(f"pins[{i}]", entry)
        if place.shape != (3,):
            raise ValueError(f"pins[{i}] is {entry!r}; expected (row, column, candidate)")
        row, column, candidate = place.tolist()
        if not 0 <= candidate < len(candidates) or candidates.shelf[candidate] != -1 or candidate in seen:
            raise ValueError(f"pins[{i}] names candidate {candidate}; expected one of shelf -1, in no other pin")
        if row < 0 or column < 0:
            raise ValueError(f"pins[{i}] is at ({row}, {column}); expected a row and a column >= 0")
        seen.add(candidate)
        if row >= rows or column >= columns:
            continue
        if table[0, row, column] >= 0:
            raise ValueError(f"pins[{i}] is at ({row}, {column}), as an earlier pin; expected one pin a slot")
        table[0, row, column] = candidate
    return table


def recorded_name(policy: PagePolicy, name: str) -> str:
    """The name under which a policy's pages are recorded: of Plackett-Luce with its temperatures, else `name`.

    So the record alone says how it was drawn.
    """
    shelf, card = policy.shelf_policy, policy.card_policy
    if isinstance(shelf, PlackettLuce) and isinstance(card, PlackettLuce):
        return f"{PLACKETT_LUCE}({float(shelf.temperature)!r}, {float(card.temperature)!r})"
    if isinstance(card, Swaps):
        return SWAPS
    return name


def temperatures(name: str) -> tuple[float, float]:
    """Temperature over shelves, and over cards, of a name that `recorded_name` made. Raises ValueError for others."""
    kind, _, rest = name.partition("(")
    numbers = rest.removesuffix(")").split(", ")
    if kind != PLACKETT_LUCE or len(numbers) != 2 or not rest.endswith(")"):
        raise ValueError(f"policy is {name!r}; expected {PLACKETT_LUCE}(TEMPERATURE, TEMPERATURE)")
    return float(numbers[0]), float(numbers[1])

"""The walk over one page for any ranking policy, through its pmf; what `draw_kernels` does for epsilon-greedy."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from bart.page.choices import Choices
from bart.ranking.policies import RankingPolicy, choose
from bart.ranking.swaps import Swaps
from bart.types import Candidates, Floats, Ints


class Walk:
    """The state of one page: which candidates are still to be had. Used once, to draw or to recompute."""

    def __init__(
        self,
        shelf_policy: RankingPolicy,
        card_policy: RankingPolicy,
        candidates: Candidates,
        score: Floats,
        value: Floats,
    ) -> None:
        self.shelf_policy = shelf_policy
        self.card_policy = card_policy
        self.item = candidates.item
        self.shelf = candidates.shelf
        self.score = score
        self.value = value
        self.n_shelves = len(candidates.shelves)
        self.used = np.zeros(self.n_shelves, dtype=np.bool_)
        self.available = candidates.shelf >= 0
        if not self.available.all():
            self.available &= ~np.isin(self.item, self.item[~self.available])

    def draw(self, uniform: Floats, pin: Ints, choices: Choices) -> None:
        """Fills the first page of the choices from uniform [rows, 1 + columns]; pin [1, rows, columns] or empty."""
        row_shelf, card, pinned = choices.row_shelf[0], choices.card[0], choices.pinned[0]
        shelf_propensity, card_propensity = choices.shelf_propensity[0], choices.card_propensity[0]
        rows, columns = card.shape
        for r in range(rows):
            shelves, pmf = self._shelf_pmf(r)
            if len(shelves) == 0:
                return
            place = choose(pmf, float(uniform[r, 0]))
            row_shelf[r], shelf_propensity[r] = shelves[place], pmf[place]
            self.used[shelves[place]] = True
            waiting = list(self._pins(pin, r))
            for c in range(columns):
                left = self._cards(int(row_shelf[r]))
                if waiting and (waiting[0][0] == c or len(left) == 0):
                    card[r, c], pinned[r, c], card_propensity[r, c] = waiting.pop(0)[1], True, 1.0
                    continue
                if len(left) == 0:
                    break
                pmf = self._card_pmf(left, c)
                place = choose(pmf, float(uniform[r, 1 + c]))
                card[r, c], card_propensity[r, c] = left[place], pmf[place]
                self._take(int(left[place]))

    def recompute(self, choices: Choices) -> None:
        """Fills the propensities of the first page."""
        row_shelf, card, pinned = choices.row_shelf[0], choices.card[0], choices.pinned[0]
        shelf_propensity, card_propensity = choices.shelf_propensity[0], choices.card_propensity[0]
        rows, columns = card.shape
        for r in range(rows):
            if row_shelf[r] == -1:
                self._nothing_after(card, r, 0)
                if np.any(row_shelf[r:] != -1):
                    below = r + int(np.argmax(row_shelf[r:] != -1))
                    raise ValueError(f"shelf[{below}] is {row_shelf[below]}; expected -1, below a row without a shelf")
                continue
            shelves, pmf = self._shelf_pmf(r)
            at = np.flatnonzero(shelves == row_shelf[r])
            if len(at) == 0:
                raise ValueError(
                    f"shelf[{r}] is {row_shelf[r]}; expected a shelf that has cards left and stands in no row above"
                )
            shelf_propensity[r] = pmf[at[0]]
            self.used[row_shelf[r]] = True
            for c in range(columns):
                if card[r, c] == -1:
                    if len(self._cards(int(row_shelf[r]))):
                        raise ValueError(
                            f"card[{r}, {c}] is -1; expected a card, since shelf {row_shelf[r]} has some left"
                        )
                    self._nothing_after(card, r, c)
                    break
                where = f"card[{r}, {c}] is {card[r, c]}"
                if pinned[r, c]:
                    if not 0 <= card[r, c] < len(self.shelf) or self.shelf[card[r, c]] >= 0:
                        raise ValueError(f"{where}; expected a pinned candidate, held out of the draw (shelf -1)")
                    card_propensity[r, c] = 1.0
                    continue
                left = self._cards(int(row_shelf[r]))
                at = np.flatnonzero(left == card[r, c])
                if len(at) == 0:
                    raise ValueError(f"{where}; expected a candidate of shelf {row_shelf[r]} that was not taken before")
                card_propensity[r, c] = self._card_pmf(left, c)[at[0]]
                self._take(int(card[r, c]))

    def _shelf_pmf(self, position: int) -> tuple[Ints, Floats]:
        """Shelves to be had, and the probability of each."""
        best = np.full(self.n_shelves, -np.inf)
        np.maximum.at(best, self.shelf[self.available], self.value[self.available])
        shelves = np.flatnonzero((best > -np.inf) & ~self.used)
        return shelves, self.shelf_policy.pmf(best[shelves], np.ones(len(shelves), dtype=np.bool_), position)

    def _cards(self, shelf: int) -> Ints:
        return np.flatnonzero(self.available & (self.shelf == shelf))

    def _card_pmf(self, left: Ints, position: int) -> Floats:
        if isinstance(self.card_policy, Swaps):  # what was passed over before shows in the whole shelf alone
            own = np.flatnonzero(self.shelf == self.shelf[left[0]])
            available = self.available[own]
            return self.card_policy.pmf(self.score[own], available, position)[available]
        return self.card_policy.pmf(self.score[left], np.ones(len(left), dtype=np.bool_), position)

    def _take(self, candidate: int) -> None:
        self.available &= self.item != self.item[candidate]

    @staticmethod
    def _nothing_after(card: Ints, row: int, column: int) -> None:
        for c in range(column, card.shape[1]):
            if card[row, c] != -1:
                where = "after the end of its row or in a row without a shelf"
                raise ValueError(f"card[{row}, {c}] is {card[row, c]}; expected -1, {where}")

    @staticmethod
    def _pins(pin: Ints, row: int) -> Iterator[tuple[int, int]]:
        """(column, candidate) of the pins of a row, from the left."""
        if len(pin):
            for column in np.flatnonzero(pin[0, row] >= 0).tolist():
                yield column, int(pin[0, row, column])

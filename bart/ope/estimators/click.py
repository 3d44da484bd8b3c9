"""click_ips: weights from how often each slot is read, for logs in which nothing was left to chance.

A listener reads slot s of a page with probability r_s, whatever stands there, and a card that is read earns what it
earns, whatever its slot. Then the reward of a read card i, weighted by its exposure under the target over that under
the logging policy,

    w_i = sum over slots of P(target: i in s) r_s / sum over slots of P(logging: i in s) r_s

has the target's reward as its expectation, as far as the target's cards have any exposure in the log: of a page that
is drawn without chance, the cards that stand on it. The listener's reading is then the chance that weights need.
Derived in docs/exposure_dr.md, after the idea of Tanaka et al., Off-policy evaluation for ranking policies under
deterministic logging policies (ICLR 2026): what users do by chance replaces the chance that the policy lacks. Seen
flags stand in the place of a click model. Where a slot moves what a card earns, or reading depends on the cards, it is
wrong, and no log without chance shows that.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from bart.ope.models.browsing import SeenCards, seen_cards
from bart.ope.records.pages import LoggedPages
from bart.ope.weights.pages import card_marginals, cascade_weight, ratio, shelf_marginals
from bart.types import Floats

ASSUMED = (
    "weights by how often each slot is read: right where a card earns alike in every slot and is read by its slot"
    " alone, which a log without chance cannot show"
)


@dataclass(frozen=True, slots=True, eq=False)
class ClickTerms:
    """value, influence [b], refit: as of `PageTerms`. page_weight: [b], whose mean is the share of the target's
    exposure that the log supports. slots: [3, slots + 1] sums that give how often each slot is read."""

    value: float
    influence: Floats
    refit: Callable[[Floats], float]
    page_weight: Floats
    slots: Floats


@dataclass(frozen=True, slots=True, eq=False)
class Places:
    """Where each seen card might have stood, [m, rows] and [m, columns], under both policies."""

    seen: SeenCards
    row: tuple[Floats, Floats]
    column: tuple[Floats, Floats]

    @classmethod
    def of(cls, data: LoggedPages) -> Places:
        seen = seen_cards(data)
        count = np.diff(data.shelf_start())[seen.shelf]
        row = [shelf_marginals(data, who)[seen.shelf] for who in ("logged", "target")]
        column = [card_marginals(data, who, seen.card, seen.page, count) for who in ("logged", "target")]
        return cls(seen, (row[0], row[1]), (column[0], column[1]))

    def exposure(self, read: Floats) -> tuple[Floats, Floats]:
        """[m] of each policy. read: [rows, columns]."""
        logged, target = (
            np.einsum("mr,rc,mc->m", row, read, column) for row, column in zip(self.row, self.column, strict=True)
        )
        return logged, target


def click_terms(data: LoggedPages, totals: Floats | None = None) -> ClickTerms:
    """totals: `slots` of the whole log that these pages are a part of; of the pages themselves where None."""
    b, shape = len(data), data.order.shape[1:]
    at, shown = Places.of(data), (data.order >= 0).reshape(b, -1)
    seen = data.seen.reshape(b, -1) & shown
    sums = np.stack([seen.sum(axis=0), seen.sum(axis=0), shown.sum(axis=0)]).astype(np.float64)
    slots = np.concatenate([sums, np.full((3, 1), float(b))], axis=1) if totals is None else totals
    read = np.divide(slots[0, :-1], slots[2, :-1], out=np.zeros(seen.shape[1]), where=slots[2, :-1] > 0)
    weight = _weight(data, at, read.reshape(shape))
    each = np.bincount(at.seen.page, weight * at.seen.reward, b)
    value = float(each.mean())
    # how the value follows the readings, and these the pages
    logged, target = at.exposure(read.reshape(shape))
    earned = at.seen.reward / np.where(logged > 0, logged, np.inf)
    slope = _by_slot(at, 1, earned) - _by_slot(at, 0, earned * ratio(target, logged))
    share = slots[2, :-1] / slots[2, -1]
    moved = (seen - read * shown) * np.divide(slope / b, share, out=np.zeros_like(share), where=share > 0)
    counted = np.bincount(at.seen.page, weight - 1, b)
    page_weight = 1 + counted / max(float(slots[0, :-1].sum() / slots[0, -1]), 1e-12)

    def refit(multiplicity: Floats) -> float:
        again = np.divide(multiplicity @ seen, multiplicity @ shown, out=np.zeros(len(read)), where=share > 0)
        moved_weight = _weight(data, at, again.reshape(shape))
        return float(np.average(np.bincount(at.seen.page, moved_weight * at.seen.reward, b), weights=multiplicity))

    return ClickTerms(value, each - value + moved.sum(axis=1), refit, page_weight, slots)


def _weight(data: LoggedPages, at: Places, read: Floats) -> Floats:
    """[m] of the seen cards; of pages without marginals by everything above and left of the slot."""
    logged, target = at.exposure(read)
    weight = ratio(target, logged)
    if data.irregular is not None:
        odd = data.irregular[at.seen.page]
        weight[odd] = cascade_weight(data)[at.seen.page, at.seen.row, at.seen.column][odd]
    return weight


def _by_slot(at: Places, who: int, factor: Floats) -> Floats:
    """[slots] sums of factor [m] over where the cards might have stood."""
    return np.asarray(np.einsum("m,mr,mc->rc", factor, at.row[who], at.column[who]).reshape(-1))

"""Exposure of cards under a page policy, and the doubly robust estimate that follows from it (docs/exposure_dr.md).

The exposure of a card is the expected number of times that a listener sees it on a page, weighted by the trust in the
slot. An epsilon-greedy policy with the browsing model of `browsing` gives it in closed form; the weight of a seen card
is the ratio of its exposures, which varies far less than ratios of pages, slates or positions.

The candidates enter only through sums over a shelf, so they are reduced once (`summarise`) to a few numbers a shelf;
all that is fitted later (hazards, trust, level of the model) costs microseconds a page.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bart.ope.models.appeal import sigmoid
from bart.ope.models.browsing import Browsing, SeenCards, seen_cards, transitions
from bart.ope.records.pages import LoggedPages
from bart.ope.weights.marginals import MarginalTables
from bart.ope.weights.pages import card_marginals, cascade_weight, ratio, shelf_marginals
from bart.types import Bools, Floats, Ints

POLICIES = ("logged", "target")
_CHUNK = 500_000  # cards whose features are held at a time
# Half the width of the interval of levels that the nodes span, and how many hold the appeal there to about 1e-4.
CLOSE, NARROW, WIDE = (0.4, 3), (1.0, 5), (3.0, 12)


@dataclass(frozen=True, slots=True, eq=False)
class Summary:
    """All that the log says about exposure, candidates summed out.

    by_row: [S, rows] of each policy. level: [nodes] shifts of the model's logit; appeal: [nodes, S, columns] of each
    policy, the mean reward of the card in a column at that shift. filled: [S, columns], where a card can stand. seen:
    the seen cards; logit: [m] of their prediction; by_column: [m, columns] of each policy, where else the seen card
    might have stood. chosen: [m] of the seen cards, the weight of everything above and left, for those that have no
    exposure by marginals; None where all have. went, possible: [b, 5]. feature: [m, features] of the seen cards, what
    fitted slopes multiply; by_slope: [features, S, columns] of each policy, derivatives of `appeal` by those slopes,
    None where nobody asked.
    """

    shelf_offset: Ints
    by_row: tuple[Floats, Floats]
    level: Floats
    appeal: tuple[Floats, Floats]
    filled: Bools
    seen: SeenCards
    logit: Floats
    by_column: tuple[Floats, Floats]
    went: Floats
    possible: Floats
    feature: Floats
    by_slope: tuple[Floats, Floats] | None = None
    chosen: Floats | None = None

    def __len__(self) -> int:
        return len(self.shelf_offset) - 1

    def take(self, pages: Ints) -> Summary:
        """The summary of some of the pages, ascending."""
        shelf, offset = ragged_take(self.shelf_offset, pages)
        keep = np.flatnonzero(np.isin(self.seen.page, pages))
        new_page, new_shelf = np.full(len(self), -1), np.full(self.shelf_offset[-1], -1)
        new_page[pages], new_shelf[shelf] = np.arange(len(pages)), np.arange(len(shelf))
        seen = SeenCards(
            new_page[self.seen.page[keep]],
            self.seen.row[keep],
            self.seen.column[keep],
            new_shelf[self.seen.shelf[keep]],
            self.seen.card[keep],
            self.seen.reward[keep],
        )
        return Summary(
            shelf_offset=offset,
            by_row=(self.by_row[0][shelf], self.by_row[1][shelf]),
            level=self.level,
            appeal=(self.appeal[0][:, shelf], self.appeal[1][:, shelf]),
            filled=self.filled[shelf],
            seen=seen,
            logit=self.logit[keep],
            by_column=(self.by_column[0][keep], self.by_column[1][keep]),
            went=self.went[pages],
            possible=self.possible[pages],
            feature=self.feature[keep],
            by_slope=None if self.by_slope is None else (self.by_slope[0][:, shelf], self.by_slope[1][:, shelf]),
            chosen=None if self.chosen is None else self.chosen[keep],
        )

    def weight(self, target: Floats, logged: Floats) -> Floats:
        """[m] ratio of the exposures of the seen cards. Marginals know no shelf from which another took a card, so that
        without exploration they may leave a card that was seen no exposure: its weight is that of the choices made."""
        out = ratio(target, logged)
        return out if self.chosen is None else np.where(logged > 0, out, self.chosen)


# ------------------------------------------------------------------------------------------------------------ reduction


def summarise(
    data: LoggedPages, score: Floats, span: tuple[float, int] = NARROW, feature: Floats | None = None
) -> Summary:
    """Candidates summed out. score: [N] logit of the prediction; span: half width and number of levels to prepare.

    feature: [m, features] of the seen cards, what fitted slopes multiply.
    """
    seen = seen_cards(data)
    went, possible = transitions(data)
    count = np.diff(data.shelf_start())[seen.shelf]
    logged = data.kept("columns seen", lambda: card_marginals(data, "logged", seen.card, seen.page, count))
    # Chebyshev nodes: the mean appeal is smooth in the level, so that few of them give it everywhere between.
    level = span[0] * np.cos(np.pi * (np.arange(span[1]) + 0.5) / span[1])
    return Summary(
        shelf_offset=data.shelf_offset,
        by_row=(shelf_marginals(data, "logged"), shelf_marginals(data, "target")),
        level=level,
        appeal=_appeal(data, score, level),
        filled=_filled(data),
        seen=seen,
        logit=score[seen.card],
        by_column=(logged, logged if data.alike("") else card_marginals(data, "target", seen.card, seen.page, count)),
        went=went,
        possible=possible,
        feature=np.empty((len(seen.card), 0)) if feature is None else feature,
        chosen=None if data.irregular is None else cascade_weight(data)[seen.page, seen.row, seen.column],
    )


def _filled(data: LoggedPages) -> Bools:
    """[S, columns]: columns that the page asked for and the shelf has a card for."""
    page = np.repeat(np.arange(len(data)), np.diff(data.shelf_offset))
    asked = ~np.isnan(data.card_epsilon_logged)[page]
    filled: Bools = asked & (np.arange(data.columns) < np.diff(data.shelf_start())[:, None])
    return filled


def _appeal(data: LoggedPages, score: Floats, level: Floats) -> tuple[Floats, Floats]:
    """Mean prediction of the card in each column at each level, under both policies: two arrays [nodes, S, columns]."""
    from bart.ope.exposure import appeal_kernels

    start, out = data.shelf_start(), list[Floats]()
    odds, shift = np.exp(-score), np.exp(-level)
    for who in POLICIES:
        if out and data.alike(""):
            return out[0], out[0]
        rank, tie = getattr(data, f"rank_{who}"), getattr(data, f"tie_{who}")
        mean = np.zeros((len(level), len(start) - 1, data.columns))
        for shelf, kind, table in _shelves(data, who, np.arange(len(start) - 1)):
            appeal_kernels.mean_appeal(shelf, start[shelf], kind, table, rank, tie, odds, shift, mean)
        out.append(mean)
    return out[0], out[1]


def by_slope(
    data: LoggedPages,
    score: Floats,
    features: Callable[[Ints], Sequence[Floats]],
    level: tuple[float, float],
    pages: Ints,
) -> tuple[Floats, Floats]:
    """Derivatives of the mean appeal of each column by the slopes, two arrays [features, shelves of `pages`, columns].

    features: of the cards asked for, one array each. level: shift of the logit under the logging and the evaluation
    policy. pages: ascending.
    """
    from bart.ope.exposure import appeal_kernels

    start, (chosen, _) = data.shelf_start(), ragged_take(data.shelf_offset, pages)
    out: list[Floats] = []
    parts = max(1, int(np.diff(start)[chosen].sum()) // _CHUNK)
    for place in np.array_split(np.arange(len(chosen)), parts):
        cards, first = ragged_take(start, chosen[place])
        found = np.stack(features(cards), axis=1)  # [m, features]
        out = out or [np.zeros((found.shape[1], len(chosen), data.columns)) for _ in POLICIES]
        for who, shift, mean in zip(POLICIES, level, out, strict=True):
            rank, tie = getattr(data, f"rank_{who}")[cards], getattr(data, f"tie_{who}")[cards]
            q = sigmoid(score[cards] + shift)
            moved = found * (q * (1 - q))[:, None]
            for at, kind, table in _shelves(data, who, chosen[place]):
                appeal_kernels.mean_of(place[at], first[at], kind, table, rank, tie, moved, mean)
    return out[0], out[1]


def _shelves(data: LoggedPages, who: str, chosen: Ints) -> Iterator[tuple[Ints, Ints, Floats]]:
    """The chosen shelves of one size n at a time: their places in `chosen` [g], kinds of rates [g], and where a policy
    with rates of that kind puts a card of each rank, [kinds, n, k]."""
    size = np.diff(data.shelf_start())[chosen]
    page = np.repeat(np.arange(len(data)), np.diff(data.shelf_offset))[chosen]
    tables = MarginalTables(getattr(data, f"card_epsilon_{who}"))
    for n in np.unique(size).tolist():
        group = np.flatnonzero(size == n)
        yield group, tables.kind[page[group]], tables.table(n)


# ------------------------------------------------------------------------------------------------------------- exposure


def appeal_at(summary: Summary, level: float, policy: int) -> Floats:
    """Mean appeal of the card in each column, [S, columns], with the model's logit shifted by `level`."""
    basis = [np.prod(near) for near in _basis(summary.level, level)]
    return _mixed(basis, summary.appeal[policy])


def level_slope(summary: Summary, level: float, policy: int) -> Floats:
    """Derivative of `appeal_at` by the level."""
    slope = []
    for i, near in enumerate(_basis(summary.level, level)):
        gaps = summary.level[i] - np.delete(summary.level, i)
        slope.append(sum(np.prod(np.delete(near, j)) / gap for j, gap in enumerate(gaps)))
    return _mixed(slope, summary.appeal[policy])


def _basis(nodes: Floats, level: float) -> list[Floats]:
    """Factors of the polynomials that are 1 at one node and 0 at the others."""
    others = [np.delete(nodes, i) for i in range(len(nodes))]
    return [(level - each) / (node - each) for node, each in zip(nodes, others, strict=True)]


def _mixed(shares: Sequence[Any], appeal: Floats) -> Floats:
    out: Floats = shares[0] * appeal[0]
    for share, node in zip(shares[1:], appeal[1:], strict=True):
        out += share * node
    return out


@dataclass(frozen=True, slots=True, eq=False)
class Exposure:
    """card: [m] exposure of each seen card. total: [b] sum over all candidates. reward: [b] modelled reward."""

    card: Floats
    total: Floats
    reward: Floats


def exposure(summary: Summary, browsing: Browsing, level: float, policy: int, slope: Floats | None = None) -> Exposure:
    """Exposures under a policy (0 logged, 1 target), when the model's logit is shifted by `level`: mean-field reach.

    slope: [features] small changes of the fitted slopes, to first order.
    """
    appeal = appeal_at(summary, level, policy)
    if slope is not None and summary.by_slope is not None:
        for k in np.flatnonzero(slope):
            appeal += slope[k] * summary.by_slope[policy][k]
    slot = slots(summary, browsing, appeal, policy)
    pages = summary.shelf_offset[:-1]
    return Exposure(
        card=np.einsum("mc,mc->m", summary.by_column[policy], slot[summary.seen.shelf]),
        total=np.add.reduceat(np.einsum("sc,sc->s", slot, summary.filled), pages),
        reward=np.add.reduceat(np.einsum("sc,sc->s", slot, appeal), pages),
    )


def slots(summary: Summary, browsing: Browsing, appeal: Floats, policy: int) -> Floats:
    """[S, columns] exposure of whatever stands in a column, when cards there have this mean appeal [S, columns]."""
    from bart.ope.exposure import kernels

    slot = np.empty_like(appeal)
    hazard = np.array([browsing.start, *browsing.column_hazard, *browsing.row_hazard])
    kernels.slot_exposure(
        summary.shelf_offset,
        summary.by_row[policy],
        appeal,
        hazard,
        browsing.row_trust,
        browsing.column_trust,
        slot,
    )
    slot *= browsing.column_trust
    return slot


def ragged_take(offset: Ints, rows: Ints) -> tuple[Ints, Ints]:
    """Flat positions of the given rows of a ragged array, and their new offsets."""
    size = np.diff(offset)[rows]
    new = np.concatenate([[0], np.cumsum(size)])
    return np.arange(new[-1]) + np.repeat(offset[rows] - new[:-1], size), new

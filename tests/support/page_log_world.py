"""Small logs of pages for the tests of page evaluation: drawn batches, and a world small enough to enumerate."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import permutations, product

import numpy as np

from bart.ope.records.from_batch import logged_pages
from bart.ope.records.pages import LoggedPages
from bart.page.batch import batch_decide, batch_propensity
from bart.types import Floats, PageBatch


def batch(
    rng: np.random.Generator,
    pages: int = 300,
    shelves: int = 5,
    cards: int = 7,
    rows: int = 3,
    columns: int = 3,
    epsilon: float = 0.3,
    *,
    score: Floats | None = None,
    raw_score: Floats | None = None,
    appeal: Floats | None = None,
    hazards: tuple[float, float, float, float] = (0.9, 0.9, 0.8, 0.8),
    visits: int = 3,
) -> PageBatch:
    """Pages by an epsilon-greedy policy, read from the top left; hazards: next column, next row, without/with a stream.

    appeal: [N] probability of a stream if seen.
    """
    n = shelves * cards
    offset = np.arange(pages + 1) * n
    shelf = np.tile(np.repeat(np.arange(shelves), cards), pages)
    score = rng.normal(-1.5, 1.0, pages * n) if score is None else score
    raw_score = score if raw_score is None else raw_score
    appeal = 1 / (1 + np.exp(-(score + rng.normal(0, 1.0, len(score))))) if appeal is None else appeal
    row_shelf, card = batch_decide(offset, shelf, score, rows, columns, epsilon, epsilon, rng, raw_score=raw_score)
    shown = card >= 0
    seen, reward = np.zeros(card.shape, dtype=bool), np.zeros(card.shape)
    flat = appeal[offset[:-1, None, None] + np.maximum(card, 0)]
    here = np.ones(pages, dtype=bool)
    for r in range(rows):
        on, any_stream = here & shown[:, r, 0], np.zeros(pages, dtype=bool)
        for c in range(columns):
            on = on & shown[:, r, c]
            seen[:, r, c] = on
            stream = on & (rng.random(pages) < flat[:, r, c])
            reward[:, r, c] = stream
            any_stream |= stream
            on = on & (rng.random(pages) < np.where(stream, hazards[1], hazards[0]))
        here = here & (rng.random(pages) < np.where(any_stream, hazards[3], hazards[2]))
    blank = np.full(card.shape, np.nan)
    out = PageBatch(
        request_id=np.array([f"r{i}" for i in range(pages)], dtype=object),
        user_id=np.array([f"u{i // visits}" for i in range(pages)], dtype=object),
        at_s=np.arange(pages, dtype=np.int64),
        hour=np.zeros(pages, dtype=np.int64),
        weekday=np.zeros(pages, dtype=np.int64),
        device=np.zeros(pages, dtype=np.int64),
        surface=np.array(["home"] * pages, dtype=object),
        country=np.array([""] * pages, dtype=object),
        listener=np.zeros((pages, 2), dtype=np.float32),
        forced=np.zeros(pages, dtype=bool),
        displayed=np.ones(pages, dtype=bool),
        closed=np.ones(pages, dtype=bool),
        offset=offset,
        item=np.tile(np.arange(n), pages),
        shelf=shelf,
        raw_score=raw_score,
        score=score,
        shelf_offset=np.arange(pages + 1) * shelves,
        rule=np.array(["rule"] * (pages * shelves), dtype=object),
        row_shelf=row_shelf,
        card=card,
        shelf_propensity=blank[:, :, 0],
        card_propensity=blank,
        pinned=np.zeros(card.shape, dtype=bool),
        shelf_epsilon=np.full((pages, rows), epsilon),
        card_epsilon=np.full((pages, columns), epsilon),
        seen=seen,
        listened_s=reward * 40.0,
        reward=reward,
    )
    shelf_propensity, card_propensity = batch_propensity(
        out, score, out.shelf_epsilon, out.card_epsilon, raw_score=raw_score
    )
    return replace(out, shelf_propensity=shelf_propensity, card_propensity=card_propensity)


@dataclass(frozen=True)
class Enumerated:
    """Every page of 2 shelves x 3 cards on 2 x 2 slots, each once.

    pages: all seen, rewards 0. logged, target: [72] probability of each page under both policies. appeal: [6].
    """

    pages: LoggedPages
    logged: Floats
    target: Floats
    appeal: Floats

    def shown(self) -> Floats:
        """[72, 2, 2] appeal of the card in each slot."""
        out: Floats = self.appeal[self.pages.order]
        return out


def _probability(order: tuple[int, ...], score: Floats, epsilon: float) -> float:
    """By the definition: each choice among those left, greedy mass shared by ties."""
    left, p = list(range(len(score))), 1.0
    for choice in order:
        best = max(score[i] for i in left)
        top = [i for i in left if score[i] == best]
        p *= epsilon / len(left) + (1 - epsilon) * (choice in top) / len(top)
        left.remove(choice)
    return p


def enumerated(
    logged: Floats, target: Floats, appeal: Floats, logged_epsilon: float = 0.4, target_epsilon: float = 0.1
) -> Enumerated:
    """logged, target: [6] scores of the cards, three a shelf."""
    shelf_orders, card_orders = list(permutations(range(2), 2)), list(permutations(range(3), 2))
    all_pages = [(s, a, b) for s, a, b in product(shelf_orders, card_orders, card_orders)]
    p = {}
    for who, score, epsilon in (("logged", logged, logged_epsilon), ("target", target, target_epsilon)):
        by_shelf = score.reshape(2, 3)
        p[who] = np.array(
            [
                _probability(s, by_shelf.max(axis=1), epsilon)
                * _probability(a, by_shelf[s[0]], epsilon)
                * _probability(b, by_shelf[s[1]], epsilon)
                for s, a, b in all_pages
            ]
        )
    n = len(all_pages)
    drawn = batch(
        np.random.default_rng(0), n, 2, 3, 2, 2, logged_epsilon, score=np.tile(logged, n), appeal=np.zeros(6 * n)
    )
    row_shelf = np.array([s for s, _, _ in all_pages])
    card = np.array([[[3 * s[0] + i for i in a], [3 * s[1] + i for i in b]] for s, a, b in all_pages])
    drawn = replace(drawn, row_shelf=row_shelf, card=card, seen=np.ones(card.shape, dtype=bool))
    shelf_p, card_p = batch_propensity(drawn, drawn.score, logged_epsilon, logged_epsilon)
    drawn = replace(drawn, shelf_propensity=shelf_p, card_propensity=card_p)
    q = np.tile(appeal, n)
    data = logged_pages(drawn, np.tile(target, n), target_epsilon, target_epsilon, q_logged=q, q_target=q)
    return Enumerated(data, p["logged"], p["target"], appeal)

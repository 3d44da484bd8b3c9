"""The success of exploration, counted again card by card."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import page_log_world as world
import pytest

from bart.log.outcomes.exploration import exploration_success
from bart.types import PageBatch


def by_hand(batch: PageBatch) -> dict[str, list[float]]:
    """Every explored card that was seen, and whether it earned something: by going through each row as it was drawn."""
    found: dict[str, list[float]] = {}
    for i in range(len(batch)):
        if not batch.displayed[i] or not batch.closed[i] or batch.forced[i]:
            continue
        score = batch.score[batch.offset[i] : batch.offset[i + 1]]
        shelf = batch.shelf[batch.offset[i] : batch.offset[i + 1]]
        for row in range(batch.card.shape[1]):
            left = set(np.flatnonzero(shelf == batch.row_shelf[i, row]).tolist())
            for column in range(batch.card.shape[2]):
                card = int(batch.card[i, row, column])
                if card < 0:
                    continue
                best = max(score[k] for k in left)
                left.discard(card)
                if score[card] < best and batch.seen[i, row, column] and not batch.pinned[i, row, column]:
                    reward = float(batch.reward[i, row, column] > 0)
                    found.setdefault(str(batch.user_id[i]), []).append(reward)
    return found


def test_the_share_of_explored_cards_that_were_streamed_is_that_of_counting_them_one_by_one() -> None:
    batch = world.batch(np.random.default_rng(1), pages=400, visits=8)
    forced, closed = batch.forced.copy(), batch.closed.copy()
    forced[::7], closed[::11] = True, False
    batch = replace(batch, forced=forced, closed=closed)
    expected = {user: float(np.mean(one)) for user, one in by_hand(batch).items() if len(one) >= 5}
    assert len(expected) > 10
    parts = [batch.take(np.arange(k, min(k + 90, len(batch)))) for k in range(0, len(batch), 90)]
    assert exploration_success(parts, least=5) == pytest.approx(expected)


def test_a_greedy_page_tells_nothing() -> None:
    batch = world.batch(np.random.default_rng(2), pages=100, epsilon=0.0)
    assert exploration_success([batch], least=1) == {}


def test_few_cards_tell_nothing() -> None:
    batch = world.batch(np.random.default_rng(3), pages=100, visits=1)
    most = max(map(len, by_hand(batch).values()))
    assert exploration_success([batch], least=most + 1) == {}
    assert exploration_success([batch], least=most) != {}

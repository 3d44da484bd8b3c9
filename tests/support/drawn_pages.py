"""Decisions as a service records them: drawn pages that verify, for the tests of what keeps and carries them."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta, timezone
from typing import Any

import numpy as np

from bart.page.policy import PagePolicy
from bart.ranking.policies import EpsilonGreedy
from bart.types import Candidates, Context, Decision, ListenerTraits, Shelf

AT = datetime(2026, 3, 1, 12, tzinfo=timezone.utc)


def make(i: int, n: int = 12, rows: int = 2, columns: int = 3, **changes: Any) -> Decision:
    """The i-th page, a minute after the one before, for five users in turn: its propensities are those of its policy,
    its choices those of its seed. n: cards, in three shelves. changes: fields of the record that are others."""
    rng = np.random.default_rng((i, 1))  # not the one that draws: scores and draws would go together
    shelves = tuple(Shelf(f"rule {s}", f"Shelf {s}") for s in range(3))
    shelf, score = np.arange(n) % 3, rng.random(n)
    shelf_epsilon, card_epsilon = np.full(rows, 0.3), np.full(columns, 0.2)
    page = PagePolicy(EpsilonGreedy(shelf_epsilon), EpsilonGreedy(card_epsilon)).decide(
        Candidates(np.arange(n), shelf, shelves), score, rows, columns, np.random.default_rng(i)
    )
    one = Decision(
        request_id=f"request-{i}",
        user_id=f"user-{i % 5}",
        context=Context(AT + timedelta(minutes=i)),
        traits=ListenerTraits(10.0),
        listener=rng.normal(size=4).astype(np.float32),
        batch_id="batch",
        policy="epsilon_greedy",
        shelf_epsilon=shelf_epsilon,
        card_epsilon=card_epsilon,
        rules_version="rules",
        seed=i,
        shelves=shelves,
        item_id=np.array([f"item-{j}" for j in range(n)], dtype=object),
        shelf=shelf,
        raw_score=score,
        score=score,
        page=page,
    )
    return replace(one, **changes)

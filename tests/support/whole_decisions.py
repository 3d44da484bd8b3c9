"""A decision with something in each of its fields."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timezone
from typing import Any

import numpy as np

from bart.types import Context, Decision, ListenerTraits, Page, Shelf

AT = datetime(2026, 3, 1, 7, 30, 15, 123457, tzinfo=timezone.utc)


def decision(n: int = 30, rows: int = 3, columns: int = 4, seed: int = 0, **changes: Any) -> Decision:
    rng = np.random.default_rng(seed)
    score = rng.random(n)
    card = np.full((rows, columns), -1)
    card[:, : columns - 1] = rng.permutation(n)[: rows * (columns - 1)].reshape(rows, columns - 1)
    propensity = np.where(card >= 0, rng.random((rows, columns)), np.nan)
    item_id = np.array([f"item-{i}" for i in range(n)], dtype=object)
    whole = Decision(
        request_id="request-1",
        user_id="ü",
        context=Context(AT, -330, "mobile", "radio", "DE", False),
        traits=ListenerTraits(0.1, None, 0.3),
        listener=rng.normal(size=5).astype(np.float32),
        batch_id="batch",
        policy="epsilon_greedy",
        shelf_epsilon=rng.random(rows),
        card_epsilon=rng.random(columns),
        rules_version="rules",
        seed=2**90 + 1,
        shelves=(Shelf("rule", "title", "why", "key", (("artist", "A"), ("year", "1999"))), Shelf("other", "")),
        item_id=item_id,
        shelf=rng.integers(-1, 2, n),
        raw_score=score,
        score=score,
        page=Page(np.arange(rows) % 2, card, rng.random(rows), propensity, card == card[0, 0]),
        arm="arm",
        forced=True,
        model_id="model",
    )
    return replace(whole, **changes)

"""Logs of pages for benchmarks that know the truth: flat arrays from what was drawn and what was seen."""

from __future__ import annotations

import numpy as np

from bart.page.batch import batch_propensity
from bart.types import Bools, Floats, Ints, PageBatch


def logged(
    user: Ints,
    item: Ints,
    shelf: Ints,
    score: Floats,
    row_shelf: Ints,
    card: Ints,
    epsilon: float,
    seen: Bools,
    streamed: Bools,
    displayed: Bools | None = None,
) -> PageBatch:
    """user: [b]. item, shelf, score: [b, n] of the candidates, shelf -1 where one is held out. The rest as in
    `PageBatch`; propensities are those of epsilon-greedy by these scores."""
    b, n = item.shape
    shelves = int(shelf.max()) + 1
    empty, blank = np.array([""] * b, dtype=object), np.full(card.shape, np.nan)
    rates = {"shelf_epsilon": np.full(row_shelf.shape, epsilon), "card_epsilon": np.full((b, card.shape[2]), epsilon)}
    arrays = {
        "request_id": np.array([f"r{i}" for i in range(b)], dtype=object),
        "user_id": np.array([f"u{u}" for u in user], dtype=object),
        "at_s": np.arange(b),
        **{name: np.zeros(b, dtype=np.int64) for name in ("hour", "weekday", "device")},
        "surface": empty,
        "country": empty,
        "listener": np.zeros((b, 1), dtype=np.float32),
        "forced": np.zeros(b, dtype=bool),
        "displayed": np.ones(b, dtype=bool) if displayed is None else displayed,
        "closed": np.ones(b, dtype=bool),
        "offset": np.arange(b + 1) * n,
        "item": item.reshape(-1),
        "shelf": shelf.reshape(-1),
        "raw_score": score.reshape(-1),
        "score": score.reshape(-1),
        "shelf_offset": np.arange(b + 1) * shelves,
        "rule": np.array(["rule"] * (b * shelves), dtype=object),
        "row_shelf": row_shelf,
        "card": card,
        "pinned": np.zeros(card.shape, dtype=bool),
        "seen": seen,
        "listened_s": np.where(seen & streamed, 40.0, 0.0),
        "reward": (seen & streamed).astype(np.float64),
        **rates,
    }
    first = PageBatch(**arrays, shelf_propensity=blank[:, :, 0], card_propensity=blank)
    shelf_p, card_p = batch_propensity(first, first.score, epsilon, epsilon)
    return PageBatch(**arrays, shelf_propensity=shelf_p, card_propensity=card_p)

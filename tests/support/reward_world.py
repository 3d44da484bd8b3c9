"""A small world with a planted truth, as logged pages: for the tests and benchmarks of the reward model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from bart.page.batch import batch_decide, batch_propensity
from bart.types import ITEM_TYPES, Floats, Floats32, ItemTable, Labels, PageBatch

RULES = ("because you played", "new for you", "popular", "made for you", "jump back in")
START_S = 1_700_000_000


def unit(rng: np.random.Generator, n: int, d: int) -> Floats32:
    """n random directions."""
    vector = rng.standard_normal((n, d)).astype(np.float32)
    return vector / np.linalg.norm(vector, axis=1, keepdims=True)


def item_table(rng: np.random.Generator, n: int = 300, d: int = 8, genres: int = 6) -> ItemTable:
    """Items with all that features read; some without a genre, a date, popularity or a vector."""
    released = np.array(rng.integers(17_000, 19_600, n), dtype="datetime64[D]")
    released[::11] = np.datetime64("NaT")
    popularity = rng.random(n)
    popularity[::13] = 0.0
    vector = unit(rng, n, d)
    vector[::29] = 0.0
    return ItemTable(
        item_id=np.array([f"item {k}" for k in range(n)], dtype=object),
        title=np.array([f"Title {k}" for k in range(n)], dtype=object),
        type=rng.integers(0, len(ITEM_TYPES), n).astype(np.int8),
        artists=Labels.of([[f"artist {k % 50}"] for k in range(n)]),
        genres=Labels.of([[f"genre {k}", "other"] if k else [] for k in rng.integers(0, genres, n).tolist()]),
        released_at=released,
        countries=Labels.of([[]] * n),
        explicit=np.zeros(n, dtype=np.bool_),
        popularity=popularity,
        duration_s=np.full(n, 200.0),
        vector=vector,
    )


def candidate_page(batch: PageBatch) -> np.ndarray:
    """[N] page of each candidate."""
    return np.repeat(np.arange(len(batch)), np.diff(batch.offset))


def planted_logit(items: ItemTable, batch: PageBatch) -> Floats:
    """[N] a truth of the third order at the first slot, all of it inside the features."""
    page = candidate_page(batch)
    vector, listener = items.vector[batch.item], batch.listener[page]
    match = (vector * listener).sum(axis=1) * np.sqrt(items.dimension)
    first_half = (vector * listener)[:, : items.dimension // 2].sum(axis=1) * np.sqrt(items.dimension)
    evening = batch.hour[page] >= 12
    mobile = batch.device[page] == 0
    rule = batch.candidate_rule()
    logit = -1.2 + 0.9 * match + 1.2 * items.popularity[batch.item]
    logit = logit + np.where(evening, 1.2, -0.8) * first_half
    logit = logit + np.where(rule == "popular", -0.9 * match, 0.0) + np.where(rule == "new for you", -0.6, 0.0)
    return logit + np.where(mobile & (items.genres.first[batch.item] == 1), 1.0, 0.0)


def slot_logit(row: np.ndarray, column: np.ndarray) -> Floats:
    """How much less a card earns further down and to the right."""
    return -0.15 * row - 0.1 * column


def logged_pages(
    rng: np.random.Generator,
    items: ItemTable,
    n_pages: int,
    *,
    logit: Callable[[ItemTable, PageBatch], Floats] = planted_logit,
    score: Callable[[PageBatch], Floats] | None = None,
    epsilon: float = 1.0,
    rows: int = 3,
    columns: int = 4,
    per_page: int = 40,
    listeners: int = 500,
    unseen: float = 0.0,
) -> PageBatch:
    """Pages drawn by epsilon-greedy over `score` (random numbers by default), rewards by the truth at each slot."""
    vector = unit(rng, listeners, items.dimension)
    who = rng.integers(0, listeners, n_pages)
    n, shelves = n_pages * per_page, len(RULES)
    batch = PageBatch(
        request_id=np.array([f"request {k}" for k in range(n_pages)], dtype=object),
        user_id=np.array([f"user {k}" for k in who.tolist()], dtype=object),
        at_s=START_S + 60 * np.arange(n_pages, dtype=np.int64),
        hour=rng.integers(0, 24, n_pages),
        weekday=rng.integers(0, 7, n_pages),
        device=rng.integers(0, 3, n_pages),
        surface=np.full(n_pages, "home", dtype=object),
        country=np.full(n_pages, "", dtype=object),
        listener=vector[who],
        forced=np.zeros(n_pages, dtype=np.bool_),
        displayed=np.ones(n_pages, dtype=np.bool_),
        closed=np.ones(n_pages, dtype=np.bool_),
        offset=per_page * np.arange(n_pages + 1, dtype=np.int64),
        item=np.argsort(rng.random((n_pages, len(items))), axis=1)[:, :per_page].reshape(-1).astype(np.int64),
        shelf=np.sort(rng.integers(0, shelves, (n_pages, per_page)), axis=1).reshape(-1),
        raw_score=np.zeros(n),
        score=np.zeros(n),
        shelf_offset=shelves * np.arange(n_pages + 1, dtype=np.int64),
        rule=np.tile(np.array(RULES, dtype=object), n_pages),
        row_shelf=np.full((n_pages, rows), -1, dtype=np.int64),
        card=np.full((n_pages, rows, columns), -1, dtype=np.int64),
        shelf_propensity=np.full((n_pages, rows), np.nan),
        card_propensity=np.full((n_pages, rows, columns), np.nan),
        pinned=np.zeros((n_pages, rows, columns), dtype=np.bool_),
        shelf_epsilon=np.full((n_pages, rows), epsilon),
        card_epsilon=np.full((n_pages, columns), epsilon),
        seen=np.zeros((n_pages, rows, columns), dtype=np.bool_),
        listened_s=np.zeros((n_pages, rows, columns)),
        reward=np.zeros((n_pages, rows, columns)),
    )
    drawn_from = rng.random(n) if score is None else score(batch)
    batch = replace(batch, raw_score=drawn_from, score=drawn_from)
    row_shelf, card = batch_decide(batch.offset, batch.shelf, drawn_from, rows, columns, epsilon, epsilon, rng)
    batch = replace(batch, row_shelf=row_shelf, card=card)
    shelf_propensity, card_propensity = batch_propensity(batch, drawn_from, epsilon, epsilon)
    chance = slot_probability(batch, logit(items, batch))
    seen = (card >= 0) & (rng.random(card.shape) >= unseen)
    reward = np.where(seen, rng.random(card.shape) < chance, False).astype(np.float64)
    return replace(
        batch,
        shelf_propensity=shelf_propensity,
        card_propensity=card_propensity,
        seen=seen,
        reward=reward,
        listened_s=120.0 * reward,
    )


def slot_probability(batch: PageBatch, logit: Floats) -> Floats:
    """[b, rows, columns] chance of a reward of each shown card, else 0; logit [N] is that at the first slot."""
    _, rows, columns = batch.card.shape
    at = np.where(batch.card >= 0, batch.offset[:-1, None, None] + batch.card, 0)
    slot = slot_logit(np.arange(rows)[:, None], np.arange(columns)[None, :])
    return np.where(batch.card >= 0, 1.0 / (1.0 + np.exp(-(logit[at] + slot))), 0.0)

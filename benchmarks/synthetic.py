"""Random items, examples and logged pages of the size that a benchmark asks for; nothing in them means anything."""

from __future__ import annotations

from datetime import datetime, timezone
from pathlib import Path

import numpy as np

from bart.page.batch import batch_decide, batch_propensity
from bart.reward.features import Examples, ItemFeatures, build_examples
from bart.types import (
    ITEM_TYPES,
    Context,
    Decision,
    Floats32,
    ItemTable,
    Labels,
    ListenerTraits,
    Page,
    PageBatch,
    Shelf,
)


def unit(rng: np.random.Generator, n: int, d: int) -> Floats32:
    """n random directions."""
    vector = rng.standard_normal((n, d), dtype=np.float32)
    return vector / np.linalg.norm(vector, axis=1, keepdims=True)


def item_table(rng: np.random.Generator, n: int, d: int, genres: int = 200) -> ItemTable:
    """Items with random vectors and facts."""
    return ItemTable(
        item_id=np.array([f"item {k}" for k in range(n)], dtype=object),
        title=np.full(n, "", dtype=object),
        type=rng.integers(0, len(ITEM_TYPES), n).astype(np.int8),
        artists=Labels.of([()] * n),
        genres=Labels.of([(f"genre {k}",) for k in rng.integers(0, genres, n).tolist()]),
        released_at=np.array(rng.integers(14_000, 19_700, n), dtype="datetime64[D]"),
        countries=Labels.of([()] * n),
        explicit=np.zeros(n, dtype=np.bool_),
        popularity=rng.random(n),
        duration_s=np.full(n, 200.0),
        vector=unit(rng, n, d),
    )


def random_examples(rng: np.random.Generator, features: ItemFeatures, n: int, rules: int) -> Examples:
    """n examples, ten a page."""
    pages = -(-n // 10)
    return build_examples(
        features,
        at_s=rng.integers(1_690_000_000, 1_710_000_000, pages),
        hour=rng.integers(0, 24, pages),
        weekday=rng.integers(0, 7, pages),
        device=rng.integers(0, 6, pages),
        listener=unit(rng, pages, features.schema.dimension),
        page=np.arange(n) // 10,
        item=rng.integers(0, len(features), n),
        rule=np.array([f"rule {k}" for k in rng.integers(0, rules, n).tolist()], dtype=object),
        row=rng.integers(0, 8, n),
        column=rng.integers(0, 8, n),
    )


def random_pages(
    rng: np.random.Generator, items: ItemTable, n_pages: int, per_page: int = 200, shelves: int = 15
) -> PageBatch:
    """Pages of 10 x 10 drawn with epsilon 0.3 by random scores, of which the first 4 x 5 cards were seen."""
    n, shape = n_pages * per_page, (n_pages, 10, 10)
    score, offset = rng.random(n), per_page * np.arange(n_pages + 1, dtype=np.int64)
    shelf = np.sort(rng.integers(0, shelves, (n_pages, per_page)), axis=1).reshape(-1)
    row_shelf, card = batch_decide(offset, shelf, score, 10, 10, 0.3, 0.3, rng)
    seen = card >= 0
    seen[:, 4:] = False
    seen[:, :, 5:] = False
    pages = PageBatch(
        request_id=np.array([f"request {k}" for k in range(n_pages)], dtype=object),
        user_id=np.array([f"user {k}" for k in range(n_pages)], dtype=object),
        at_s=1_700_000_000 + np.arange(n_pages, dtype=np.int64),
        hour=rng.integers(0, 24, n_pages),
        weekday=rng.integers(0, 7, n_pages),
        device=rng.integers(0, 6, n_pages),
        surface=np.full(n_pages, "home", dtype=object),
        country=np.full(n_pages, "", dtype=object),
        listener=unit(rng, n_pages, items.dimension),
        forced=np.zeros(n_pages, dtype=np.bool_),
        displayed=np.ones(n_pages, dtype=np.bool_),
        closed=np.ones(n_pages, dtype=np.bool_),
        offset=offset,
        item=((rng.integers(0, len(items), n_pages)[:, None] + np.arange(per_page)) % len(items)).reshape(-1),
        shelf=shelf,
        raw_score=score,
        score=score,
        shelf_offset=shelves * np.arange(n_pages + 1, dtype=np.int64),
        rule=np.tile(np.array([f"rule {k}" for k in range(shelves)], dtype=object), n_pages),
        row_shelf=row_shelf,
        card=card,
        shelf_propensity=np.ones((n_pages, 10)),
        card_propensity=np.ones(shape),
        pinned=np.zeros(shape, dtype=np.bool_),
        shelf_epsilon=np.full((n_pages, 10), 0.3),
        card_epsilon=np.full((n_pages, 10), 0.3),
        seen=seen,
        listened_s=np.zeros(shape),
        reward=np.where(seen, rng.random(shape) < 0.2, False).astype(np.float64),
    )
    shelf_propensity, card_propensity = batch_propensity(pages, score, 0.3, 0.3)
    pages.shelf_propensity[:] = shelf_propensity
    pages.card_propensity[:] = card_propensity
    return pages


def write_export(pages: PageBatch, items: ItemTable, directory: Path) -> None:
    """The pages as one Parquet file of an exported decision log, with feedback that says what was seen and streamed."""
    from bart.log.outcomes.merge import merge
    from bart.log.record.batch import JoinedPage, record_batch
    from bart.log.record.feedback import FeedbackEvent
    from bart.log.store.files import write_batches
    from bart.reward.rewards import DEFAULT_REWARD

    shape = pages.card.shape[1:]
    joined = []
    for i in range(len(pages)):
        at = datetime.fromtimestamp(int(pages.at_s[i]), tz=timezone.utc)
        own = slice(int(pages.offset[i]), int(pages.offset[i + 1]))
        rules = pages.rule[pages.shelf_offset[i] : pages.shelf_offset[i + 1]].tolist()
        decision = Decision(
            request_id=str(pages.request_id[i]),
            user_id=str(pages.user_id[i]),
            context=Context(at),
            traits=ListenerTraits(),
            listener=pages.listener[i],
            batch_id="batch",
            policy="epsilon-greedy",
            shelf_epsilon=pages.shelf_epsilon[i],
            card_epsilon=pages.card_epsilon[i],
            rules_version="none",
            seed=i,
            shelves=tuple(Shelf(rule, rule) for rule in rules),
            item_id=items.item_id[pages.item[own]],
            shelf=pages.shelf[own],
            raw_score=pages.raw_score[own],
            score=pages.score[own],
            page=Page(
                shelf=pages.row_shelf[i],
                card=pages.card[i],
                shelf_propensity=pages.shelf_propensity[i],
                card_propensity=pages.card_propensity[i],
                pinned=pages.pinned[i],
            ),
        )
        events = [
            FeedbackEvent(f"{r}-{c}", at, row=r, column=c, seen=True, listened_s=60.0 * pages.reward[i, r, c])
            for r, c in np.argwhere(pages.seen[i]).tolist()
        ]
        joined.append(JoinedPage(decision, merge((shape[0], shape[1]), events), True, b""))
    folder = directory / "date=2024-01-01"
    folder.mkdir(parents=True)
    batches = [record_batch(joined[k : k + 1000], DEFAULT_REWARD, items) for k in range(0, len(joined), 1000)]
    write_batches(folder / "part-00000.parquet", batches, {b"bart.log.reward": DEFAULT_REWARD.encode()})

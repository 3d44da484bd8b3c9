"""Many visits at once: candidates gathered, then scored, decided and read in arrays.

The batched form of what `HomeRanker`, the decision log and the client do one page at a time, for policies that are to
be compared side by side: same seeds, same pages, same propensities, same records (tests/simulator/loop/test_loop.py
shows it). The candidates and the uniform variates of a visit follow from its seed alone, so every policy meets the same
chance.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from bart.page.batch import NO_ITEMS, walk
from bart.page.choices import Choices
from bart.page.exploration import Exploration
from bart.reward.rewards import DEFAULT_REWARD, reward_of
from bart.types import (
    Bools,
    Candidates,
    CardFeatures,
    Context,
    Floats,
    Ints,
    Listener,
    PageBatch,
    device_code,
)
from simulator.loop.service import Service
from simulator.loop.truth import page_appeal
from simulator.loop.visits import Visits
from simulator.reading.browsing import BrowsingParams, Feedback, browse
from simulator.world.world import World

PAGES_AT_ONCE = 500  # pages decided, read and reported together, which also says how their readers' chance is cut


@dataclass(frozen=True, slots=True, eq=False)
class Offers:
    """What could be shown at b visits.

    pages: the candidates as a `PageBatch` of rows x columns on which nothing stands yet. seed [b]: of the page's own
    random stream. listener, context, candidates: what each page's record needs besides, in the same order.
    """

    pages: PageBatch
    seed: Ints
    listener: tuple[Listener, ...]
    context: tuple[Context, ...]
    candidates: tuple[Candidates, ...]

    def __len__(self) -> int:
        return len(self.seed)

    def variates(self) -> Floats:
        """[b, rows, 1 + columns] uniform numbers of each page, as `PagePolicy.decide` takes them from its seed."""
        _, rows, columns = self.pages.card.shape
        out = np.empty((len(self), rows, 1 + columns))
        for page, seed in enumerate(self.seed.tolist()):
            out[page] = np.random.default_rng(seed).random((rows, 1 + columns))
        return out


def gather(
    service: Service, visits: Visits, visit: Ints, seed: Ints, request_id: Sequence[str], rows: int, columns: int
) -> Offers:
    """The candidates of the visits numbered `visit` [b], after the business rules.

    seed [b], request_id [b]: of each page. Raises ValueError for rules that pin or boost, which only single calls know.
    """
    if service.rules.pins or service.rules.boosts:
        raise ValueError("the rules pin or boost items; pages at once know neither, serve them through HomeRanker")
    listeners, contexts, found = [], [], []
    for i, number in zip(visit.tolist(), seed.tolist(), strict=True):
        context = visits.context(i)
        listener = service.store.listener(visits.user_id(i), context)
        proposed = service.source.candidates(listener, context, np.random.default_rng([number, 1]))
        candidates, _ = service.rules.apply(service.items, listener, context, proposed)
        if service.features is not None:
            candidates = replace(candidates, features=service.features.features(listener, context, candidates))
        listeners.append(listener)
        contexts.append(context)
        found.append(candidates)
    return offers_of(listeners, contexts, found, seed, request_id, rows, columns)


def offers_of(
    listener: Sequence[Listener],
    context: Sequence[Context],
    candidates: Sequence[Candidates],
    seed: Ints,
    request_id: Sequence[str],
    rows: int,
    columns: int,
) -> Offers:
    """Offers from given candidates, one of each a visit: [b] all."""
    b = len(candidates)
    offset = np.concatenate([[0], np.cumsum([len(c) for c in candidates])]).astype(np.int64)
    shelf_offset = np.concatenate([[0], np.cumsum([len(c.shelves) for c in candidates])]).astype(np.int64)
    at_s = np.array([int(c.at.timestamp()) for c in context], dtype=np.int64)
    local_s = at_s + 60 * np.array([c.utc_offset_min for c in context], dtype=np.int64)
    nothing = np.zeros(int(offset[-1]))
    age = [np.nan if x.traits.account_age_d is None else x.traits.account_age_d for x in listener]
    pages = PageBatch(
        request_id=np.array(request_id, dtype=object),
        user_id=np.array([x.user_id for x in listener], dtype=object),
        at_s=at_s,
        hour=local_s // 3_600 % 24,
        weekday=(local_s // 86_400 + 3) % 7,  # 1970-01-01 was a Thursday
        device=np.array([device_code(c.device) for c in context], dtype=np.int64),
        surface=np.array([c.surface for c in context], dtype=object),
        country=np.array([c.country for c in context], dtype=object),
        listener=np.stack([x.vector for x in listener]),
        forced=np.zeros(b, dtype=np.bool_),
        displayed=np.zeros(b, dtype=np.bool_),
        closed=np.zeros(b, dtype=np.bool_),
        offset=offset,
        item=np.concatenate([c.item for c in candidates]).astype(np.int64),
        shelf=np.concatenate([c.shelf for c in candidates]).astype(np.int64),
        raw_score=nothing,
        score=nothing,
        shelf_offset=shelf_offset,
        rule=np.array([shelf.rule for c in candidates for shelf in c.shelves], dtype=object),
        row_shelf=np.full((b, rows), -1, dtype=np.int64),
        card=np.full((b, rows, columns), -1, dtype=np.int64),
        shelf_propensity=np.full((b, rows), np.nan),
        card_propensity=np.full((b, rows, columns), np.nan),
        pinned=np.zeros((b, rows, columns), dtype=np.bool_),
        shelf_epsilon=np.zeros((b, rows)),
        card_epsilon=np.zeros((b, columns)),
        seen=np.zeros((b, rows, columns), dtype=np.bool_),
        listened_s=np.zeros((b, rows, columns)),
        reward=np.zeros((b, rows, columns)),
        account_age_d=np.array(age, dtype=np.float64),
        features=_features(candidates),
    )
    return Offers(pages, np.asarray(seed, dtype=np.int64), tuple(listener), tuple(context), tuple(candidates))


def _features(candidates: Sequence[Candidates]) -> CardFeatures | None:
    if all(c.features is None for c in candidates):
        return None
    return CardFeatures.concat([c.features or CardFeatures.unknown(len(c)) for c in candidates])


def decide(offers: Offers, score: Floats, exploration: Exploration, *, variates: Floats | None = None) -> PageBatch:
    """The pages that `HomeRanker` would decide on with these scores [N], with the propensity of every choice.

    variates: `offers.variates()`, where the caller has them already.
    """
    batch, b = offers.pages, len(offers)
    _, rows, columns = batch.card.shape
    shelf_epsilon, card_epsilon = _epsilons(offers, exploration, rows, columns)
    score = np.ascontiguousarray(score, dtype=np.float64)
    if score.shape != batch.item.shape or not np.isfinite(score).all():
        raise ValueError(f"score has shape {score.shape}; expected {batch.item.shape}, all finite")
    repeats = any(c.overlapping for c in offers.candidates)
    choices = Choices.none(b, rows, columns)
    walk(
        False,
        (batch.offset, batch.shelf, batch.item if repeats else NO_ITEMS),
        (score, score),
        (shelf_epsilon, card_epsilon),
        choices,
        uniform=offers.variates() if variates is None else variates,
    )
    return replace(
        batch,
        raw_score=score,
        score=score,
        row_shelf=choices.row_shelf,
        card=choices.card,
        shelf_propensity=choices.shelf_propensity,
        card_propensity=choices.card_propensity,
        shelf_epsilon=np.ascontiguousarray(np.broadcast_to(shelf_epsilon, (b, rows))),
        card_epsilon=np.ascontiguousarray(np.broadcast_to(card_epsilon, (b, columns))),
    )


def read(
    pages: PageBatch,
    service: Service,
    appeal: Floats,
    browsing: BrowsingParams,
    rng: np.random.Generator,
    *,
    reward: str = DEFAULT_REWARD,
) -> tuple[PageBatch, Feedback]:
    """The pages with what their listeners did, as the log would show them once their windows are closed.

    appeal [N]: of the candidates, from `simulator.world.appeal.batch_appeal`. Every page takes the same number of draws
    from rng whatever stands on it, so that policies can be compared on shared randomness.
    """
    likes, present = page_appeal(appeal, pages.offset, pages.card)
    patience = patience_of(service.world, pages)
    parts = []
    for start in range(0, len(pages), PAGES_AT_ONCE):
        part = slice(start, start + PAGES_AT_ONCE)
        parts.append(browse(likes[part], present[part], browsing, rng, patience=patience[part]))
    feedback = Feedback(*(np.concatenate([getattr(x, name) for x in parts]) for name in Feedback.__dataclass_fields__))
    return with_feedback(pages, feedback, service, reward), feedback


def with_feedback(pages: PageBatch, feedback: Feedback, service: Service, reward: str = DEFAULT_REWARD) -> PageBatch:
    """The pages joined with what happened on them, all reports in time."""
    seen: Bools = feedback.seen & (pages.card >= 0)
    at = np.where(pages.card >= 0, pages.offset[:-1, None, None] + pages.card, 0)
    row = np.where(pages.card >= 0, pages.item[at] if len(pages.item) else -1, -1)
    duration_s = np.append(service.items.duration_s, np.nan)[row]
    listened_s = np.where(seen, feedback.listened_s, 0.0)
    saved = feedback.saved & seen
    return replace(
        pages,
        displayed=feedback.displayed,
        closed=np.ones(len(pages), dtype=np.bool_),
        seen=seen,
        listened_s=listened_s,
        reward=reward_of(reward, np.where(seen, listened_s, np.nan), duration_s, saved, seen),
        saved=saved,
        skipped=np.where(seen & (listened_s > 0), ~feedback.streamed, -1).astype(np.int8),
    )


def patience_of(world: World, pages: PageBatch) -> Floats:
    """[b] the own patience of each page's listener."""
    out: Floats = world.population.patience[world.listener_of(pages.user_id)]
    return out


def _epsilons(offers: Offers, exploration: Exploration, rows: int, columns: int) -> tuple[Floats, Floats]:
    """Epsilons [b or 1, rows] and [b or 1, columns]; once for all where neither surface nor listener counts."""
    surfaces = {c.surface for c in offers.context}
    each = range(len(offers)) if exploration.adapt or len(surfaces) > 1 else range(1)
    rates = [exploration.epsilons(offers.context[i].surface, offers.listener[i].traits, rows, columns) for i in each]
    return np.stack([shelf for shelf, _ in rates]), np.stack([card for _, card in rates])

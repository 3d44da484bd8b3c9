"""Logged pages on the simulator for studies of the reward model, and what a model trained on them earns in truth.

Visits, candidates and reading are the simulator's (W1: position alone decides what is seen). The listener's vector and
the item vectors have a cosine of about .9 with the latent ones, as from a good recommender. Appeal is the simulator's,
which holds terms that the features cannot express (misspecified), or a logistic function of the features (well
specified). Pages of 6 x 6 come from 12 shelves of 25 cards: four near the taste of the moment, five in a wider circle,
three of hits.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from bart.page.batch import batch_decide, batch_propensity
from bart.types import Floats, Floats32, ItemTable, PageBatch
from recommender.shelves.items import item_table
from simulator.loop.truth import page_appeal, true_value
from simulator.loop.visits import simulate_visits
from simulator.reading.browsing import WORLDS, browse
from simulator.world.appeal import batch_appeal
from simulator.world.config import WorldConfig
from simulator.world.world import World

ROWS = COLUMNS = 6
SHELVES, PER_SHELF = 12, 25
READING = WORLDS["W1"]
Truth = Literal["misspecified", "well-specified"]


@dataclass(frozen=True, eq=False)
class Study:
    """A world, the items as a recommender knows them, and fresh visits [b] on which policies are valued."""

    world: World
    items: ItemTable
    truth: Truth
    fresh: PageBatch
    fresh_appeal: Floats

    @classmethod
    def make(cls, truth: Truth, seed: int, listeners: int = 500, tracks: int = 5_000, fresh: int = 2_000) -> Study:
        """The study's world; everything follows from the seed."""
        made, noise, visits = np.random.default_rng([seed, 7]).spawn(3)
        world = World.make(WorldConfig(n_tracks=tracks, n_listeners=listeners), made)
        items = item_table(world.items(), _near(world.catalogue.vector, noise))
        study = cls(world, items, truth, _EMPTY, np.empty(0))
        batch = study.visits(fresh, visits)
        return replace(study, fresh=batch, fresh_appeal=study.appeal(batch))

    def visits(self, n: int, rng: np.random.Generator) -> PageBatch:
        """n visits with their candidates; no page is decided yet."""
        world = self.world
        at, draw, noise = rng.spawn(3)
        visits = simulate_visits(world, n, at)
        taste = world.taste(visits.listener, visits.hour, visits.weekday, visits.device, visits.at_s)
        base = world.base_taste(visits.listener, world.days_since_start(visits.at_s))
        popular = np.argsort(-world.catalogue.weight, kind="stable")[:500]
        item = np.empty((n, SHELVES * PER_SHELF), dtype=np.int64)
        counts = (4 * PER_SHELF, 5 * PER_SHELF, 3 * PER_SHELF)
        for i in range(n):
            near = [
                np.argpartition(-(world.catalogue.vector @ z.astype(np.float32)), k)[:k]
                for z, k in ((taste[i], 300), (base[i], 800))
            ]
            taken = np.empty(0, dtype=np.int64)
            parts = []
            for pool, k in zip((*near, popular), counts, strict=True):
                free = np.setdiff1d(pool, taken, assume_unique=True)
                parts.append(draw.choice(free, k, replace=False))
                taken = np.concatenate([taken, parts[-1]])
            item[i] = np.concatenate(parts)
        return _batch(
            item,
            at_s=visits.at_s,
            hour=visits.hour,
            weekday=visits.weekday,
            device=visits.device,
            listener=_near(base, noise),
            user_id=np.array([visits.user_id(i) for i in range(n)], dtype=object),
        )

    def appeal(self, batch: PageBatch) -> Floats:
        """[N] true P(stream | examined) of all candidates."""
        if self.truth == "misspecified":
            return batch_appeal(self.world, batch, self.items.item_id)
        return planted_appeal(self.items, batch)

    def log(self, batch: PageBatch, score: Floats, epsilon: float, rng: np.random.Generator) -> PageBatch:
        """The pages that epsilon-greedy over `score` [N] would have shown, and what was streamed on them."""
        b = len(batch)
        batch = replace(
            batch,
            raw_score=score,
            score=score,
            shelf_epsilon=np.full((b, ROWS), epsilon),
            card_epsilon=np.full((b, COLUMNS), epsilon),
        )
        row_shelf, card = batch_decide(batch.offset, batch.shelf, score, ROWS, COLUMNS, epsilon, epsilon, rng)
        batch = replace(batch, row_shelf=row_shelf, card=card)
        shelf_propensity, card_propensity = batch_propensity(batch, score, epsilon, epsilon)
        on_page, present = page_appeal(self.appeal(batch), batch.offset, card)
        feedback = browse(on_page, present, READING, rng)
        return replace(
            batch,
            shelf_propensity=shelf_propensity,
            card_propensity=card_propensity,
            displayed=feedback.displayed,
            seen=feedback.seen,
            listened_s=np.where(feedback.seen, feedback.listened_s, 0.0),
            reward=(feedback.streamed & feedback.seen).astype(np.float64),
        )

    def value(self, score: Floats, epsilon: float = 0.0) -> float:
        """Expected streams of a displayed page on the fresh visits; exact for epsilon 0."""
        rng = np.random.default_rng(0)  # of ties and draws
        return true_value(self.fresh, self.fresh_appeal, score, epsilon, epsilon, READING, rng)[0]

    def poor_score(self, batch: PageBatch) -> Floats:
        """[N] of a poor model: popularity, a little of the taste, and noise that stays with listener and item."""
        return poor_score(self.items, batch)


def poor_score(items: ItemTable, batch: PageBatch) -> Floats:
    """[N] probabilities of a poor model: sigmoid(-2.5 + popularity + half the cosine + noise of the item)."""
    page = np.repeat(np.arange(len(batch)), np.diff(batch.offset))
    cosine = np.einsum("nd,nd->n", items.vector[batch.item], batch.listener[page], optimize=True)
    noise = np.random.default_rng(11).normal(0.0, 0.5, len(items))[batch.item]
    return _sigmoid(-2.5 + items.popularity[batch.item] + 0.5 * cosine + noise)


def planted_appeal(items: ItemTable, batch: PageBatch) -> Floats:
    """[N] a logistic function of the features, of the third order: taste, popularity, shelf, and taste by context."""
    page = np.repeat(np.arange(len(batch)), np.diff(batch.offset))
    rule = (batch.shelf_offset[page] + batch.shelf) % SHELVES
    product = items.vector[batch.item] * batch.listener[page]  # [N, d]
    cosine, half = product.sum(axis=1), product[:, : items.dimension // 2].sum(axis=1)
    rng = np.random.default_rng(5)
    by_rule, by_hour = rng.normal(0.0, 0.4, SHELVES), rng.normal(0.0, 0.3, 24)
    logit = -4.2 + 4.5 * cosine + 0.8 * items.popularity[batch.item] + by_rule[rule] + by_hour[batch.hour[page]]
    logit += np.where(batch.hour[page] >= 17, 2.0, -1.0) * half
    logit += np.where(batch.device[page] == 1, -1.5, 0.0) * items.popularity[batch.item]
    return _sigmoid(logit)


def _near(vector: Floats | Floats32, rng: np.random.Generator) -> Floats32:
    """Unit vectors at a cosine of about .9."""
    d = vector.shape[1]
    moved = vector + 0.48 / np.sqrt(d) * rng.standard_normal(vector.shape)
    return (moved / np.linalg.norm(moved, axis=1, keepdims=True)).astype(np.float32)


def _sigmoid(logit: Floats) -> Floats:
    out: Floats = 1.0 / (1.0 + np.exp(-logit))
    return out


def _batch(item: np.ndarray, **given: np.ndarray) -> PageBatch:
    """Undecided pages with the given candidates, [b, candidates]."""
    b, n = item.shape
    text = np.full(b, "", dtype=object)
    return PageBatch(
        request_id=np.array([f"request {k}" for k in range(b)], dtype=object),
        surface=text,
        country=text,
        forced=np.zeros(b, dtype=np.bool_),
        displayed=np.ones(b, dtype=np.bool_),
        closed=np.ones(b, dtype=np.bool_),
        offset=n * np.arange(b + 1, dtype=np.int64),
        item=item.reshape(-1),
        shelf=np.tile(np.repeat(np.arange(SHELVES, dtype=np.int64), PER_SHELF), b)[: b * n],
        raw_score=np.zeros(b * n),
        score=np.zeros(b * n),
        shelf_offset=SHELVES * np.arange(b + 1, dtype=np.int64),
        rule=np.tile(np.array([f"rule {s}" for s in range(SHELVES)], dtype=object), b),
        row_shelf=np.full((b, ROWS), -1, dtype=np.int64),
        card=np.full((b, ROWS, COLUMNS), -1, dtype=np.int64),
        shelf_propensity=np.full((b, ROWS), np.nan),
        card_propensity=np.full((b, ROWS, COLUMNS), np.nan),
        pinned=np.zeros((b, ROWS, COLUMNS), dtype=np.bool_),
        shelf_epsilon=np.zeros((b, ROWS)),
        card_epsilon=np.zeros((b, COLUMNS)),
        seen=np.zeros((b, ROWS, COLUMNS), dtype=np.bool_),
        listened_s=np.zeros((b, ROWS, COLUMNS)),
        reward=np.zeros((b, ROWS, COLUMNS)),
        **given,
    )


_EMPTY = _batch(
    np.empty((0, SHELVES * PER_SHELF), dtype=np.int64),
    at_s=np.empty(0, dtype=np.int64),
    hour=np.empty(0, dtype=np.int64),
    weekday=np.empty(0, dtype=np.int64),
    device=np.empty(0, dtype=np.int64),
    listener=np.empty((0, 40), dtype=np.float32),
    user_id=np.empty(0, dtype=object),
)

"""The task: queries are answered in the prior's order with a little chance, what was streamed teaches the reward model,
and its order is held against the caller's on fresh queries, by the truth and listener by listener."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path

import numpy as np
import pyarrow as pa

from bart.home import HomeRanker
from bart.learning.training import TrainingConfig, train
from bart.log.decision_log import DecisionLog
from bart.log.outcomes.pages import page_batch
from bart.log.record.batch import joined_batch
from bart.log.record.feedback import FeedbackEvent
from bart.log.store.store import read_rows
from bart.ope.intervals.clusters import clustered_mean
from bart.page.exploration import Exploration
from bart.page.rules import Rules
from bart.reward.features import FeatureSchema
from bart.reward.model import RewardConfig, RewardModel
from bart.reward.scorer import Scorer
from bart.types import Candidates, Context, Decision, Ints, Listener, PageBatch, PageScorer, Shelf
from bart.types.caller import CALLER, caller_features, query_rule
from simulator.search.world import SearchWorld

REWARD = "streamed_30s"
BEGAN = datetime(2026, 1, 5, tzinfo=timezone.utc)
APART = timedelta(seconds=30)  # between two queries
_AT_ONCE = 500


@dataclass(frozen=True, slots=True)
class Lift:
    """P(a stream within the results): of the caller's order, of the model's, and their difference with its interval by
    listener. n: queries; listeners: who asked them."""

    n: int
    listeners: int
    caller: float
    model: float
    lift: float
    lower: float
    upper: float


class _Results:
    """The candidates of one query, as a caller brings them."""

    def __init__(self, world: SearchWorld) -> None:
        self._world = world
        self.query = 0

    def candidates(self, listener: Listener, context: Context, rng: np.random.Generator) -> Candidates:  # noqa: ARG002
        row, score = self._world.found[self.query], self._world.score[self.query]
        shelf = Shelf(query_rule(f"query {self.query}"), "Results")
        return Candidates(row, np.zeros(len(row), dtype=np.int64), (shelf,), caller_features(score))


def serve(
    world: SearchWorld, scorer: PageScorer, epsilon: float, listener: Ints, query: Ints, seed: int
) -> list[Decision]:
    """The orders that queries [n] of listeners [n] are answered with."""
    source = _Results(world)
    ranker = HomeRanker(
        source, world.items, scorer, Exploration.fixed(epsilon), Rules(), batch_id="search"
    ).for_search()
    seeds = np.random.default_rng(seed).integers(0, 2**62, size=len(query)).tolist()
    out = []
    for i, (who, what) in enumerate(zip(listener.tolist(), query.tolist(), strict=True)):
        source.query = what
        asking = Listener(f"u{who}", world.known[who])
        out.append(ranker.decide(f"q{seed}-{i}", asking, Context(BEGAN + i * APART), 1, world.params.results, seeds[i]))
    return out


def logged(
    world: SearchWorld, decisions: Sequence[Decision], listener: Ints, query: Ints, log: DecisionLog, seed: int
) -> PageBatch:
    """What listeners do with the results, reported to a log and read back from it as closed pages."""
    rng = np.random.default_rng([seed, 1])
    log.append_many(list(decisions))
    reports = []
    for decision, who, what in zip(decisions, listener.tolist(), query.tolist(), strict=True):
        looked, streamed = world.read(who, what, shown(world, decision), rng)
        at = decision.context.at + timedelta(seconds=5)
        events = [
            FeedbackEvent(str(c), at, 0, c, seen=True, listened_s=60.0 if streamed and c == looked - 1 else 0.0)
            for c in range(looked)
        ]
        reports.append((decision.request_id, events, at))
    log.feedback_many(reports)
    log.close_windows(reports[-1][2] + 2 * log.feedback_window)
    ids, parts = pa.array(world.items.item_id, pa.string()), []
    for rows in log.stored_pages():
        closed, checksum = np.ones(len(rows), dtype=np.bool_), [row.checksum for row in rows]
        batch = joined_batch(read_rows(rows), log.outcomes(rows), closed, checksum, REWARD, world.items)
        parts.append(page_batch(batch, world.items, ids, (1, world.params.results), REWARD))
    return PageBatch.concat(parts)


def shown(world: SearchWorld, decision: Decision) -> Ints:
    """Rows of the results, from the top."""
    card = decision.page.card[0]
    return world.items.rows(decision.item_id[card[card >= 0]].tolist())


def config_of(world: SearchWorld) -> TrainingConfig:
    """The reward model as a run has it, with the caller's levels alone."""
    schema = FeatureSchema(dimension=world.params.dimension, order=2, levels=CALLER, ids=("item",))
    return TrainingConfig(RewardConfig(schema), holdout=0.0)


def lift_of(world: SearchWorld, scorer: PageScorer, n: int, seed: int, level: float = 0.95) -> Lift:
    """The model's order against the caller's on n fresh queries, without exploration, by the truth."""
    listener, query = world.visits(n, np.random.default_rng([seed, 2]))
    decisions = serve(world, scorer, 0.0, listener, query, seed)
    pairs = list(zip(listener.tolist(), query.tolist(), strict=True))
    model = np.array([world.value(u, q, shown(world, d)) for (u, q), d in zip(pairs, decisions, strict=True)])
    caller = np.array([world.value(u, q, world.found[q]) for u, q in pairs])
    gap = clustered_mean(model - caller, listener.astype(str))
    lower, upper = gap.interval(level)
    mean = float(caller.mean()), float(model.mean())
    return Lift(n, len(np.unique(listener)), *mean, float(gap.value), float(lower), float(upper))


def search_task(
    world: SearchWorld, place: Path, *, queries: int, fresh: int, epsilon: float = 0.2, seed: int = 1
) -> tuple[Lift, Lift]:
    """The lift of the prior, and of the model that learnt from `queries` served queries; the log stands in `place`."""
    config = config_of(world)
    prior = RewardModel.prior(config.reward)
    first = Scorer.compile(prior, world.items)
    listener, query = world.visits(queries, np.random.default_rng([seed, 3]))
    decisions = serve(world, first, epsilon, listener, query, seed)
    with DecisionLog(place / "search.sqlite") as log:
        pages = logged(world, decisions, listener, query, log, seed)
    model = train(lambda: [pages], world.items, config, base=prior).model
    learnt = Scorer.compile(model, world.items)
    return lift_of(world, first, fresh, seed + 1), lift_of(world, learnt, fresh, seed + 1)

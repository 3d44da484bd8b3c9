"""Logs of the arena: what a logging policy showed and what was seen, with the policies to be judged on it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from bart.ope.models.appeal import sigmoid
from bart.ope.records.pages import LoggedPages
from bart.ope.weights.pages import page_propensity
from bart.types import Floats, Ints
from simulator.arena.tasks import LISTENERS, LOGGING, SCENE, SEED, TARGETS, VISITS, WORLDS, Logging
from simulator.reading.browsing import BrowsingParams
from simulator.study.scene import (
    Scene,
    SceneLog,
    Served,
    listeners_of,
    make_scene,
    make_world,
    recorded,
    serve,
    with_target,
)
from simulator.study.selection import score_of
from simulator.world.world import World

DIGITS = 4  # of scores, in log odds
T = TypeVar("T")
SHRINK = 4.0  # expected streams that a track needs for half of its own level, where a policy learns


@dataclass(frozen=True, slots=True, eq=False)
class Target:
    """A policy to be judged: epsilon-greedy. score: [N] log odds by which it ranks, shelves by their best card.
    epsilon: its exploration, the same in every row and column. number: its place among the targets."""

    number: int
    name: str
    score: Floats
    epsilon: float


@dataclass(frozen=True, slots=True, eq=False)
class Log:
    """b displayed pages of one logging policy, as an estimator sees them, in the order of time.

    Candidates of a page: shelves x cards of them, shelf by shelf; N in all. item: [N] track. score: [N] log odds by
    which they were ranked. listener: [b]. shelf_epsilon: [rows], card_epsilon: [columns]. row_shelf: [b, rows] shelf
    shown in each row. card: [b, rows, columns] number of the candidate within the page. shelf_propensity: [b, rows],
    card_propensity: [b, rows, columns] probability of each choice given those before it. seen, reward: [b, rows,
    columns]. Worlds are not named: what is read how is to be found out.
    """

    item: Ints
    record: SceneLog
    targets: tuple[Target, ...]

    def __len__(self) -> int:
        return len(self.record.pages)

    @property
    def score(self) -> Floats:
        return self.record.score

    @property
    def listener(self) -> Ints:
        return self.record.pages.user

    @property
    def shelf_epsilon(self) -> Floats:
        rate: Floats = self.record.pages.shelf_epsilon_logged[0]
        return rate

    @property
    def card_epsilon(self) -> Floats:
        rate: Floats = self.record.pages.card_epsilon_logged[0]
        return rate

    @property
    def row_shelf(self) -> Ints:
        return self.record.pages.row_shelf

    @property
    def card(self) -> Ints:
        return self.record.pages.order

    @property
    def shelf_propensity(self) -> Floats:
        return self.record.pages.shelf_propensity

    @property
    def card_propensity(self) -> Floats:
        return self.record.pages.card_propensity

    @property
    def seen(self) -> Floats:
        return self.record.pages.seen.astype(np.float64)

    @property
    def reward(self) -> Floats:
        return self.record.pages.reward

    def pages(self, target: Target) -> LoggedPages:
        """The log as the estimators of `bart.ope` read it."""
        return with_target(self.record, target.score, target.epsilon)

    def target_propensity(self, target: Target) -> tuple[Floats, Floats]:
        """What `shelf_propensity` and `card_propensity` are under a target, for the choices that were logged."""
        return page_propensity(self.pages(target), "target")

    def tables(self) -> dict[str, pa.Table]:
        """The log for other languages: a row a candidate, and a row a slot that holds a card."""
        b, n = len(self), SCENE.shelves * SCENE.cards
        page, row, column = np.nonzero(self.card >= 0)
        within = np.tile(np.arange(n), b)
        candidates = {
            "page": np.repeat(np.arange(b), n),
            "candidate": within,
            "shelf": within // SCENE.cards,
            "item": self.item,
            "score": self.score,
            **{f"target_{target.number}": target.score for target in self.targets},
        }
        slots = {
            "page": page,
            "listener": self.listener[page],
            "row": row,
            "column": column,
            "candidate": self.card[page, row, column],
            "shelf_propensity": self.shelf_propensity[page, row],
            "card_propensity": self.card_propensity[page, row, column],
            "seen": self.seen[page, row, column] > 0,
            "reward": self.reward[page, row, column],
        }
        rates = {f"target_{target.number}": str(target.epsilon) for target in self.targets}
        return {"candidates": pa.table(candidates).replace_schema_metadata(rates), "slots": pa.table(slots)}


def arena_log(world: str, logging: str, seed: int) -> Log:
    """One log. world: of `WORLDS`; logging: of `LOGGING`; seed: at least 0. The logs of a seed and world
    are of the same visits. Raises ValueError for an unknown name."""
    params, policy = _named("world", world, WORLDS), _named("logging", logging, LOGGING)
    if seed < 0:
        raise ValueError(f"seed is {seed}; expected at least 0")
    number = list(WORLDS).index(world)
    visits, scores = _visits(seed, number)
    rng = np.random.default_rng([SEED, seed, number, 1 + list(LOGGING).index(logging)])
    record, shown = _write(visits, policy, params, rng)
    at = visits.candidates(shown)
    targets = tuple(
        Target(k, scorer.name, score[at], scorer.epsilon)
        for k, (scorer, score) in enumerate(zip(TARGETS, scores, strict=True))
    )
    return Log(record.scene.item, record, targets)


def export_log(log: Log, folder: Path) -> dict[str, str]:
    """Writes candidates.parquet and slots.parquet; their SHA-256 by name."""
    folder.mkdir(parents=True, exist_ok=True)
    out = {}
    for name, table in log.tables().items():
        path = folder / f"{name}.parquet"
        pq.write_table(table, path)
        out[path.name] = hashlib.sha256(path.read_bytes()).hexdigest()
    return out


@lru_cache(maxsize=1)
def population() -> World:
    """The catalogue and all listeners."""
    return make_world(LISTENERS, np.random.default_rng(SEED), SCENE)


def some_visits(rng: np.random.Generator, visits: int, listeners: int | None = None) -> tuple[Scene, list[Floats]]:
    """Visits of the population (of so many of them), and the score of each target for them."""
    among = None if listeners is None else np.sort(rng.choice(LISTENERS, listeners, replace=False))
    scene = make_scene(visits, rng, SCENE, population(), among)
    scene.model[:] = np.round(scene.model, DIGITS)
    return scene, [np.round(score_of(scorer, scene, scene.model, rng), DIGITS) for scorer in TARGETS]


@lru_cache(maxsize=1)
def _visits(seed: int, world: int) -> tuple[Scene, list[Floats]]:
    return some_visits(np.random.default_rng([SEED, seed, world, 0]), VISITS, listeners_of(VISITS, SCENE))


def _write(visits: Scene, policy: Logging, params: BrowsingParams, rng: np.random.Generator) -> tuple[SceneLog, Ints]:
    """What the policy serves, batch by batch; the record and which of the visits were displayed."""
    score = visits.model.copy()
    parts: list[Served] = []
    streams, expected = np.zeros(SCENE.tracks), np.zeros(SCENE.tracks)
    for among in np.array_split(np.arange(len(visits)), policy.batches):
        at, part = visits.candidates(among), visits.take(among)
        # As many streams more than expected as a track had, shrunk: what a policy that learns from its log would add.
        learnt = np.log((streams + SHRINK) / (expected + SHRINK))
        score[at] = np.round(score[at] + learnt[part.item], DIGITS)
        served = serve(part, score[at], policy.rates, params, rng)
        parts.append(served)
        page, row, column = np.nonzero(served.seen)
        card = part.offset[page] + served.card[page, row, column]
        np.add.at(streams, part.item[card], served.streamed[page, row, column])
        np.add.at(expected, part.item[card], sigmoid(part.model[card]))
    names = ("row_shelf", "card", "displayed", "seen", "streamed")
    whole = Served(**{name: np.concatenate([getattr(part, name) for part in parts]) for name in names})
    return recorded(visits, score, policy.rates, whole), np.flatnonzero(whole.displayed)


def _named(what: str, name: str, known: dict[str, T]) -> T:
    if name not in known:
        raise ValueError(f"{what} is {name!r}; expected one of {', '.join(known)}")
    return known[name]
